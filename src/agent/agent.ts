// One agent for one network namespace: loads the datapath, keeps it attached to what is there, answers questions.
// When it ends, everything it attached keeps running.
import { setMaxListeners } from "node:events";
import { mkdirSync } from "node:fs";
import { dirname } from "node:path";
import type { Logger } from "pino";
import { foreignOncache } from "../datapath/attach.js";
import type { Datapath } from "../datapath/datapath.js";
import type { MarkMode } from "../datapath/types.js";
import { ensureBpffs } from "../kernel/bpffs.js";
import { CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON, keepOnly } from "../kernel/capabilities.js";
import { hasMarkRule, installMarkRule, removeMarkRule } from "../kernel/nft.js";
import { Rtnetlink } from "../kernel/rtnetlink.js";
import { readSysctl, writeSysctl } from "../kernel/sysctl.js";
import { findTunnels } from "../kernel/topology.js";
import { SwitchWatch } from "../ovs/watch.js";
import type { FlushResult, PauseRequest, Status } from "./api.js";
import { Attachments } from "./attachments.js";
import { type Config, ConfigError, isExcluded, parseListen } from "./config.js";
import { detachAll, TCP_BE_LIBERAL } from "./detach.js";
import { flowList, type Names } from "./flows.js";
import { flush } from "./flush.js";
import { type Invalidation, watchKernel } from "./invalidation.js";
import { followCluster, type Kubernetes } from "./kubernetes.js";
import { Leases } from "./leases.js";
import { handOver, type Loading, loadFor, openLoaded, takeOver } from "./loading.js";
import { lockNetns } from "./lock.js";
import { mapMemoryBytes } from "./map-memory.js";
import type { Metrics } from "./metrics.js";
import { readMissed } from "./missed.js";
import { type Probes, serveProbes } from "./probes.js";
import { Reconciler } from "./reconciler.js";
import { runningAgent, type Serving, serve } from "./server.js";
import { networkOf, takeSnapshot } from "./snapshot.js";
import { buildStatus } from "./status.js";
import { SwitchGuard, switchOptionsOf } from "./switch.js";
import { verifyEvery } from "./verification.js";

export interface AgentOptions {
	config: Config;
	version: string;
	log: Logger;
	signal: AbortSignal;
	loading: Loading;
}

/** What needs more rights than an agent that runs: comes first, and then those rights go. */
export async function prepareHost(config: Config): Promise<Loading> {
	const loaded = takeOver();
	if (loaded) return loaded;
	const other = await runningAgent(config.socket);
	if (other !== undefined)
		throw new Error(
			`Another agent (process ${other}) answers at "${config.socket}": stop it first, or give this one its own --socket and --bpffs`,
		);
	checkTunnelNames(config);
	// Whether another agent runs here: this one begins anew below, and then takes the lock for good.
	const lock = lockNetns(config.socket);
	try {
		ensureBpffs(config.bpffs);
		refuseForeign(config.bpffs);
		const loading = loadFor(config);
		keepOnly([CAP_NET_ADMIN, CAP_BPF, CAP_PERFMON], { nodeOptions: MEMORY, environment: handOver(loading) });
		return loading;
	} finally {
		lock.release();
	}
}

/** MiB. Left alone, V8 lets what is no longer used grow to several times of what is, by how much memory there is. */
const MEMORY = ["--max-old-space-size=256", "--max-semi-space-size=1"];

/** ONCache's programs that another installation has left: both would cache, and only one of them be kept coherent. */
function refuseForeign(bpffs: string): void {
	const rtnetlink = Rtnetlink.open();
	try {
		for (const { ifindex, name } of rtnetlink.links()) {
			const programs = foreignOncache(bpffs, ifindex);
			if (programs.length > 0)
				throw new Error(
					`Programs of another ONCache run on "${name}" (${programs.join(", ")}) and are not pinned below "${bpffs}": ` +
						"remove them with oncache detach --bpffs and the directory that the other one was started with",
				);
		}
	} finally {
		rtnetlink.close();
	}
}

