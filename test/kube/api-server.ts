// A double of the Kubernetes API server: no real one is to be had here. It behaves as that does towards list and watch
// (https://kubernetes.io/docs/reference/using-api/api-concepts/), and as it should not, when it is told to:
//
// * list: resourceVersion=0 is answered from "the cache", in one piece whatever the limit; else in pages with "continue";
// * watch: one JSON object a line in a chunked answer, from any version that is still remembered, bookmarks, an end after
//   timeoutSeconds; 410 Gone as the answer, or as an event, for a version that is forgotten;
// * selectors: spec.nodeName and labels, equality only;
// * 401 and 403 with a Status object.
import { createServer as createHttp, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import { createServer as createHttps } from "node:https";
import type { AddressInfo, Socket } from "node:net";
import type { Duplex } from "node:stream";

export interface ApiObject {
	metadata: {
		name: string;
		namespace?: string;
		uid?: string;
		resourceVersion?: string;
		generation?: number;
		labels?: Record<string, string>;
		annotations?: Record<string, string>;
	};
	spec?: Record<string, unknown>;
	status?: Record<string, unknown>;
}

type Resource = "pods" | "namespaces" | "nodes" | "networkpolicies";
const RESOURCES: readonly Resource[] = ["pods", "namespaces", "nodes", "networkpolicies"];

interface Event {
	type: "ADDED" | "MODIFIED" | "DELETED";
	version: number;
	resource: Resource;
	object: ApiObject;
	/** As it was before: whether it was in a selection. */
	before: ApiObject | undefined;
}

interface Watching {
	resource: Resource;
	isSelected: (object: ApiObject) => boolean;
	response: ServerResponse;
}

export interface Asked {
	path: string;
	query: Record<string, string>;
	authorization: string | undefined;
}

/** What it does wrong from now on. */
export interface Faults {
	/** Nothing is said any more, connections stay open: new ones too. */
	isFrozen: boolean;
	/** Before every answer. */
	delayMs: number;
	/** Of lists: something that is no JSON, or no list. */
	listBody: string | undefined;
	/** Lists end in the middle, and the connection stays open. */
	listStalls: boolean;
	/** A "continue" is not known any more. */
	continueExpired: boolean;
	/** Resources that nobody may read. */
	forbidden: readonly string[];
	/** Connections are closed as soon as they are made. */
	isRefusing: boolean;
}

export class ApiServer {
	/** Accepted; undefined: everybody is. */
	token: string | undefined;
	bookmarkMs: number | undefined = 200;
	readonly faults: Faults = {
		isFrozen: false,
		delayMs: 0,
		listBody: undefined,
		listStalls: false,
		continueExpired: false,
		forbidden: [],
		isRefusing: false,
	};
	readonly asked: Asked[] = [];
	/** For what is not list or watch, such as exec. */
	onUpgrade: ((request: IncomingMessage, socket: Duplex, head: Buffer) => void) | undefined;
	readonly #server: Server;
	readonly #sockets = new Set<Socket>();
	readonly #objects: Record<Resource, Map<string, ApiObject>> = {
		pods: new Map(),
		namespaces: new Map(),
		nodes: new Map(),
		networkpolicies: new Map(),
	};
	readonly #events: Event[] = [];
	readonly #watching = new Set<Watching>();
	readonly #bookmarks = new Map<Resource, number>();
	#version = 100;
	/** Versions before this are forgotten. */
	#oldest = 0;
	#uids = 0;

	constructor(tls?: { key: string; cert: string }) {
		const answer = (request: IncomingMessage, response: ServerResponse): void => void this.#answer(request, response);
		this.#server = tls ? createHttps(tls, answer) : createHttp(answer);
		this.#server.on("connection", (socket: Socket) => {
			this.#sockets.add(socket);
			socket.once("close", () => this.#sockets.delete(socket));
			if (this.faults.isRefusing) socket.destroy();
		});
		this.#server.on("upgrade", (request, socket, head) =>
			this.onUpgrade ? this.onUpgrade(request, socket, head) : socket.destroy(),
		);
	}

	/** @returns its port */
	async listen(host = "127.0.0.1", port = 0): Promise<number> {
		await new Promise<void>((resolve) => this.#server.listen(port, host, resolve));
		return (this.#server.address() as AddressInfo).port;
	}

	async close(): Promise<void> {
		this.dropConnections();
		await new Promise((resolve) => this.#server.close(resolve));
	}

	set(faults: Partial<Faults>): void {
		Object.assign(this.faults, faults);
	}

	/** Creates it, or changes it. */
	put(resource: Resource, given: ApiObject): ApiObject {
		const key = `${given.metadata.namespace ?? ""}/${given.metadata.name}`;
		const before = this.#objects[resource].get(key);
		const uid = before?.metadata.uid ?? `uid-${++this.#uids}`;
		const object: ApiObject = {
			...given,
			metadata: { ...given.metadata, uid, resourceVersion: String(++this.#version) },
		};
		this.#objects[resource].set(key, object);
		this.#tell({ type: before ? "MODIFIED" : "ADDED", version: this.#version, resource, object, before });
		return object;
	}

	remove(resource: Resource, name: string, namespace = ""): void {
		const key = `${namespace}/${name}`;
		const before = this.#objects[resource].get(key);
		if (!before) throw new Error(`There is no ${resource} "${key}"`);
		this.#objects[resource].delete(key);
		const object = { ...before, metadata: { ...before.metadata, resourceVersion: String(++this.#version) } };
		this.#tell({ type: "DELETED", version: this.#version, resource, object, before });
	}

	/** Forgets all versions before now: whoever watches on from one is told 410. */
	compact(): void {
		this.#events.length = 0;
		this.#oldest = ++this.#version;
	}

	/** To all who watch a resource, as it stands. */
	say(resource: Resource, line: string): void {
		for (const watching of this.#watching) if (watching.resource === resource) watching.response.write(`${line}\n`);
	}

	/** An ERROR event with 410, as a watch gets that has fallen behind. */
	expireWatches(): void {
		const object = status(410, "Expired", "too old resource version");
		for (const { response } of this.#watching) response.write(`${JSON.stringify({ type: "ERROR", object })}\n`);
		this.endWatches();
	}

	/** Ends all watches in order, as at their timeoutSeconds. */
	endWatches(): void {
		for (const { response } of this.#watching) response.end();
		this.#watching.clear();
	}

	/** In the middle of whatever is said. */
	dropConnections(): void {
		for (const socket of this.#sockets) socket.destroy();
	}

	/** The version that those who watch a resource were last told. */
	bookmarkOf(resource: Resource): string {
		return String(this.#bookmarks.get(resource) ?? 0);
	}

	/** What was asked of a path: lists and watches. */
	askedFor(path: string): { lists: Asked[]; watches: Asked[] } {
		const all = this.asked.filter((each) => each.path === path);
		return { lists: all.filter(({ query }) => !query.watch), watches: all.filter(({ query }) => query.watch) };
	}

	async #answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
		const url = new URL(request.url ?? "/", "http://api");
		const query = Object.fromEntries(url.searchParams);
		this.asked.push({ path: url.pathname, query, authorization: request.headers.authorization });
		if (this.faults.delayMs > 0) await new Promise((resolve) => setTimeout(resolve, this.faults.delayMs));
		if (this.faults.isFrozen) return;
		if (this.token !== undefined && request.headers.authorization !== `Bearer ${this.token}`)
			return refuse(response, 401, "Unauthorized", "Unauthorized");
		const target = parsePath(url.pathname);
		if (!target) return refuse(response, 404, "NotFound", "the server could not find the requested resource");
		const { resource, namespace } = target;
		if (this.faults.forbidden.includes(resource))
			return refuse(
				response,
				403,
				"Forbidden",
				`${resource} is forbidden: User "test" cannot list resource "${resource}"`,
			);
		const isSelected = selectorOf(query, namespace);
		if (query.watch === "true") this.#watch(resource, isSelected, query, response);
		else this.#list(resource, isSelected, query, response);
	}

	#list(
		resource: Resource,
		isSelected: (object: ApiObject) => boolean,
		query: Record<string, string>,
		response: ServerResponse,
	): void {
		if (this.faults.listBody !== undefined) {
			response.writeHead(200, { "content-type": "application/json" }).end(this.faults.listBody);
			return;
		}
		const selected = [...this.#objects[resource].values()].filter(isSelected);
		let from = 0;
		let version = this.#version;
		if (query.continue) {
			const token = JSON.parse(Buffer.from(query.continue, "base64").toString()) as { from: number; version: number };
			if (this.faults.continueExpired || token.version < this.#oldest) {
				refuse(response, 410, "Expired", "The provided continue parameter is too old");
				return;
			}
			({ from, version } = token);
		}
		const isFromCache = query.resourceVersion === "0" && !query.continue;
		const limit = isFromCache ? 0 : Number(query.limit ?? 0);
		const items = limit > 0 ? selected.slice(from, from + limit) : selected.slice(from);
		const next = from + items.length;
		const token = Buffer.from(JSON.stringify({ from: next, version })).toString("base64");
		response.writeHead(200, { "content-type": "application/json" });
		const text = JSON.stringify({
			kind: "List",
			apiVersion: "v1",
			metadata: { resourceVersion: String(version), ...(next < selected.length && { continue: token }) },
			items,
		});
		if (this.faults.listStalls) response.write(text.slice(0, text.length / 2));
		else response.end(text);
	}

	#watch(
		resource: Resource,
		isSelected: (object: ApiObject) => boolean,
		query: Record<string, string>,
		response: ServerResponse,
	): void {
		const from = Number(query.resourceVersion ?? 0);
		if (from < this.#oldest) {
			refuse(response, 410, "Expired", `too old resource version: ${from}`);
			return;
		}
		response.writeHead(200, { "content-type": "application/json" });
		response.flushHeaders();
		const watching: Watching = { resource, isSelected, response };
		for (const event of this.#events) if (event.version > from) this.#send(watching, event);
		this.#watching.add(watching);
		const bookmarks =
			this.bookmarkMs === undefined || query.allowWatchBookmarks !== "true"
				? undefined
				: setInterval(() => {
						if (this.faults.isFrozen || response.writableEnded) return;
						const object = { metadata: { resourceVersion: String(this.#version) } };
						response.write(`${JSON.stringify({ type: "BOOKMARK", object })}\n`);
						this.#bookmarks.set(resource, this.#version);
					}, this.bookmarkMs);
		const end = setTimeout(() => response.end(), Number(query.timeoutSeconds ?? 3600) * 1000);
		response.once("close", () => {
			clearInterval(bookmarks);
			clearTimeout(end);
			this.#watching.delete(watching);
		});
	}

	#tell(event: Event): void {
		this.#events.push(event);
		if (!this.faults.isFrozen) for (const watching of this.#watching) this.#send(watching, event);
	}

	/** What leaves a selection is told as deleted, what enters it as added. */
	#send({ resource, isSelected, response }: Watching, event: Event): void {
		if (event.resource !== resource) return;
		const was = event.before !== undefined && isSelected(event.before);
		const is = event.type !== "DELETED" && isSelected(event.object);
		if (!was && !is) return;
		const type = is ? (was ? "MODIFIED" : "ADDED") : "DELETED";
		response.write(`${JSON.stringify({ type, object: event.object })}\n`);
	}
}

function parsePath(path: string): { resource: Resource; namespace: string | undefined } | undefined {
	const [, namespace, name] =
		/^\/(?:api|apis\/networking\.k8s\.io)\/v1\/(?:namespaces\/([^/]+)\/)?([a-z]+)$/.exec(path) ?? [];
	const resource = RESOURCES.find((each) => each === name);
	return resource && { resource, namespace };
}

function selectorOf(query: Record<string, string>, namespace: string | undefined): (object: ApiObject) => boolean {
	const [, node] = /^spec\.nodeName=(.*)$/.exec(query.fieldSelector ?? "") ?? [];
	const labels = (query.labelSelector ?? "")
		.split(",")
		.filter((each) => each !== "")
		.map((each) => each.split("="));
	return ({ metadata, spec }) =>
		(namespace === undefined || metadata.namespace === namespace) &&
		(node === undefined || spec?.nodeName === node) &&
		labels.every(([label = "", value]) => metadata.labels?.[label] === value);
}

const status = (code: number, reason: string, message: string) => ({
	kind: "Status",
	apiVersion: "v1",
	metadata: {},
	status: "Failure",
	message,
	reason,
	code,
});

function refuse(response: ServerResponse, code: number, reason: string, message: string): void {
	response.writeHead(code, { "content-type": "application/json" }).end(JSON.stringify(status(code, reason, message)));
}
