// One page of a list: a GET with the official client's credentials, read while it arrives.
import * as http from "node:http";
import * as https from "node:https";
import { text } from "node:stream/consumers";
import type { KubeConfig } from "@kubernetes/client-node";
import { z } from "zod";
import { serverOf } from "./connection.js";
import { Items } from "./items.js";

/** The API server answered, and said no. */
export class ApiError extends Error {
	override name = "ApiError";
	/** Of HTTP, and of the Status object alike. */
	readonly status: number;

	constructor(status: number, message: string) {
		super(message);
		this.status = status;
	}
}

export type Query = Readonly<Record<string, string | undefined>>;

export interface Page {
	/** resourceVersion of the whole list. */
	version: string;
	/** Where the next page begins; undefined: this was the last one. */
	next: string | undefined;
}

const envelopeSchema = z.object({
	metadata: z.object({ resourceVersion: z.string().min(1), continue: z.string().optional() }),
});
const statusSchema = z.object({ message: z.string() });

/** @throws {ApiError} any answer but 200; what else goes wrong on the way, and what is no list */
export async function listPage(
	connection: KubeConfig,
	path: string,
	query: Query,
	options: { onItem: (item: unknown) => void; onBytes: () => void; idleMs: number; signal: AbortSignal },
): Promise<Page> {
	const response = await get(connection, path, query, options);
	const status = response.statusCode ?? 0;
	if (status !== 200) throw new ApiError(status, messageOf(await text(response)) ?? response.statusMessage ?? "");
	const items = new Items(options.onItem);
	for await (const bytes of response as AsyncIterable<Buffer>) {
		options.onBytes();
		items.push(bytes);
	}
	const { metadata } = envelopeSchema.parse(items.envelope());
	return { version: metadata.resourceVersion, next: metadata.continue || undefined };
}

async function get(
	connection: KubeConfig,
	path: string,
	query: Query,
	{ idleMs, signal }: { idleMs: number; signal: AbortSignal },
): Promise<http.IncomingMessage> {
	const url = new URL(serverOf(connection) + path);
	for (const [name, value] of Object.entries(query)) if (value !== undefined) url.searchParams.set(name, value);
	const options: https.RequestOptions = { headers: { accept: "application/json" } };
	await connection.applyToHTTPSOptions(options);
	const { request } = url.protocol === "https:" ? https : http;
	return new Promise((resolve, reject) => {
		let response: http.IncomingMessage | undefined;
		const asked = request(url, { ...options, signal }, (answered) => {
			response = answered;
			resolve(answered);
		}).on("error", reject);
		// Of the socket: also while the answer arrives, whose reader is to hear why it ends.
		asked.setTimeout(idleMs, () => (response ?? asked).destroy(new Error(`nothing was heard for ${idleMs} ms`)));
		asked.end();
	});
}

/** Of a Status object. */
function messageOf(body: string): string | undefined {
	try {
		return statusSchema.parse(JSON.parse(body)).message;
	} catch {
		return undefined; // a proxy's page
	}
}