/** Runs until the signal. @throws when it cannot do its work at all; the overlay then works as it does without it */
export async function runAgent({ config, version, log, signal, loading }: AgentOptions): Promise<void> {
	const lock = lockNetns(config.socket);
	mkdirSync(dirname(config.socket), { recursive: true, mode: 0o755 });

	const { features, ways } = loading;
	for (const [feature, { ok, why }] of Object.entries(features)) if (!ok) log.warn({ feature }, why);
	const switchOptions = switchOptionsOf(config);
	const { attach: kind, markMode } = ways;
	const datapath = openLoaded(config, loading);
	log.info({ caches: datapath.reused ? "taken over" : "new", ...datapath.capacities }, "datapath loaded");

	const ended = new AbortController();
	const ending = AbortSignal.any([signal, ended.signal]);
	setMaxListeners(0, ending); // everything that runs until then
	let invalidation: Invalidation | undefined;
	let kubernetes: Kubernetes | undefined;
	const switchWatch = new SwitchWatch(
		switchOptions,
		{
			onFlows: () => invalidation?.onChange(new Set(["ruleset"])),
			onState: () => invalidation?.onChange(new Set(["link"])),
		},
		ending,
	);
	const switchGuard = new SwitchGuard(switchWatch, { markMode, zones: features.zones }, log);
	const reconciler = new Reconciler({
		datapath,
		kind,
		choice: {
			tunnels: config.tunnels,
			isExcluded: (name) => isExcluded(name, config),
			whyNoSwitch: () => switchGuard.prepare(),
			whyNoIpv6Underlay: markMode === "dscp" ? "dscp mode knows outer IPv4 headers only" : undefined,
		},
		readSwitch: () => switchWatch.state,
		readOptedOut: () => kubernetes?.cluster.localOptedOut() ?? new Map(),
		announcedVeth: (ip) => attachments.vethOf(ip),
		precondition: () => {
			switchWatch.lookForOne();
			return prepareFallback(datapath, markMode, log);
		},
		onAction: (action, error) => (error ? log.error({ ...action, error: error.message }, "failed") : log.info(action)),
		onEvicted: (differences, total) =>
			log.info({ total, first: differences.slice(0, 10) }, "evicted: the kernel would do something else"),
		onRepaired: (what) => log.warn({ what }, "somebody else had removed it; it is there again"),
		onError: (error) => log.error({ error: String(error) }, "cannot read the network's state; trying again"),
	});
	const startedAt = new Date().toISOString();
	const pause = (on: boolean, { learning, using }: PauseRequest): { learning: boolean; using: boolean } => {
		const both = learning === undefined && using === undefined;
		if (both || learning) datapath.learning = on;
		if (both || using) datapath.using = on;
		log.info({ learning: datapath.learning, using: datapath.using }, on ? "resumed" : "paused");
		return { learning: datapath.learning, using: datapath.using };
	};
	const leases = new Leases(datapath);
	const verification = verifyEvery({ datapath, intervalMs: config.verifyIntervalMs, log, signal: ending });
	const rtnetlink = Rtnetlink.open();
	const attachments = new Attachments({ datapath, reconciler, rtnetlink, log });
	/** The API server knows all pods; the container runtime has named those that it made since this agent started. */
	const names: Names = {
		podAt: (ip) => kubernetes?.cluster.podAt(ip) ?? attachments.podAt(ip),
		nodeAt: (ip) => kubernetes?.cluster.nodeAt(ip) ?? null,
	};
	const status = (): Promise<Status> => {
		const { desired, failures, blocked, rounds, evicted, repaired } = reconciler.state;
		return buildStatus({
			version,
			datapath,
			desired,
			agent: { pid: process.pid, startedAt },
			markMode,
			problems: [
				...(blocked ? [blocked] : []),
				...failures,
				...(invalidation?.problems ?? []),
				...problemsOf(switchWatch),
			],
			coherency: {
				rounds,
				evicted,
				flushes: invalidation?.flushes ?? 0,
				forgotten: datapath.forgotten,
				repaired,
				overruns: invalidation?.overruns ?? 0,
				verified: verification.state,
				leases: leases.count,
			},
			cni: { attachments: attachments.size, ...attachments.counts, ...readMissed(config.socket) },
			network: networkOf(reconciler.state.snapshot?.links ?? [], config.cniConfDir),
			kubernetes: kubernetes?.status() ?? null,
			names,
		});
	};
	let exposition: Metrics | undefined;
	const metrics: Probes["metrics"] = async () => {
		// Loaded when somebody asks: most agents are never asked.
		exposition ??= new (await import("./metrics.js")).Metrics();
		const fds = Object.entries(datapath.mapFds);
		const text = await exposition.render({
			status: await status(),
			attachments: datapath.attachments().filter(({ gone }) => !gone),
			mapMemory: Object.fromEntries(fds.map(([name, fd]) => [name, mapMemoryBytes(fd)])),
			kubernetes: kubernetes?.counts,
		});
		return { contentType: exposition.contentType, text };
	};
	let isReady = false;
	let serving: Serving | undefined;
	ending.addEventListener("abort", () => void reconciler.stop(), { once: true });
	try {
		const watching = watchKernel({ datapath, reconciler, log, signal: ending });
		invalidation = watching;
		kubernetes = followCluster({
			config,
			datapath,
			log,
			signal: ending,
			onPolicies: () => watching.onChange(new Set(["ruleset"])),
			onOptedOut: () => reconciler.trigger("devices"),
		});
		serving = await serve({
			socket: config.socket,
			signal: ending,
			handlers: {
				ready: () => isReady,
				status,
				metrics,
				flows: (query) => flowList(datapath, reconciler.state.snapshot?.links ?? [], config.countFlows, query, names),
				flush: async (what) => {
					const result = await flush(datapath, what);
					log.info({ ...what, ...result }, "flushed");
					return result;
				},
				lease: async ({ ttlMs, evict }) => {
					const id = leases.acquire(ttlMs);
					const evicted: FlushResult[] = [];
					for (const what of evict) evicted.push(await flush(datapath, what));
					log.info({ id, ttlMs, evict, evicted }, "learning is paused");
					return { id, ttlMs, evicted };
				},
				renew: (id, ttlMs) => leases.renew(id, ttlMs),
				release: (id) => {
					const held = leases.release(id);
					log.info({ id, held }, "learning goes on");
					return held;
				},
				cni: attachments,
				pause: (request) => pause(false, request),
				resume: (request) => pause(true, request),
				detach: () => {
					void reconciler.stop();
					const removed = detachAll(config.bpffs, switchOptions);
					log.info({ removed: removed.length }, "detached");
					// The answer goes out first.
					setImmediate(() => ended.abort());
					return { removed };
				},
			},
		});
		const listen = parseListen(config.metricsAddress);
		if (listen) await serveProbes(listen, { probes: { ready: () => isReady, metrics }, signal: ending });
		await reconciler.start();
		isReady = true;
		log.info({ socket: config.socket, bpffs: config.bpffs, attach: kind, markMode }, "ready");
		if (!ending.aborted) await new Promise((resolve) => ending.addEventListener("abort", resolve, { once: true }));
	} finally {
		ended.abort();
		await Promise.all([reconciler.stop(), serving?.idle()]);
		rtnetlink.close();
		datapath.close();
		lock.release();
		log.info("ended; what is attached keeps running");
	}
}

