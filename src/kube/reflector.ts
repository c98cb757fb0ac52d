// Keeps a copy of one source: list, then watch from there, for ever. The client's own informer ends on ordinary errors.
//
// 1. A list tells all, and the version from which to watch on. The first may come from the server's cache
//    (resourceVersion=0); later ones may not be older than what is known.
// 2. A watch tells what changes. When it ends, the next one begins at the last version that was heard of: bookmarks keep that
//    recent. When the server has forgotten that version (410 Gone), everything is listed again.
// 3. A connection that is open but dead is noticed: the server sends a bookmark about every minute, so silence for longer
//    ends it. Every watch has an end of its own, and once an hour everything is listed again.
//
// Semantics: https://kubernetes.io/docs/reference/using-api/api-concepts/ (resource versions, watch bookmarks, chunks).
import { type KubeConfig, Watch } from "@kubernetes/client-node";
import { z } from "zod";
import { Backoff, type BackoffLimits } from "./backoff.js";
import { monotonicMs } from "./clock.js";
import { ApiError, listPage, type Query } from "./list.js";
import { type Health, NOT_HEARD } from "./messages.js";
import type { AnyRecord, Source } from "./sources.js";

export interface Timing {
	/** Objects per page of a list. */
	pageSize: number;
	/** Silence after which a connection is taken for dead, ms. */
	listIdleMs: number;
	watchIdleMs: number;
	/** The server ends a watch after so long, or up to twice as long. */
	watchSeconds: number;
	/** Everything is listed again after so long. */
	relistMs: number;
	backoff: BackoffLimits;
}

export const TIMING: Timing = {
	pageSize: 500,
	listIdleMs: 30_000,
	watchIdleMs: 150_000,
	watchSeconds: 300,
	relistMs: 3_600_000,
	backoff: { firstMs: 800, longestMs: 30_000 },
};

export interface ReflectorOptions {
	source: Source;
	/** Called for each attempt: credentials may have been replaced. */
	connect: () => KubeConfig;
	timing: Timing;
	onReplace: (records: AnyRecord[]) => void;
	onPut: (record: AnyRecord) => void;
	onGone: (uid: string) => void;
	onHealth: (health: Health) => void;
}

const EXPIRED = 410;
/** A watch that ends sooner has not worked. */
const SHORT_MS = 1000;

const versioned = z.object({ metadata: z.object({ resourceVersion: z.string().min(1) }) });
const statusSchema = z.object({ code: z.number().default(500), message: z.string().default("no reason given") });

export class Reflector {
	readonly #options: ReflectorOptions;
	readonly #backoff: Backoff;
	/** What is known, as text: most events change nothing that is kept. */
	readonly #known = new Map<string, string>();
	#health = NOT_HEARD;
	/** From which the next watch begins; undefined: list first. */
	#version: string | undefined;
	/** Not older than this may a list be; "": the newest there is. */
	#atLeast = "0";
	#listedAt = 0;

	constructor(options: ReflectorOptions) {
		this.#options = options;
		this.#backoff = new Backoff(options.timing.backoff);
	}

