// Goes through the filter caches of both families: decodes only what is asked for, and never holds the event loop for long.
import { setImmediate } from "node:timers/promises";
import { formatIp, type Ip, isIpv6, readIp } from "../net/ip.js";
import type { Ipv4 } from "../net/ipv4.js";
import { jiffiesToMs } from "./clock.js";
import {
	type Flow,
	type Flow6,
	flow,
	flow6,
	flowKey,
	flowKey6,
	type Host,
	type Pod,
	REF_POD,
	VERDICT_BRIDGED,
	VERDICT_REVERSE,
	VERDICT_TRANSLATED,
	type Verdict,
	verdict as verdictLayout,
} from "./layout.js";
import type { BpfMap } from "./map.js";
import type { SlotCache } from "./slots.js";

export interface FlowQuery {
	pod?: Ip;
	peer?: Ip;
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
	/** Remote host, outer address. */
	host: string | null;
	/** ifindex: where it goes when that is another pod of this host. */
	peerVeth: number | null;
	/** The addresses that this host translates them to, or from. */
	translated: { local: { ip: string; port: number }; remote: { ip: string; port: number } } | null;
	egress: VerdictState;
	ingress: VerdictState;
	packets: { egress: number; ingress: number };
}

export interface FlowList {
	total: number;
	flows: ListedFlow[];
}

export interface FlowSources {
	filters: FilterCaches;
	egress: SlotCache<Host>;
	ingress: SlotCache<Pod>;
	epoch: number;
	/** Both in jiffies. */
	now: bigint;
	maxStaleness: bigint;
}

const PROTOCOLS: Record<number, ListedFlow["protocol"]> = { 1: "icmp", 6: "tcp", 17: "udp", 58: "icmp" };
const SLICE_MS = 5;

/** Both ends are of one family. */
export interface FlowTuple {
	localIp: Ip;
	remoteIp: Ip;
	localPort: number;
	remotePort: number;
	proto: number;
}

/** The filter cache of each family. */
export interface FilterCaches {
	ipv4: BpfMap;
	ipv6: BpfMap;
}

export type Family = keyof FilterCaches;

/** How a family's keys and flows lie in its map. */
interface FlowLayout {
	key: {
		size: number;
		offset: typeof flowKey.offset;
		read: (view: DataView, at?: number) => FlowTuple;
		write: (view: DataView, at: number, value: never) => void;
	};
	flow: { size: number; offset: typeof flow.offset; read: (view: DataView, at?: number) => Flow | Flow6 };
	readIp: (view: DataView, at: number) => Ip;
}

export const FLOW_LAYOUTS: Record<Family, FlowLayout> = {
	ipv4: { key: flowKey, flow, readIp: (view, at) => view.getUint32(at) as Ipv4 },
	ipv6: { key: flowKey6, flow: flow6, readIp },
};

export function familyOf(ip: Ip): Family {
	return isIpv6(ip) ? "ipv6" : "ipv4";
}

export function encodeKey(tuple: FlowTuple): Uint8Array {
	const { key } = FLOW_LAYOUTS[familyOf(tuple.localIp)];
	const bytes = new Uint8Array(key.size);
	key.write(new DataView(bytes.buffer), 0, tuple as never);
	return bytes;
}

/** Some entries of a filter cache, read where they lie; valid until the next ones are asked for. */
export class FlowChunk {
	readonly family: Family;
	readonly count: number;
	readonly keys: DataView;
	readonly values: DataView;
	readonly #layout: FlowLayout;
	readonly #stride: number;
	readonly #egressAt: number;
	readonly #ingressAt: number;

	constructor(family: Family, { keys, values, count }: { keys: DataView; values: DataView; count: number }) {
		this.family = family;
		this.keys = keys;
		this.values = values;
		this.count = count;
		this.#layout = FLOW_LAYOUTS[family];
		const { size, offset } = this.#layout.flow;
		this.#stride = size;
		this.#egressAt = offset.egress;
		this.#ingressAt = offset.ingress;
	}

