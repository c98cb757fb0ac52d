// How a command reaches ONCache: through the agent's socket when one answers, else through the pins in the kernel.

import { existsSync, readdirSync, rmdirSync, rmSync } from "node:fs";
import { dirname } from "node:path";
import { setTimeout } from "node:timers/promises";
import { Datapath } from "../datapath/datapath.js";
import { Rtnetlink } from "../kernel/rtnetlink.js";
import type { Ip } from "../net/ip.js";
import { FIND_SWITCH } from "../ovs/switch.js";
import {
	type FlowList,
	type FlushRequest,
	type FlushResult,
	type Lease,
	type LeaseRequest,
	missedFile,
	type PauseRequest,
	type Status,
	type VerifyResult,
} from "./api.js";
import { AgentUnreachable, agentRequest } from "./client.js";
import { CHOOSE_ALL, desiredState } from "./desired.js";
import { detachAll } from "./detach.js";
import { flowList, NO_NAMES } from "./flows.js";
import { flush as flushDatapath } from "./flush.js";
import { RUN_DIR, removeLockFile } from "./lock.js";
import { runningAgent } from "./server.js";
import { networkOf, takeSnapshot } from "./snapshot.js";
import { buildStatus } from "./status.js";
import { tryReadSwitch } from "./switch.js";
import { verify as verifyDatapath } from "./verify.js";

export interface Place {
	socket: string;
	bpffs: string;
}

/** Nothing of ONCache is there, and what was asked for needs it. */
export class NothingThereError extends Error {
	override readonly name = "NothingThereError";
	readonly exitCode = 1;
}

export async function getStatus(place: Place, version: string): Promise<Status> {
	return viaAgent<Status>(place, "GET", "/v1/status", undefined, async () => {
		const datapath = Datapath.openPinned(place.bpffs);
		const snapshot = snapshotNow();
		try {
			return await buildStatus({
				version,
				datapath,
				desired: desiredState(snapshot, CHOOSE_ALL),
				agent: undefined,
				markMode: null,
				problems: [],
				coherency: null,
				cni: null,
				network: networkOf(snapshot.links, "auto"),
				kubernetes: null,
				names: NO_NAMES,
			});
		} finally {
			datapath?.close();
		}
	});
}

export async function getFlows(
	place: Place,
	query: { pod?: Ip; peer?: Ip; limit: number },
	text: string,
): Promise<FlowList> {
	return viaAgent<FlowList>(place, "GET", `/v1/flows?${text}`, undefined, () =>
		withPinned(place, (datapath) => flowList(datapath, snapshotNow().links, false, query)),
	);
}

export async function flush(place: Place, request: FlushRequest): Promise<FlushResult> {
	return viaAgent<FlushResult>(place, "POST", "/v1/flush", request, () =>
		withPinned(place, (datapath) => flushDatapath(datapath, request)),
	);
}

/** Keeps learning paused until release(); both fit to the kind of place. */
export interface HeldLease {
	evicted: FlushResult[];
	release(): Promise<void>;
}

const LEASE_MS = 10_000;
/** Without an agent nobody keeps count of other users, so this one's pause is short and often renewed. */
const PINNED_LEASE_MS = 1000;

/** Pauses learning, evicts, and renews the pause until it is released. Undefined: nothing of ONCache is there. */
export async function lease(place: Place, evict: FlushRequest[]): Promise<HeldLease | undefined> {
	const request: LeaseRequest = { ttlMs: LEASE_MS, evict };
	try {
		const { id, evicted } = await agentRequest<Lease>(place.socket, "POST", "/v1/leases", request);
		const renewal = setInterval(() => {
			// An agent that has just died: the pause lasts until its end, and no longer.
			agentRequest(place.socket, "POST", "/v1/leases/renew", { id, ttlMs: LEASE_MS }).catch(() => {});
		}, LEASE_MS / 4);
		return {
			evicted,
			release: async () => {
				clearInterval(renewal);
				await agentRequest(place.socket, "POST", "/v1/leases/release", { id }).catch(() => {});
			},
		};
	} catch (error) {
		if (!(error instanceof AgentUnreachable)) throw error;
	}
	const datapath = Datapath.openPinned(place.bpffs);
	if (!datapath) return undefined;
	const hold = (): void => datapath.holdLearning(PINNED_LEASE_MS);
	hold();
	const evicted: FlushResult[] = [];
	for (const what of evict) evicted.push(await flushDatapath(datapath, what));
	const renewal = setInterval(hold, PINNED_LEASE_MS / 4);
	return {
		evicted,
		release: async () => {
			clearInterval(renewal);
			datapath.close();
		},
	};
}

