// The agent's HTTP/JSON API on its unix socket. Paths and bodies: api.ts.
import { chmodSync, rmSync } from "node:fs";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import { z } from "zod";
import { type Ip, parseIp } from "../net/ip.js";
import type {
	CniAnswer,
	CniGcRequest,
	CniRequest,
	FlowList,
	FlushRequest,
	FlushResult,
	Lease,
	LeaseRequest,
	PauseRequest,
	Status,
} from "./api.js";
import { agentRequest } from "./client.js";
import { answerProbe, type Probes } from "./probes.js";

/** What the server may ask of the agent. */
export interface Handlers extends Probes {
	status(): Promise<Status>;
	flows(query: { pod?: Ip; peer?: Ip; limit: number }): Promise<FlowList>;
	flush(what: FlushRequest): Promise<FlushResult>;
	lease(request: LeaseRequest): Promise<Lease>;
	renew(id: string, ttlMs: number): boolean;
	release(id: string): boolean;
	pause(request: PauseRequest): { learning: boolean; using: boolean };
	resume(request: PauseRequest): { learning: boolean; using: boolean };
	cni: {
		add(request: CniRequest): Promise<CniAnswer>;
		check(request: CniRequest): Promise<CniAnswer>;
		del(request: CniRequest): Promise<CniAnswer>;
		gc(request: CniGcRequest): Promise<{ removed: number }>;
	};
	/** Detaches everything; the agent ends after the answer. */
	detach(): { removed: string[] };
}

/** The longest is the list of all attachments that are still there. */
const BODY_LIMIT_BYTES = 1 << 20;
const FLOWS_DEFAULT = 100;
const FLOWS_LIMIT = 100_000;

/** The request is wrong: an HTTP status and a stable code. */
class Refusal extends Error {
	readonly status: number;
	readonly code: string;

	constructor(status: number, code: string, message: string) {
		super(message);
		this.status = status;
		this.code = code;
	}
}

const address = z.string().transform((text, context) => {
	try {
		return parseIp(text);
	} catch (error) {
		context.addIssue({ code: "custom", message: (error as Error).message });
		return z.NEVER;
	}
});
/** Checked, and handed on as text. */
const addressText = z.string().superRefine((text, context) => {
	try {
		parseIp(text);
	} catch (error) {
		context.addIssue({ code: "custom", message: (error as Error).message });
	}
});
const end = z.strictObject({ ip: addressText, port: z.number().int().min(0).max(65_535) });
const flushSchema = z
	.strictObject({
		pod: addressText.optional(),
		host: addressText.optional(),
		flow: z.strictObject({ protocol: z.enum(["tcp", "udp", "icmp"]), a: end, b: end }).optional(),
		all: z.literal(true).optional(),
	})
	.refine((body) => Object.values(body).filter((value) => value !== undefined).length === 1, {
		message: 'Expected exactly one of "pod", "host", "flow", "all"',
	});
const ttlMs = z.number().int().min(100).max(60_000);
const leaseSchema = z.strictObject({ ttlMs, evict: z.array(flushSchema).max(1000) });
const renewSchema = z.strictObject({ id: z.string(), ttlMs });
const releaseSchema = z.strictObject({ id: z.string() });
const pauseSchema = z.strictObject({ learning: z.boolean().optional(), using: z.boolean().optional() });
const attachmentId = { containerId: z.string().min(1).max(1024), ifname: z.string().min(1).max(15) };
const network = z.string().min(1).max(1024);
const cniSchema = z.strictObject({
	...attachmentId,
	network,
	netns: z.string().max(4096).nullable(),
	hostDevices: z.array(z.string().max(1024)).max(1000),
	addresses: z.array(addressText).max(1000),
	last: z.boolean(),
	pod: z.strictObject({ namespace: z.string(), name: z.string() }).nullable(),
});
const cniGcSchema = z.strictObject({ network, valid: z.array(z.strictObject(attachmentId)) });
const flowsSchema = z.strictObject({
	pod: address.optional(),
	peer: address.optional(),
	limit: z.coerce.number().int().min(0).max(FLOWS_LIMIT).default(FLOWS_DEFAULT),
});

type Route = (handlers: Handlers, input: unknown) => unknown;

