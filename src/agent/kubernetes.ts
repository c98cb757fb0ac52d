// From what the API server says to what is evicted and not learned. The agent works as well without it, only later.
import { hostname } from "node:os";
import { setTimeout as sleep } from "node:timers/promises";
import type { Logger } from "pino";
import type { Datapath } from "../datapath/datapath.js";
import { findAccess } from "../kube/access.js";
import { Cluster } from "../kube/cluster.js";
import { type Ip, isIpv6, parseIp } from "../net/ip.js";
import type { KubernetesStatus } from "./api.js";
import type { Config } from "./config.js";
import { evictAddresses } from "./flush.js";

/**
 * The CNI hears of a change of policy when we do, and takes its time to apply it: until then, what is judged again is judged
 * as before. Many do so without the kernel telling (ipset), so it is done again after so long, ms.
 */
const AGAIN_MS = [100, 300, 700, 1500, 3000];

export interface KubernetesOptions {
	config: Pick<Config, "kubernetes" | "kubernetesPods" | "nodeName">;
	datapath: Datapath;
	log: Logger;
	signal: AbortSignal;
	/** Everything is to be judged again. */
	onPolicies: () => void;
	/** Other pods of this node are opted out than before. */
	onOptedOut: () => void;
}

/** How often it made something happen. */
export interface KubernetesCounts {
	policies: number;
	gone: number;
	nodes: number;
	optedOut: number;
}

export interface Kubernetes {
	cluster: Cluster;
	counts: KubernetesCounts;
	status(): KubernetesStatus;
}

/** Until the signal. Undefined: this is no cluster, or it is switched off. */
export function followCluster(options: KubernetesOptions): Kubernetes | undefined {
	const { config, datapath, log, signal } = options;
	const access = findAccess(config.kubernetes);
	if (!access) {
		// What an earlier agent was told does not hold where nobody is asked any more.
		datapath.setOptedOut(new Set());
		return undefined;
	}
	const counts: KubernetesCounts = { policies: 0, gone: 0, nodes: 0, optedOut: 0 };
	/** What it asks for and cannot be done. */
	let problem: string | undefined;
	const again = new Again(signal);
	const evictions = new Evictions(datapath, log, signal);
	const cluster = Cluster.start({
		access,
		scope: config.kubernetesPods,
		node: nodeNameOf(config),
		signal,
		onError: (error) => log.error({ error: error.message }, "reading from the API server ended; starting it again"),
		consequences: {
			onPolicies: (why) => {
				counts.policies++;
				log.info({ why }, "everything is judged again");
				again.now(options.onPolicies);
			},
			onGone: (texts) => {
				counts.gone++;
				evictions.add(addresses(texts));
			},
			onRelabelled: (texts) => {
				const ips = addresses(texts);
				again.now(() => evictions.add(ips));
			},
			onNodesGone: (texts) => {
				counts.nodes++;
				for (const ip of addresses(texts)) if (!isIpv6(ip)) datapath.flushHost(ip);
				log.info({ addresses: texts }, "nodes are gone");
			},
			onOptedOut: (texts) => {
				try {
					const added = datapath.setOptedOut(new Set(addresses([...texts])));
					counts.optedOut += added.size;
					evictions.add([...added]);
					problem = undefined;
					log.info({ total: texts.size, added: added.size }, "pods that are left to the overlay");
				} catch (error) {
					problem = (error as Error).message;
					log.error({ error: problem }, "cannot leave pods to the overlay");
				}
				options.onOptedOut();
			},
		},
	});
	return {
		cluster,
		counts,
		status: () => {
			const status = cluster.status();
			return problem === undefined ? status : { ...status, problems: [...status.problems, problem] };
		},
	};
}

export function nodeNameOf({ nodeName }: Pick<Config, "nodeName">): string {
	return nodeName === "auto" ? process.env.NODE_NAME || hostname() : nodeName;
}

/** What the API server sends is text; what is no address is nobody's. */
function addresses(texts: readonly string[]): Ip[] {
	return texts.flatMap((text) => {
		try {
			return [parseIp(text)];
		} catch {
			return [];
		}
	});
}

/** Does something now and some times more. */
class Again {
	readonly #timers = new Set<NodeJS.Timeout>();

	constructor(signal: AbortSignal) {
		signal.addEventListener("abort", () => this.#clear(), { once: true });
	}

	now(act: () => void): void {
		act();
		for (const delayMs of AGAIN_MS) {
			const timer = setTimeout(() => {
				this.#timers.delete(timer);
				act();
			}, delayMs);
			this.#timers.add(timer);
		}
	}

	#clear(): void {
		for (const timer of this.#timers) clearTimeout(timer);
	}
}

/** Of the time: pods come and go all over a large cluster, and each eviction looks through all flows. */
const EVICTING_SHARE = 1 / 4;

/** One eviction at a time; what comes meanwhile goes together: each is O(flows), however many addresses it has. */
class Evictions {
	readonly #datapath: Datapath;
	readonly #log: Logger;
	readonly #signal: AbortSignal;
	#waiting = new Set<Ip>();
	#isRunning = false;

	constructor(datapath: Datapath, log: Logger, signal: AbortSignal) {
		this.#datapath = datapath;
		this.#log = log;
		this.#signal = signal;
	}

	add(ips: readonly Ip[]): void {
		for (const ip of ips) this.#waiting.add(ip);
		if (!this.#isRunning) void this.#run();
	}

	async #run(): Promise<void> {
		this.#isRunning = true;
		while (this.#waiting.size > 0 && !this.#signal.aborted) {
			const ips = this.#waiting;
			const startedAt = performance.now();
			this.#waiting = new Set();
			try {
				const { pods, flows } = await evictAddresses(this.#datapath, ips);
				this.#log.debug({ addresses: ips.size, pods, flows }, "evicted: the API server says so");
			} catch (error) {
				this.#log.error({ error: (error as Error).message }, "cannot evict");
			}
			const tookMs = performance.now() - startedAt;
			await sleep(tookMs / EVICTING_SHARE - tookMs, undefined, { signal: this.#signal }).catch(() => {});
		}
		this.#isRunning = false;
	}
}