/** Compares every cached entry with the kernel. Reads only. */
export async function verify(place: Place): Promise<VerifyResult> {
	return withPinned(place, verifyDatapath);
}

/** Switches off (`pause`) or on (`resume`) what the request names; nothing named: both. */
export async function setSwitches(
	place: Place,
	what: "pause" | "resume",
	request: PauseRequest,
): Promise<{ learning: boolean; using: boolean }> {
	return viaAgent(place, "POST", `/v1/${what}`, request, () =>
		withPinned(place, async (datapath) => {
			const both = !request.learning && !request.using;
			if (both || request.learning) datapath.learning = what === "resume";
			if (both || request.using) datapath.using = what === "resume";
			return { learning: datapath.learning, using: datapath.using };
		}),
	);
}

/** A running agent does it and ends; without one it is done here. */
export async function detach(place: Place): Promise<{ removed: string[] }> {
	return viaAgent(place, "POST", "/v1/detach", undefined, async () => ({ removed: detachAll(place.bpffs) }));
}

const END_LIMIT_MS = 10_000;
const POLL_MS = 20;

/** detach(), and what lies outside the kernel: socket, lock, empty directories. */
export async function uninstall(place: Place): Promise<{ removed: string[] }> {
	const { removed } = await detach(place);
	const deadline = performance.now() + END_LIMIT_MS;
	while ((await runningAgent(place.socket)) !== undefined || !removeLockFile()) {
		if (performance.now() > deadline)
			throw new Error(`Cannot uninstall: an agent still runs in this network namespace after ${END_LIMIT_MS / 1000} s`);
		await setTimeout(POLL_MS);
	}
	const files = Object.entries({ socket: place.socket, file: missedFile(place.socket) }).filter(([, path]) =>
		existsSync(path),
	);
	for (const [, path] of files) rmSync(path);
	const directories = [...new Set([place.bpffs, dirname(place.socket), RUN_DIR])].filter(removeEmpty);
	return {
		removed: [
			...removed,
			...files.map(([what, path]) => `${what} ${path}`),
			...directories.map((dir) => `directory ${dir}`),
		],
	};
}

function removeEmpty(dir: string): boolean {
	if (!existsSync(dir) || readdirSync(dir).length > 0) return false;
	rmdirSync(dir);
	return true;
}

async function viaAgent<T>(
	place: Place,
	method: "GET" | "POST",
	path: string,
	body: unknown,
	otherwise: () => Promise<T>,
): Promise<T> {
	try {
		return await agentRequest<T>(place.socket, method, path, body);
	} catch (error) {
		if (error instanceof AgentUnreachable) return otherwise();
		throw error;
	}
}

async function withPinned<T>(place: Place, use: (datapath: Datapath) => Promise<T>): Promise<T> {
	const datapath = Datapath.openPinned(place.bpffs);
	if (!datapath)
		throw new NothingThereError(
			`Nothing of ONCache is at "${place.bpffs}", and no agent answers at "${place.socket}": start oncache agent, or name its --socket and --bpffs`,
		);
	try {
		return await use(datapath);
	} finally {
		datapath.close();
	}
}

export function snapshotNow() {
	const rtnetlink = Rtnetlink.open();
	try {
		return takeSnapshot(rtnetlink, tryReadSwitch(FIND_SWITCH));
	} finally {
		rtnetlink.close();
	}
}
