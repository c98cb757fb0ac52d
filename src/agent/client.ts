// Asks a running agent over its unix socket. The other half of server.ts.
import { type IncomingMessage, request } from "node:http";
import { text } from "node:stream/consumers";
import type { ApiError } from "./api.js";

/** Nobody answers at the socket. */
export class AgentUnreachable extends Error {
	override name = "AgentUnreachable";
	readonly exitCode = 1;
}

/** The agent answered, and said no. */
export class AgentRefused extends Error {
	override name = "AgentRefused";
	readonly exitCode = 1;
	readonly status: number;
	/** Stable, for programs: see ApiError. */
	readonly code: string;

	constructor(status: number, { error }: ApiError) {
		super(error.message);
		this.status = status;
		this.code = error.code;
	}
}

export interface RequestOptions {
	/** For the whole exchange; default 5000. */
	timeoutMs?: number;
	signal?: AbortSignal;
}

/**
 * Sends `body` as JSON and returns the JSON that comes back.
 * @throws {AgentUnreachable} no socket, nobody behind it, no permission, no answer in time
 * @throws {AgentRefused} any answer but 2xx
 */
export async function agentRequest<Answer>(
	socketPath: string,
	method: "GET" | "POST",
	path: string,
	body?: unknown,
	{ timeoutMs = 5000, signal }: RequestOptions = {},
): Promise<Answer> {
	const sent = body === undefined ? undefined : JSON.stringify(body);
	const headers = sent === undefined ? {} : { "content-type": "application/json" };
	const outgoing = request({ socketPath, method, path, headers, agent: false, ...(signal && { signal }) });
	const timer = setTimeout(() => outgoing.destroy(new Error(`no answer within ${timeoutMs} ms`)), timeoutMs);
	try {
		const answered = new Promise<IncomingMessage>((resolve, reject) => {
			outgoing.once("response", resolve).on("error", reject);
		});
		outgoing.end(sent);
		const response = await answered;
		const status = response.statusCode ?? 0;
		const content = await text(response);
		if (status < 200 || status > 299) throw new AgentRefused(status, readApiError(status, content));
		return JSON.parse(content) as Answer;
	} catch (error) {
		if (error instanceof AgentRefused) throw error;
		signal?.throwIfAborted();
		const cause = causeOf(error as NodeJS.ErrnoException);
		throw new AgentUnreachable(`Cannot reach the agent at "${socketPath}": ${cause}`, { cause: error });
	} finally {
		clearTimeout(timer);
	}
}

function readApiError(status: number, content: string): ApiError {
	try {
		const answer = JSON.parse(content) as Partial<ApiError> | null;
		if (typeof answer?.error?.message === "string") return answer as ApiError;
	} catch {
		// Not JSON: /livez and /readyz answer with text.
	}
	return {
		error: { code: `http-${status}`, message: content.trim() || `The agent answered with HTTP status ${status}` },
	};
}

const CAUSES: Record<string, string> = {
	ENOENT: 'there is no such socket; start "oncache agent", or name its socket with --socket',
	ECONNREFUSED: 'nobody listens there any more; start "oncache agent"',
	EACCES: "permission denied; run this as root, or as a member of the socket's group",
	ENOTSOCK: "that is not a socket; name the agent's socket with --socket",
};

function causeOf({ code, message }: NodeJS.ErrnoException): string {
	return CAUSES[code ?? ""] ?? message;
}