	/** Until `signal`. Never throws: what goes wrong is said in its health, and tried again. */
	async run(signal: AbortSignal): Promise<void> {
		while (!signal.aborted) {
			const startedAt = monotonicMs();
			try {
				const connection = this.#options.connect();
				if (this.#version === undefined) await this.#list(connection, signal);
				await this.#watch(connection, signal);
				if (monotonicMs() - this.#listedAt > this.#options.timing.relistMs) this.#version = undefined;
				if (monotonicMs() - startedAt >= SHORT_MS) {
					this.#backoff.reset();
					continue;
				}
			} catch (error) {
				if (signal.aborted) return;
				if (statusOf(error) === EXPIRED) {
					this.#version = undefined;
					this.#atLeast = "";
				}
				this.#report({ problem: problemOf(error, this.#options.source) });
			}
			await this.#backoff.wait(signal);
		}
	}

	/** O(objects) time, O(page) memory but for what is kept. */
	async #list(connection: KubeConfig, signal: AbortSignal): Promise<void> {
		const { source, timing, onReplace } = this.#options;
		const records = new Map<string, AnyRecord>();
		const page = (query: Query) =>
			listPage(
				connection,
				source.path,
				{ ...source.query, ...query },
				{
					onItem: (item) => {
						const record = source.read(item);
						records.set(record.uid, record);
					},
					onBytes: () => this.#heard(),
					idleMs: timing.listIdleMs,
					signal,
				},
			);
		const limit = String(timing.pageSize);
		let last = await page({ limit, resourceVersion: this.#atLeast || undefined });
		try {
			for (let before: string | undefined; last.next !== undefined; ) {
				if (last.next === before) throw new Error("the list does not end: its next page is the same again");
				before = last.next;
				last = await page({ limit, continue: before });
			}
		} catch (error) {
			if (statusOf(error) !== EXPIRED) throw error;
			// Reading took longer than the server keeps old versions: all in one piece, which cannot expire.
			records.clear();
			last = await page({});
		}
		this.#known.clear();
		for (const record of records.values()) this.#known.set(record.uid, JSON.stringify(record));
		onReplace([...records.values()]);
		this.#version = last.version;
		this.#atLeast = last.version;
		this.#listedAt = monotonicMs();
		this.#report({ synced: true, objects: this.#known.size, lists: this.#health.lists + 1, problem: null });
	}

	/** One connection. Resolves when the server ends it in order. */
	async #watch(connection: KubeConfig, signal: AbortSignal): Promise<void> {
		const { source, timing } = this.#options;
		const query = {
			...source.query,
			resourceVersion: this.#version,
			allowWatchBookmarks: "true",
			timeoutSeconds: String(Math.round(timing.watchSeconds * (1 + Math.random()))),
		};
		const ended = new AbortController();
		let openedAt = monotonicMs();
		const silence = setInterval(() => {
			const idleMs = monotonicMs() - Math.max(openedAt, this.#health.heardAt ?? 0);
			if (idleMs > timing.watchIdleMs)
				ended.abort(new Error(`nothing was heard for ${timing.watchIdleMs} ms: the connection is dead`));
		}, timing.watchIdleMs / 4);
		const stop = (): void => ended.abort(signal.reason);
		signal.addEventListener("abort", stop, { once: true });
		try {
			await new Promise<void>((resolve, reject) => {
				let isOver = false;
				ended.signal.addEventListener("abort", () => reject(ended.signal.reason as Error), { once: true });
				const onEvent = (type: string, object: unknown): void => {
					try {
						// What is still in the pipe of a watch that was given up: the next one hears it again.
						if (!ended.signal.aborted) this.#apply(type, object);
					} catch (error) {
						ended.abort(error);
					}
				};
				const onDone = (error: unknown): void => {
					isOver = true;
					if (error) reject(error as Error);
					else resolve();
				};
				new Watch(connection)
					.watch(source.path, query, onEvent, onDone)
					.then((controller) => {
						ended.signal.addEventListener("abort", () => controller.abort(), { once: true });
						if (ended.signal.aborted) controller.abort();
						if (isOver) return;
						openedAt = monotonicMs();
						this.#report({ watches: this.#health.watches + 1, problem: null });
						this.#heard();
					})
					.catch(reject);
			});
		} finally {
			clearInterval(silence);
			signal.removeEventListener("abort", stop);
			ended.abort();
		}
	}

	/** One event of a watch. @throws what makes it impossible to go on from here */
	#apply(type: string, object: unknown): void {
		const { source, onPut, onGone } = this.#options;
		if (type === "ERROR") {
			const { code, message } = statusSchema.parse(object);
			throw new ApiError(code, message);
		}
		try {
			const version = versioned.parse(object).metadata.resourceVersion;
			if (type === "ADDED" || type === "MODIFIED" || type === "DELETED") {
				const record = source.read(object);
				if (type === "DELETED") {
					if (this.#known.delete(record.uid)) onGone(record.uid);
				} else {
					const text = JSON.stringify(record);
					if (this.#known.get(record.uid) !== text) {
						this.#known.set(record.uid, text);
						onPut(record);
					}
				}
			} else if (type !== "BOOKMARK") throw new Error(`unknown event "${type}"`);
			this.#version = version;
			this.#atLeast = version;
		} catch (error) {
			// Something was not understood: what it was is found out by listing.
			this.#version = undefined;
			throw error;
		}
		this.#backoff.reset();
		this.#heard();
	}

	#heard(): void {
		this.#report({ heardAt: monotonicMs(), objects: this.#known.size });
	}

	#report(change: Partial<Health>): void {
		this.#health = { ...this.#health, ...change };
		this.#options.onHealth(this.#health);
	}
}

/** Of ApiError and of what Watch throws. */
function statusOf(error: unknown): number | undefined {
	if (error instanceof ApiError) return error.status;
	const { statusCode } = error as { statusCode?: unknown };
	return typeof statusCode === "number" ? statusCode : undefined;
}

function problemOf(error: unknown, { name, kind }: Source): string {
	const message = error instanceof z.ZodError ? "it is not what the API server sends" : (error as Error).message;
	const cannot = `Cannot read ${name}`;
	switch (statusOf(error)) {
		case 401:
			return `${cannot}: the API server does not accept the agent's credentials (401 ${message}): is its token or certificate expired?`;
		case 403:
			return `${cannot}: not allowed (403 ${message}): let the agent's account get, list and watch ${kind}`;
		case EXPIRED:
			return `${cannot} from where it ended (410 ${message}): listing everything again`;
		default:
			return `${cannot}: ${message}`;
	}
}
