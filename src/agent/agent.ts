// One agent for one network namespace: loads the datapath, keeps it attached to what is there, answers questions.
// When it ends, everything it attached keeps running.
import { mkdirSync } from "node:fs";
import { totalmem } from "node:os";
import { dirname } from "node:path";
import type { Logger } from "pino";
import { Datapath } from "../datapath/datapath.js";
import { probeFeatures } from "../datapath/features.js";
import type { MarkMode } from "../datapath/types.js";
import { ensureBpffs } from "../kernel/bpffs.js";
import { watchNetwork } from "../kernel/monitor.js";
import { hasMarkRule, installMarkRule, removeMarkRule } from "../kernel/nft.js";
import { Rtnetlink } from "../kernel/rtnetlink.js";
import { readSysctl, writeSysctl } from "../kernel/sysctl.js";
import { findTunnels } from "../kernel/topology.js";
import type { PauseRequest } from "./api.js";
import { type Config, ConfigError, isExcluded, resolveSizes } from "./config.js";
import { detachAll, TCP_BE_LIBERAL } from "./detach.js";
import { flowList } from "./flows.js";
import { Reconciler } from "./reconciler.js";
import { runningAgent, serve } from "./server.js";
import { takeSnapshot } from "./snapshot.js";
import { buildStatus } from "./status.js";
import { chooseWays } from "./ways.js";

export interface AgentOptions {
	config: Config;
	version: string;
	log: Logger;
	signal: AbortSignal;
}

/** Runs until the signal. @throws when it cannot do its work at all; the overlay then works as it does without it */
export async function runAgent({ config, version, log, signal }: AgentOptions): Promise<void> {
	const other = await runningAgent(config.socket);
	if (other !== undefined)
		throw new Error(
			`Another agent (process ${other}) answers at "${config.socket}": stop it first, or give this one its own --socket and --bpffs`,
		);
	checkTunnelNames(config);
	ensureBpffs(config.bpffs);
	mkdirSync(dirname(config.socket), { recursive: true, mode: 0o755 });

	const features = probeFeatures();
	for (const [feature, { ok, why }] of Object.entries(features)) if (!ok) log.warn({ feature }, why);
	const { attach: kind, markMode } = chooseWays(config, features);
	const datapath = Datapath.open({
		bpffs: config.bpffs,
		attach: kind,
		markMode,
		mark: config.mark,
		maxStalenessMs: config.maxStalenessMs,
		countFlows: config.countFlows,
		sizes: resolveSizes(config, totalmem()),
	});
	log.info({ caches: datapath.reused ? "taken over" : "new", ...datapath.capacities }, "datapath loaded");

	const ended = new AbortController();
	const ending = AbortSignal.any([signal, ended.signal]);
	const reconciler = new Reconciler({
		datapath,
		kind,
		choice: { tunnels: config.tunnels, isExcluded: (name) => isExcluded(name, config) },
		precondition: () => prepareFallback(datapath, markMode, log),
		onAction: (action, error) => (error ? log.error({ ...action, error: error.message }, "failed") : log.info(action)),
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
	let isReady = false;
	try {
		reconciler.start();
		watchNetwork({
			signal: ending,
			onChange: (changes) => {
				// Neighbour entries come and go all the time and say nothing about devices.
				if ([...changes].some((change) => change !== "neighbour")) reconciler.trigger();
			},
		});
		await serve({
			socket: config.socket,
			signal: ending,
			handlers: {
				ready: () => isReady,
				status: () => {
					const { desired, failures, blocked } = reconciler.state;
					return buildStatus({
						version,
						datapath,
						desired,
						agent: { pid: process.pid, startedAt },
						markMode,
						problems: [...(blocked ? [blocked] : []), ...failures],
					});
				},
				flows: (query) => flowList(datapath, reconciler.state.snapshot?.links ?? [], config.countFlows, query),
				flush: (what) => {
					if ("all" in what) datapath.flushAll();
					const result = {
						pods: "pod" in what ? datapath.flushPod(what.pod) : 0,
						hosts: "host" in what ? datapath.flushHost(what.host) : 0,
						all: "all" in what,
					};
					log.info(result, "flushed");
					return result;
				},
				pause: (request) => pause(false, request),
				resume: (request) => pause(true, request),
				detach: () => {
					reconciler.stop();
					const removed = detachAll(config.bpffs);
					log.info({ removed: removed.length }, "detached");
					// The answer goes out first.
					setImmediate(() => ended.abort());
					return { removed };
				},
			},
		});
		isReady = true;
		log.info({ socket: config.socket, bpffs: config.bpffs, attach: kind, markMode }, "ready");
		if (!ending.aborted) await new Promise((resolve) => ending.addEventListener("abort", resolve, { once: true }));
	} finally {
		ended.abort();
		reconciler.stop();
		datapath.close();
		log.info("ended; what is attached keeps running");
	}
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