	localIp(i: number): Ip {
		const { key, readIp } = this.#layout;
		return readIp(this.keys, i * key.size + key.offset.localIp);
	}

	remoteIp(i: number): Ip {
		const { key, readIp } = this.#layout;
		return readIp(this.keys, i * key.size + key.offset.remoteIp);
	}

	/** The key's bytes, where they lie. */
	key(i: number): Uint8Array {
		const { size } = this.#layout.key;
		return new Uint8Array(this.keys.buffer, this.keys.byteOffset + i * size, size);
	}

	tuple(i: number): FlowTuple {
		const { key } = this.#layout;
		return key.read(this.keys, i * key.size);
	}

	flow(i: number): Flow | Flow6 {
		const { flow } = this.#layout;
		return flow.read(this.values, i * flow.size);
	}

	/** The remote pod: what a Service's address was translated to. */
	remotePodIp(i: number): Ip {
		return this.#isTranslated(i, "egress") ? this.#other(i, "remoteIp") : this.remoteIp(i);
	}

	/** The local pod: what a masqueraded address was translated to. */
	localPodIp(i: number): Ip {
		return this.#isTranslated(i, "ingress") ? this.#other(i, "localIp") : this.localIp(i);
	}

	/** Between two pods of this host, and not routed: connection tracking may not see it. */
	isBridged(i: number): boolean {
		return ((this.#flags(i, "egress") | this.#flags(i, "ingress")) & VERDICT_BRIDGED) !== 0;
	}

	/** Packets of this direction have this key, and leave the host with another one. */
	#isTranslated(i: number, direction: "egress" | "ingress"): boolean {
		return (this.#flags(i, direction) & (VERDICT_TRANSLATED | VERDICT_REVERSE)) === VERDICT_TRANSLATED;
	}

	#flags(i: number, direction: "egress" | "ingress"): number {
		const at = this.#verdictAt(i, direction);
		return this.values.getUint16(at + verdictLayout.offset.flags, true);
	}

	#verdictAt(i: number, direction: "egress" | "ingress"): number {
		return i * this.#stride + (direction === "egress" ? this.#egressAt : this.#ingressAt);
	}