function problemsOf({ problem }: SwitchWatch): string[] {
	return problem === undefined ? [] : [problem];
}

function checkTunnelNames({ tunnels }: Config): void {
	if (tunnels === "auto") return;
	const rtnetlink = Rtnetlink.open();
	try {
		const known = findTunnels(takeSnapshot(rtnetlink)).map(({ link }) => link.name);
		const unknown = tunnels.filter((name) => !known.includes(name));
		if (unknown.length > 0)
			throw new ConfigError(
				`Cannot use tunnels "${unknown.join(", ")}": no such tunnel device here; there is ${known.join(", ") || "none"}`,
			);
	} finally {
		rtnetlink.close();
	}
}

/**
 * What must be so in the fallback before anything is accelerated: connection tracking takes sampled packets from the
 * middle of a TCP connection, and in dscp mode the rule is there. @returns why it is not
 */
function prepareFallback(datapath: Datapath, markMode: MarkMode, log: Logger): string | undefined {
	try {
		const liberal = readSysctl(TCP_BE_LIBERAL);
		if (liberal !== undefined && liberal !== "1") {
			writeSysctl(TCP_BE_LIBERAL, 1);
			if (datapath.savedTcpBeLiberal === undefined) datapath.savedTcpBeLiberal = Number(liberal);
			log.info({ sysctl: TCP_BE_LIBERAL, before: liberal }, "set to 1");
		}
		if (markMode === "dscp" && !hasMarkRule()) {
			installMarkRule();
			log.info("nftables rule installed");
		}
		if (markMode === "metadata" && !checkedForRule) {
			checkedForRule = true;
			if (markRuleIsLeft()) removeMarkRule();
		}
		return undefined;
	} catch (error) {
		return error instanceof Error ? error.message : String(error);
	}
}

/** An earlier agent may have run in dscp mode; looking once is enough. */
let checkedForRule = false;

function markRuleIsLeft(): boolean {
	try {
		return hasMarkRule();
	} catch {
		return false; // no nft, no rule
	}
}