const ROUTES: Record<string, Partial<Record<"GET" | "POST", Route>>> = {
	"/v1/status": { GET: (handlers) => handlers.status() },
	"/v1/flows": { GET: (handlers, input) => handlers.flows(withoutUndefined(check(flowsSchema, input))) },
	"/v1/flush": { POST: (handlers, input) => handlers.flush(check(flushSchema, input) as FlushRequest) },
	"/v1/leases": { POST: (handlers, input) => handlers.lease(check(leaseSchema, input) as LeaseRequest) },
	"/v1/leases/renew": {
		POST: (handlers, input) => {
			const { id, ttlMs } = check(renewSchema, input);
			return { held: handlers.renew(id, ttlMs) };
		},
	},
	"/v1/leases/release": { POST: (handlers, input) => ({ held: handlers.release(check(releaseSchema, input).id) }) },
	"/v1/pause": { POST: (handlers, input) => handlers.pause(withoutUndefined(check(pauseSchema, input))) },
	"/v1/resume": { POST: (handlers, input) => handlers.resume(withoutUndefined(check(pauseSchema, input))) },
	"/v1/cni/ready": { GET: (handlers) => ({ ready: handlers.ready() }) },
	"/v1/cni/add": { POST: (handlers, input) => handlers.cni.add(check(cniSchema, input)) },
	"/v1/cni/check": { POST: (handlers, input) => handlers.cni.check(check(cniSchema, input)) },
	"/v1/cni/del": { POST: (handlers, input) => handlers.cni.del(check(cniSchema, input)) },
	"/v1/cni/gc": { POST: (handlers, input) => handlers.cni.gc(check(cniGcSchema, input)) },
	"/v1/detach": { POST: (handlers) => handlers.detach() },
};

/** Whether an agent answers there: its pid. */
export async function runningAgent(socket: string): Promise<number | undefined> {
	try {
		return (await agentRequest<Status>(socket, "GET", "/v1/status")).agent.pid ?? 0;
	} catch {
		return undefined;
	}
}

/** A server that runs until its signal. */
export interface Serving {
	/** Resolves when no request is being answered: only then may be closed what answers need. */
	idle(): Promise<void>;
}

/**
 * Serves until `signal`. A socket file that nobody answers at is replaced; that nobody does, the caller has made sure of.
 * The socket is for root and its group: 0660.
 */
export async function serve(options: { socket: string; handlers: Handlers; signal: AbortSignal }): Promise<Serving> {
	const { socket, handlers, signal } = options;
	const open = new Set<Promise<void>>();
	const server = createServer((request, response) => {
		const answered = answer(request, response, handlers).finally(() => open.delete(answered));
		open.add(answered);
	});
	rmSync(socket, { force: true });
	// Nobody may connect in the moment before chmod.
	const before = process.umask(0o777);
	await new Promise<void>((resolve, reject) => {
		server.once("error", reject);
		server.listen(socket, resolve);
	}).finally(() => process.umask(before));
	chmodSync(socket, 0o660);
	signal.addEventListener("abort", () => {
		server.close();
		server.closeAllConnections();
		rmSync(socket, { force: true });
	});
	return { idle: async () => void (await Promise.allSettled(open)) };
}

async function answer(request: IncomingMessage, response: ServerResponse, handlers: Handlers): Promise<void> {
	const url = new URL(request.url ?? "/", "http://agent");
	try {
		if (await answerProbe(url.pathname, request, response, handlers)) return;
		const methods = ROUTES[url.pathname];
		if (!methods) throw new Refusal(404, "not_found", `No such path: "${url.pathname}"`);
		const route = methods[request.method as "GET" | "POST"];
		if (!route)
			throw new Refusal(405, "method_not_allowed", `"${url.pathname}" takes ${Object.keys(methods).join(", ")}`);
		const input = request.method === "GET" ? Object.fromEntries(url.searchParams) : await readBody(request);
		send(response, 200, await route(handlers, input));
	} catch (error) {
		const refusal = error instanceof Refusal ? error : undefined;
		const message = error instanceof Error ? error.message : String(error);
		send(response, refusal?.status ?? 500, { error: { code: refusal?.code ?? "failed", message } });
	}
}

async function readBody(request: IncomingMessage): Promise<unknown> {
	const chunks: Buffer[] = [];
	let length = 0;
	for await (const chunk of request as AsyncIterable<Buffer>) {
		length += chunk.length;
		if (length > BODY_LIMIT_BYTES)
			throw new Refusal(413, "too_large", `The body is larger than ${BODY_LIMIT_BYTES} bytes`);
		chunks.push(chunk);
	}
	try {
		return length === 0 ? {} : JSON.parse(Buffer.concat(chunks).toString("utf8"));
	} catch {
		throw new Refusal(400, "bad_request", "The body is not JSON");
	}
}

function check<T>(schema: z.ZodType<T>, input: unknown): T {
	const { success, data, error } = schema.safeParse(input);
	if (success) return data;
	const problems = error.issues.map(({ path, message }) =>
		path.length > 0 ? `"${path.join(".")}": ${message}` : message,
	);
	throw new Refusal(400, "bad_request", problems.join("; "));
}

function withoutUndefined<T extends object>(value: T): { [K in keyof T]: Exclude<T[K], undefined> } {
	return Object.fromEntries(Object.entries(value).filter(([, item]) => item !== undefined)) as never;
}

function send(response: ServerResponse, status: number, body: unknown): void {
	response.writeHead(status, { "content-type": "application/json" }).end(`${JSON.stringify(body)}\n`);
}
