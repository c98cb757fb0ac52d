// Lists the filter cache: decodes only what is asked for, and never holds the event loop for long.
import { setImmediate } from "node:timers/promises";
import { formatIpv4, type Ipv4 } from "../net/ipv4.js";
import { jiffiesToMs } from "./clock.js";
import { type Flow, flowKey, flow as flowLayout, type Host, type Pod, type Verdict } from "./layout.js";
import type { BpfMap } from "./map.js";
import type { SlotCache } from "./slots.js";

export interface FlowQuery {
	pod?: Ipv4;
	peer?: Ipv4;
	/** Flows to return; all are counted. */
	limit: number;
}

export interface VerdictState {
	state: "usable" | "stale" | "void" | "none";
	ageMs: number | null;
}

export interface ListedFlow {
	protocol: "tcp" | "udp" | "icmp";
	local: { ip: string; port: number };
	remote: { ip: string; port: number };
	/** ifindex of the host-side veth. */
	veth: number | null;
	host: string | null;
	egress: VerdictState;
	ingress: VerdictState;
	packets: { egress: number; ingress: number };
}

export interface FlowList {
	total: number;
	flows: ListedFlow[];
}

export interface FlowSources {
	filter: BpfMap;
	egress: SlotCache<Host>;
	ingress: SlotCache<Pod>;
	epoch: number;
	/** Both in jiffies. */
	now: bigint;
	maxStaleness: bigint;
}

const PROTOCOLS: Record<number, ListedFlow["protocol"]> = { 1: "icmp", 6: "tcp", 17: "udp" };
const SLICE_MS = 5;

export async function listFlows(sources: FlowSources, query: FlowQuery): Promise<FlowList> {
	const flows: ListedFlow[] = [];
	let total = 0;
	let since = performance.now();
	for (const { keys, values, count } of sources.filter.chunks()) {
		for (let i = 0; i < count; i++) {
			const at = i * flowKey.size;
			if (query.pod !== undefined && keys.getUint32(at + flowKey.offset.localIp) !== query.pod) continue;
			if (query.peer !== undefined && keys.getUint32(at + flowKey.offset.remoteIp) !== query.peer) continue;
			if (total++ < query.limit) flows.push(decode(sources, keys, at, values, i * flowLayout.size));
		}
		if (performance.now() - since > SLICE_MS) {
			await setImmediate();
			since = performance.now();
		}
	}
	return { total, flows };
}

function decode(sources: FlowSources, keys: DataView, keyAt: number, values: DataView, at: number): ListedFlow {
	const key = flowKey.read(keys, keyAt);
	const entry: Flow = flowLayout.read(values, at);
	const host = sources.egress.resolve(entry.egress.ref);
	const pod = sources.ingress.resolve(entry.ingress.ref);
	return {
		protocol: PROTOCOLS[key.proto] ?? "tcp",
		local: { ip: formatIpv4(key.localIp), port: key.localPort },
		remote: { ip: formatIpv4(key.remoteIp), port: key.remotePort },
		veth: pod?.veth ?? null,
		host: host ? formatIpv4(host.remoteIp) : null,
		egress: verdictState(entry.egress, host !== undefined, sources),
		ingress: verdictState(entry.ingress, pod !== undefined, sources),
		packets: { egress: Number(entry.packets[0] ?? 0n), ingress: Number(entry.packets[1] ?? 0n) },
	};
}

function verdictState(verdict: Verdict, isReferenced: boolean, sources: FlowSources): VerdictState {
	if (verdict.confirmedAt === 0n) return { state: "none", ageMs: null };
	const age = sources.now > verdict.confirmedAt ? sources.now - verdict.confirmedAt : 0n;
	const isCurrent = verdict.epoch === sources.epoch && isReferenced;
	const state = !isCurrent ? "void" : age > sources.maxStaleness ? "stale" : "usable";
	return { state, ageMs: Math.round(jiffiesToMs(age)) };
}
