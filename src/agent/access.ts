// How a command reaches ONCache: through the agent's socket when one answers, else through the pins in the kernel.
import { Datapath } from "../datapath/datapath.js";
import { Rtnetlink } from "../kernel/rtnetlink.js";
import { type Ipv4, parseIpv4 } from "../net/ipv4.js";
import type { FlowList, FlushRequest, FlushResult, PauseRequest, Status } from "./api.js";
import { AgentUnreachable, agentRequest } from "./client.js";
import { CHOOSE_ALL, desiredState } from "./desired.js";
import { detachAll } from "./detach.js";
import { flowList } from "./flows.js";
import { takeSnapshot } from "./snapshot.js";
import { buildStatus } from "./status.js";

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
			});
		} finally {
			datapath?.close();
		}
	});
}

export async function getFlows(
	place: Place,
	query: { pod?: Ipv4; peer?: Ipv4; limit: number },
	text: string,
): Promise<FlowList> {
	return viaAgent<FlowList>(place, "GET", `/v1/flows?${text}`, undefined, () =>
		withPinned(place, (datapath) => flowList(datapath, snapshotNow().links, false, query)),
	);
}

export async function flush(place: Place, request: FlushRequest): Promise<FlushResult> {
	return viaAgent<FlushResult>(place, "POST", "/v1/flush", request, () =>
		withPinned(place, async (datapath) => {
			if (request.all) datapath.flushAll();
			return {
				pods: request.pod ? datapath.flushPod(parseIpv4(request.pod)) : 0,
				hosts: request.host ? datapath.flushHost(parseIpv4(request.host)) : 0,
				all: request.all ?? false,
			};
		}),
	);
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
		return takeSnapshot(rtnetlink);
	} finally {
		rtnetlink.close();
	}
}