	#other(i: number, side: "localIp" | "remoteIp"): Ip {
		const { key, flow, readIp } = this.#layout;
		return readIp(this.values, i * flow.size + flow.offset.other + key.offset[side]);
	}

	/** Where one direction refers to in the egress or ingress cache. */
	slot(i: number, direction: "egress" | "ingress"): number {
		return this.values.getUint32(this.#verdictAt(i, direction) + verdictLayout.offset.ref, true);
	}

	/** Of the slot, when it was referred to. */
	generation(i: number, direction: "egress" | "ingress"): number {
		return this.values.getUint32(this.#verdictAt(i, direction) + verdictLayout.offset.ref + 4, true);
	}

	epoch(i: number, direction: "egress" | "ingress"): number {
		return this.values.getUint32(this.#verdictAt(i, direction) + verdictLayout.offset.epoch, true);
	}

	/** The low half of it: jiffies are compared over seconds. */
	confirmedAt(i: number, direction: "egress" | "ingress"): number {
		return this.values.getUint32(this.#verdictAt(i, direction) + verdictLayout.offset.confirmedAt, true);
	}
}

/** Of an entry that is the only one of its flow: nothing is translated; and no Geneve options. */
export const NO_OTHER: Pick<Flow, "other" | "addressSum" | "portSum" | "options"> = {
	other: { localIp: 0 as Ipv4, remoteIp: 0 as Ipv4, localPort: 0, remotePort: 0, proto: 0 },
	addressSum: 0,
	portSum: 0,
	options: 0,
};

const NO_KEYS = new Uint8Array();

/** Keys of flows, one behind another by family: there may be a million. */
export class FlowKeys {
	readonly #keys = { ipv4: NO_KEYS, ipv6: NO_KEYS };
	readonly #lengths = { ipv4: 0, ipv6: 0 };
	count = 0;

	/** Of entry `i` of a chunk. */
	add(chunk: FlowChunk, i: number): void {
		const { family } = chunk;
		const at = this.#lengths[family];
		if (at === this.#keys[family].length) {
			const larger = new Uint8Array(Math.max(2 * at, 64 * chunk.key(i).length));
			larger.set(this.#keys[family]);
			this.#keys[family] = larger;
		}
		const key = chunk.key(i);
		this.#keys[family].set(key, at);
		this.#lengths[family] += key.length;
		this.count++;
	}

	bytes(family: Family): Uint8Array {
		return this.#keys[family].subarray(0, this.#lengths[family]);
	}
}

/** Everything, some thousand at a time. O(flows). An entry that is added or removed meanwhile may or may not be among them. */
export async function scanFlows(filters: FilterCaches, visit: (chunk: FlowChunk) => void): Promise<void> {
	let since = performance.now();
	for (const family of ["ipv4", "ipv6"] as const)
		for (const chunk of filters[family].chunks()) {
			visit(new FlowChunk(family, chunk));
			if (performance.now() - since > SLICE_MS) {
				await setImmediate();
				since = performance.now();
			}
		}
}

export async function listFlows(sources: FlowSources, query: FlowQuery): Promise<FlowList> {
	const flows: ListedFlow[] = [];
	let total = 0;
	await scanFlows(sources.filters, (chunk) => {
		for (let i = 0; i < chunk.count; i++) {
			if (query.pod !== undefined && chunk.localIp(i) !== query.pod) continue;
			if (query.peer !== undefined && chunk.remoteIp(i) !== query.peer) continue;
			if (total++ < query.limit) flows.push(decode(sources, chunk.tuple(i), chunk.flow(i)));
		}
	});
	return { total, flows };
}

function decode(sources: FlowSources, key: FlowTuple, entry: Flow | Flow6): ListedFlow {
	const isLocal = (entry.egress.ref & BigInt(REF_POD)) !== 0n;
	const host = isLocal ? undefined : sources.egress.resolve(entry.egress.ref);
	const peer = isLocal ? sources.ingress.resolve(entry.egress.ref & ~BigInt(REF_POD)) : undefined;
	const pod = sources.ingress.resolve(entry.ingress.ref);
	const isTranslated = ((entry.egress.flags | entry.ingress.flags) & VERDICT_TRANSLATED) !== 0;
	return {
		protocol: PROTOCOLS[key.proto] ?? "tcp",
		...endsOf(key),
		veth: pod?.veth ?? null,
		host: host ? formatIp(host.remoteIp) : null,
		peerVeth: peer?.veth ?? null,
		translated: isTranslated ? endsOf(entry.other) : null,
		egress: verdictState(entry.egress, host !== undefined || peer !== undefined, sources),
		ingress: verdictState(entry.ingress, pod !== undefined, sources),
		packets: { egress: Number(entry.packets[0] ?? 0n), ingress: Number(entry.packets[1] ?? 0n) },
	};
}

function endsOf({ localIp, localPort, remoteIp, remotePort }: FlowTuple): Pick<ListedFlow, "local" | "remote"> {
	return {
		local: { ip: formatIp(localIp), port: localPort },
		remote: { ip: formatIp(remoteIp), port: remotePort },
	};
}

function verdictState(verdict: Verdict, isReferenced: boolean, sources: FlowSources): VerdictState {
	if (verdict.confirmedAt === 0n) return { state: "none", ageMs: null };
	const age = sources.now > verdict.confirmedAt ? sources.now - verdict.confirmedAt : 0n;
	const isCurrent = verdict.epoch === sources.epoch && isReferenced;
	const state = !isCurrent ? "void" : age > sources.maxStaleness ? "stale" : "usable";
	return { state, ageMs: Math.round(jiffiesToMs(age)) };
}
