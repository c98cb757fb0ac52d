// The agent's end: starts the thread that talks to the API server, starts it again when it dies, and keeps what it has said.
// Nothing here is needed for accelerating: what the API server does not say, the kernel does, or bounded staleness covers.
import { Worker } from "node:worker_threads";
import type { KubernetesStatus, PodName } from "../agent/api.js";
import type { Access } from "./access.js";
import { Backoff, type BackoffLimits } from "./backoff.js";
import { monotonicMs } from "./clock.js";
import { type Assignment, type Health, type Message, NOT_HEARD } from "./messages.js";
import { type PodScope, sourcesFor } from "./sources.js";
import { type Consequences, View } from "./view.js";

export interface ClusterOptions {
	access: Access;
	scope: PodScope;
	/** Name of this node. */
	node: string;
	consequences: Consequences;
	/** What a thread ended with that should not have ended. */
	onError: (error: Error) => void;
	signal: AbortSignal;
	/** For tests: another thread. */
	thread?: { script: URL; restart: BackoffLimits };
}

/** MiB of JavaScript objects: client, and about 1 kB per pod. */
const MEMORY = { maxOldGenerationSizeMb: 256, maxYoungGenerationSizeMb: 8 };
const RESTART = { firstMs: 5000, longestMs: 300_000 };

export class Cluster {
	readonly #options: ClusterOptions;
	readonly #view: View;
	readonly #health = new Map<string, Health>();
	readonly #backoff: Backoff;
	#server: string | null = null;
	#problem: string | null = null;

	private constructor(options: ClusterOptions) {
		this.#options = options;
		// Of what nothing was heard yet, too: as long as one is missing, not everything is read.
		for (const { name } of sourcesFor(options.scope, options.node)) this.#health.set(name, NOT_HEARD);
		this.#backoff = new Backoff(options.thread?.restart ?? RESTART);
		this.#view = new View(options.node, options.consequences);
	}

	/** Until `signal`. Returns at once: nobody waits for the API server. */
	static start(options: ClusterOptions): Cluster {
		const cluster = new Cluster(options);
		void cluster.#run();
		return cluster;
	}

	podAt(ip: string): PodName | null {
		return this.#view.podAt(ip);
	}

	nodeAt(ip: string): string | null {
		return this.#view.nodeAt(ip);
	}

	/** This node's pods that are left to the overlay, by address. */
	localOptedOut(): ReadonlyMap<string, PodName> {
		return this.#view.optedOut().local;
	}

	status(): KubernetesStatus {
		const now = monotonicMs();
		const sources = [...this.#health].map(([name, { heardAt, ...health }]) => ({
			name,
			...health,
			ageMs: heardAt === null ? null : Math.max(0, now - heardAt),
		}));
		const ages = sources.map(({ ageMs }) => ageMs);
		return {
			server: this.#server,
			node: this.#options.node,
			pods: this.#options.scope,
			synced: sources.every(({ synced }) => synced),
			// Of a source that was never heard of nothing is known.
			ageMs: ages.includes(null) ? null : Math.max(...(ages as number[])),
			problems: [
				...(this.#problem === null ? [] : [this.#problem]),
				...new Set(sources.flatMap(({ problem }) => (problem === null ? [] : [problem]))),
			],
			optedOut: this.#view.optedOut().total,
			sources,
		};
	}

	async #run(): Promise<void> {
		const { signal, onError } = this.#options;
		while (!signal.aborted) {
			const error = await this.#thread();
			if (signal.aborted) return;
			this.#problem = `The thread that reads from the API server has ended and is started again: ${error.message}`;
			onError(error);
			await this.#backoff.wait(signal);
		}
	}

	/** @returns with what it ended */
	#thread(): Promise<Error> {
		const { access, scope, node, signal } = this.#options;
		const assignment: Assignment = { access, scope, node };
		const worker = new Worker(this.#options.thread?.script ?? new URL("./worker.js", import.meta.url), {
			workerData: assignment,
			resourceLimits: MEMORY,
			name: "kube",
		});
		const stop = (): void => void worker.terminate();
		signal.addEventListener("abort", stop, { once: true });
		worker.on("message", (message: Message) => this.#hear(message));
		return new Promise<Error>((resolve) => {
			worker.once("error", resolve);
			worker.once("exit", (code) => resolve(new Error(`it ended with ${code}`)));
		}).finally(() => signal.removeEventListener("abort", stop));
	}

	#hear(message: Message): void {
		if (this.#options.signal.aborted) return;
		if (message.type === "server") this.#server = message.server;
		else if (message.type === "health") {
			this.#health.set(message.source, message.health);
			if (message.health.synced) {
				this.#problem = null;
				this.#backoff.reset();
			}
		} else {
			if (message.type === "end") this.#health.delete(message.source);
			this.#view.apply(message);
		}
	}
}
