// Generated from bpf/oncache.h by `npm run generate`: layouts as the kernel sees them, in this machine's byte order.
// biome-ignore-all format: generated
import { type Ip, readIp, writeIp } from "../net/ip.js";
import type { Ipv4 } from "../net/ipv4.js";
import { type MacAddress, macBytes, readMac } from "../net/mac.js";

function bytesOf(view: DataView, at: number, length: number): Uint8Array {
	return new Uint8Array(view.buffer, view.byteOffset + at, length);
}

export const ONCACHE_CONTRACT = 6;
export const TUNNELS_MAX = 8;
export const OPTED_OUT_MAX = 65536;
export const SLOT_PROBES = 16;
export const TOS_MISS = 0x04;
export const TOS_ESTABLISHED = 0x08;
export const REF_POD = 0x80000000;
export const VERDICT_TRANSLATED = 0x1;
export const VERDICT_BRIDGED = 0x2;
export const VERDICT_REVERSE = 0x4;
export const VERDICT_OPTIONS = 0x8;
export const VERDICT_TWICE = 0x10;
export const OUTER_LEN = 64;
export const LONG_MAX = 128;
export const TUNNEL_TOS_INHERIT = 0x1;
export const TUNNEL_TTL_INHERIT = 0x2;
export const TUNNEL_DF_INHERIT = 0x4;
export const TUNNEL_PORT = 0x8;
export const TUNNEL_UNTRACKED = 0x10;
export const TUNNEL_FLOW_BASED = 0x40;
export const TUNNEL_BRIDGED = 0x20;
export const TUNNEL_IPV6 = 0x80;
export const TUNNEL_LABEL_INHERIT = 0x100;
export const TUNNEL_LONG = 0x200;
export const VETH_SHAPED = 0x1;
export const VETH_UNTRACKED = 0x2;
export const SENDERS = 8192;
export const BACKOFF_FREE = 4;
export const OPTIONS_SAME = 4;

/** By number: enum reason. */
export const REASONS = ["fast", "paused", "not_ipv4", "vlan", "truncated", "ip_options", "fragment", "checksum", "ttl", "protocol", "tcp_flags", "outer", "vni", "flow_miss", "reverse", "stale", "sample", "host_miss", "pod_miss", "veth", "mac", "peer", "mtu", "refused", "backoff", "dscp", "drop", "overload", "extension", "scope", "ipv6", "options"] as const;
export type Reason = "paused" | "not_ipv4" | "vlan" | "truncated" | "ip_options" | "fragment" | "checksum" | "ttl" | "protocol" | "tcp_flags" | "outer" | "vni" | "flow_miss" | "reverse" | "stale" | "sample" | "host_miss" | "pod_miss" | "veth" | "mac" | "peer" | "mtu" | "refused" | "backoff" | "dscp" | "drop" | "overload" | "extension" | "scope" | "ipv6" | "options";

/** By number: enum lesson. */
export const LESSONS = ["learned", "confirmed", "paused", "unfit", "not_established", "nat", "device", "full", "forged", "helper", "conflict", "opted_out"] as const;
export type Lesson = "learned" | "confirmed" | "paused" | "unfit" | "not_established" | "nat" | "device" | "full" | "forged" | "helper" | "conflict" | "opted_out";

export const Direction = { EGRESS: 0, INGRESS: 1 } as const;

export const SlotState = { EMPTY: 0, BUSY: 1, LIVE: 2, RETIRED: 3 } as const;

export const MarkMode = { METADATA: 0, DSCP: 1 } as const;

export interface FlowKey {
	localIp: Ipv4;
	remoteIp: Ipv4;
	localPort: number;
	remotePort: number;
	proto: number;
}

export const flowKey = {
	size: 16,
	offset: { localIp: 0, remoteIp: 4, localPort: 8, remotePort: 10, proto: 12 },
	read: (view: DataView, at = 0): FlowKey => ({
		localIp: view.getUint32(at) as Ipv4,
		remoteIp: view.getUint32(at + 4) as Ipv4,
		localPort: view.getUint16(at + 8),
		remotePort: view.getUint16(at + 10),
		proto: view.getUint8(at + 12),
	}),
	write: (view: DataView, at: number, value: FlowKey): void => {
		view.setUint32(at, value.localIp);
		view.setUint32(at + 4, value.remoteIp);
		view.setUint16(at + 8, value.localPort);
		view.setUint16(at + 10, value.remotePort);
		view.setUint8(at + 12, value.proto);
	},
};

export interface FlowKey6 {
	localIp: Ip;
	remoteIp: Ip;
	localPort: number;
	remotePort: number;
	proto: number;
}

export const flowKey6 = {
	size: 40,
	offset: { localIp: 0, remoteIp: 16, localPort: 32, remotePort: 34, proto: 36 },
	read: (view: DataView, at = 0): FlowKey6 => ({
		localIp: readIp(view, at),
		remoteIp: readIp(view, at + 16),
		localPort: view.getUint16(at + 32),
		remotePort: view.getUint16(at + 34),
		proto: view.getUint8(at + 36),
	}),
	write: (view: DataView, at: number, value: FlowKey6): void => {
		writeIp(view, at, value.localIp);
		writeIp(view, at + 16, value.remoteIp);
		view.setUint16(at + 32, value.localPort);
		view.setUint16(at + 34, value.remotePort);
		view.setUint8(at + 36, value.proto);
	},
};

export interface Verdict {
	confirmedAt: bigint;
	sampledAt: bigint;
	ref: bigint;
	epoch: number;
	outerPort: number;
	flags: number;
}

export const verdict = {
	size: 32,
	offset: { confirmedAt: 0, sampledAt: 8, ref: 16, epoch: 24, outerPort: 28, flags: 30 },
	read: (view: DataView, at = 0): Verdict => ({
		confirmedAt: view.getBigUint64(at, true),
		sampledAt: view.getBigUint64(at + 8, true),
		ref: view.getBigUint64(at + 16, true),
		epoch: view.getUint32(at + 24, true),
		outerPort: view.getUint16(at + 28),
		flags: view.getUint16(at + 30, true),
	}),
	write: (view: DataView, at: number, value: Verdict): void => {
		view.setBigUint64(at, value.confirmedAt, true);
		view.setBigUint64(at + 8, value.sampledAt, true);
		view.setBigUint64(at + 16, value.ref, true);
		view.setUint32(at + 24, value.epoch, true);
		view.setUint16(at + 28, value.outerPort);
		view.setUint16(at + 30, value.flags, true);
	},
};

export interface Flow {
	egress: Verdict;
	ingress: Verdict;
	packets: bigint[];
	other: FlowKey;
	addressSum: number;
	portSum: number;
	options: number;
}

export const flow = {
	size: 128,
	offset: { egress: 0, ingress: 32, packets: 64, other: 80, addressSum: 96, portSum: 98, options: 100 },
	read: (view: DataView, at = 0): Flow => ({
		egress: verdict.read(view, at),
		ingress: verdict.read(view, at + 32),
		packets: Array.from({ length: 2 }, (_, i) => view.getBigUint64(at + 64 + i * 8, true)),
		other: flowKey.read(view, at + 80),
		addressSum: view.getUint16(at + 96, true),
		portSum: view.getUint16(at + 98, true),
		options: view.getUint32(at + 100, true),
	}),
	write: (view: DataView, at: number, value: Flow): void => {
		verdict.write(view, at, value.egress);
		verdict.write(view, at + 32, value.ingress);
		for (const [i, item] of value.packets.entries()) view.setBigUint64(at + 64 + i * 8, item, true);
		flowKey.write(view, at + 80, value.other);
		view.setUint16(at + 96, value.addressSum, true);
		view.setUint16(at + 98, value.portSum, true);
		view.setUint32(at + 100, value.options, true);
	},
};

export interface Flow6 {
	egress: Verdict;
	ingress: Verdict;
	packets: bigint[];
	other: FlowKey6;
	addressSum: number;
	portSum: number;
	options: number;
}

export const flow6 = {
	size: 128,
	offset: { egress: 0, ingress: 32, packets: 64, other: 80, addressSum: 120, portSum: 122, options: 124 },
	read: (view: DataView, at = 0): Flow6 => ({
		egress: verdict.read(view, at),
		ingress: verdict.read(view, at + 32),
		packets: Array.from({ length: 2 }, (_, i) => view.getBigUint64(at + 64 + i * 8, true)),
		other: flowKey6.read(view, at + 80),
		addressSum: view.getUint16(at + 120, true),
		portSum: view.getUint16(at + 122, true),
		options: view.getUint32(at + 124, true),
	}),
	write: (view: DataView, at: number, value: Flow6): void => {
		verdict.write(view, at, value.egress);
		verdict.write(view, at + 32, value.ingress);
		for (const [i, item] of value.packets.entries()) view.setBigUint64(at + 64 + i * 8, item, true);
		flowKey6.write(view, at + 80, value.other);
		view.setUint16(at + 120, value.addressSum, true);
		view.setUint16(at + 122, value.portSum, true);
		view.setUint32(at + 124, value.options, true);
	},
};

export interface Slot {
	state: number;
	generation: number;
	retiredAt: bigint;
}

export const slot = {
	size: 16,
	offset: { state: 0, generation: 4, retiredAt: 8 },
	read: (view: DataView, at = 0): Slot => ({
		state: view.getUint32(at, true),
		generation: view.getUint32(at + 4, true),
		retiredAt: view.getBigUint64(at + 8, true),
	}),
	write: (view: DataView, at: number, value: Slot): void => {
		view.setUint32(at, value.state, true);
		view.setUint32(at + 4, value.generation, true);
		view.setBigUint64(at + 8, value.retiredAt, true);
	},
};

export interface Host {
	slot: Slot;
	template: bigint[];
	remoteIp: Ip;
	localIp: Ip;
	checksum: number;
	uplink: number;
	vni: number;
	mtu: number;
	tunnelFlags: number;
	ipId: number;
	tunnel: number;
	headerLen: number;
	header: bigint[];
}

export const host = {
	size: 320,
	offset: { slot: 0, template: 16, remoteIp: 80, localIp: 96, checksum: 112, uplink: 116, vni: 120, mtu: 124, tunnelFlags: 126, ipId: 128, tunnel: 132, headerLen: 136, header: 192 },
	read: (view: DataView, at = 0): Host => ({
		slot: slot.read(view, at),
		template: Array.from({ length: 8 }, (_, i) => view.getBigUint64(at + 16 + i * 8, true)),
		remoteIp: readIp(view, at + 80),
		localIp: readIp(view, at + 96),
		checksum: view.getUint32(at + 112, true),
		uplink: view.getUint32(at + 116, true),
		vni: view.getUint32(at + 120) >>> 8,
		mtu: view.getUint16(at + 124, true),
		tunnelFlags: view.getUint16(at + 126, true),
		ipId: view.getUint32(at + 128, true),
		tunnel: view.getUint32(at + 132, true),
		headerLen: view.getUint32(at + 136, true),
		header: Array.from({ length: 16 }, (_, i) => view.getBigUint64(at + 192 + i * 8, true)),
	}),
	write: (view: DataView, at: number, value: Host): void => {
		slot.write(view, at, value.slot);
		for (const [i, item] of value.template.entries()) view.setBigUint64(at + 16 + i * 8, item, true);
		writeIp(view, at + 80, value.remoteIp);
		writeIp(view, at + 96, value.localIp);
		view.setUint32(at + 112, value.checksum, true);
		view.setUint32(at + 116, value.uplink, true);
		view.setUint32(at + 120, value.vni * 256);
		view.setUint16(at + 124, value.mtu, true);
		view.setUint16(at + 126, value.tunnelFlags, true);
		view.setUint32(at + 128, value.ipId, true);
		view.setUint32(at + 132, value.tunnel, true);
		view.setUint32(at + 136, value.headerLen, true);
		for (const [i, item] of value.header.entries()) view.setBigUint64(at + 192 + i * 8, item, true);
	},
};

export interface Pod {
	slot: Slot;
	macs: Uint8Array;
	veth: number;
	fromPod: Uint8Array;
	vethFlags: number;
	mtu: number;
	ip: Ip;
}

export const pod = {
	size: 64,
	offset: { slot: 0, macs: 16, veth: 28, fromPod: 32, vethFlags: 44, mtu: 46, ip: 48 },
	read: (view: DataView, at = 0): Pod => ({
		slot: slot.read(view, at),
		macs: bytesOf(view, at + 16, 12).slice(),
		veth: view.getUint32(at + 28, true),
		fromPod: bytesOf(view, at + 32, 12).slice(),
		vethFlags: view.getUint16(at + 44, true),
		mtu: view.getUint16(at + 46, true),
		ip: readIp(view, at + 48),
	}),
	write: (view: DataView, at: number, value: Pod): void => {
		slot.write(view, at, value.slot);
		bytesOf(view, at + 16, 12).set(value.macs);
		view.setUint32(at + 28, value.veth, true);
		bytesOf(view, at + 32, 12).set(value.fromPod);
		view.setUint16(at + 44, value.vethFlags, true);
		view.setUint16(at + 46, value.mtu, true);
		writeIp(view, at + 48, value.ip);
	},
};

export interface Tunnel {
	ifindex: number;
	uplink: number;
	vni: number;
	port: number;
	mtu: number;
	mac: MacAddress;
	flags: number;
	zone: number;
	header: number;
	gateway: number;
	zone6: number;
}

export const tunnel = {
	size: 40,
	offset: { ifindex: 0, uplink: 4, vni: 8, port: 12, mtu: 14, mac: 16, flags: 24, zone: 26, header: 28, gateway: 32, zone6: 36 },
	read: (view: DataView, at = 0): Tunnel => ({
		ifindex: view.getUint32(at, true),
		uplink: view.getUint32(at + 4, true),
		vni: view.getUint32(at + 8) >>> 8,
		port: view.getUint16(at + 12),
		mtu: view.getUint16(at + 14, true),
		mac: readMac(bytesOf(view, at + 16, 6)),
		flags: view.getUint16(at + 24, true),
		zone: view.getUint16(at + 26, true),
		header: view.getUint32(at + 28),
		gateway: view.getUint32(at + 32, true),
		zone6: view.getUint16(at + 36, true),
	}),
	write: (view: DataView, at: number, value: Tunnel): void => {
		view.setUint32(at, value.ifindex, true);
		view.setUint32(at + 4, value.uplink, true);
		view.setUint32(at + 8, value.vni * 256);
		view.setUint16(at + 12, value.port);
		view.setUint16(at + 14, value.mtu, true);
		bytesOf(view, at + 16, 6).set(macBytes(value.mac));
		view.setUint16(at + 24, value.flags, true);
		view.setUint16(at + 26, value.zone, true);
		view.setUint32(at + 28, value.header);
		view.setUint32(at + 32, value.gateway, true);
		view.setUint16(at + 36, value.zone6, true);
	},
};

export interface Veth {
	flags: number;
	mtu: number;
	router: MacAddress;
	zone: number;
	zone6: number;
}

export const veth = {
	size: 24,
	offset: { flags: 0, mtu: 4, router: 8, zone: 16, zone6: 18 },
	read: (view: DataView, at = 0): Veth => ({
		flags: view.getUint32(at, true),
		mtu: view.getUint32(at + 4, true),
		router: readMac(bytesOf(view, at + 8, 6)),
		zone: view.getUint16(at + 16, true),
		zone6: view.getUint16(at + 18, true),
	}),
	write: (view: DataView, at: number, value: Veth): void => {
		view.setUint32(at, value.flags, true);
		view.setUint32(at + 4, value.mtu, true);
		bytesOf(view, at + 8, 6).set(macBytes(value.router));
		view.setUint16(at + 16, value.zone, true);
		view.setUint16(at + 18, value.zone6, true);
	},
};

export interface Control {
	maxStaleness: bigint;
	jiffiesOffset: bigint;
	learnAfter: bigint;
	contract: number;
	epoch: number;
	learning: number;
	using: number;
	tunnelCount: number;
	savedTcpBeLiberal: number;
	evictions: number;
	optingOut: number;
	forgotten: bigint;
	tunnels: Tunnel[];
}

export const control = {
	size: 384,
	offset: { maxStaleness: 0, jiffiesOffset: 8, learnAfter: 16, contract: 24, epoch: 28, learning: 32, using: 36, tunnelCount: 40, savedTcpBeLiberal: 44, evictions: 48, optingOut: 52, forgotten: 56, tunnels: 64 },
	read: (view: DataView, at = 0): Control => ({
		maxStaleness: view.getBigUint64(at, true),
		jiffiesOffset: view.getBigInt64(at + 8, true),
		learnAfter: view.getBigUint64(at + 16, true),
		contract: view.getUint32(at + 24, true),
		epoch: view.getUint32(at + 28, true),
		learning: view.getUint32(at + 32, true),
		using: view.getUint32(at + 36, true),
		tunnelCount: view.getUint32(at + 40, true),
		savedTcpBeLiberal: view.getInt32(at + 44, true),
		evictions: view.getUint32(at + 48, true),
		optingOut: view.getUint32(at + 52, true),
		forgotten: view.getBigUint64(at + 56, true),
		tunnels: Array.from({ length: 8 }, (_, i) => tunnel.read(view, at + 64 + i * 40)),
	}),
	write: (view: DataView, at: number, value: Control): void => {
		view.setBigUint64(at, value.maxStaleness, true);
		view.setBigInt64(at + 8, value.jiffiesOffset, true);
		view.setBigUint64(at + 16, value.learnAfter, true);
		view.setUint32(at + 24, value.contract, true);
		view.setUint32(at + 28, value.epoch, true);
		view.setUint32(at + 32, value.learning, true);
		view.setUint32(at + 36, value.using, true);
		view.setUint32(at + 40, value.tunnelCount, true);
		view.setInt32(at + 44, value.savedTcpBeLiberal, true);
		view.setUint32(at + 48, value.evictions, true);
		view.setUint32(at + 52, value.optingOut, true);
		view.setBigUint64(at + 56, value.forgotten, true);
		for (const [i, item] of value.tunnels.entries()) tunnel.write(view, at + 64 + i * 40, item);
	},
};

export interface Settings {
	maxStaleness: bigint;
	retry: bigint;
	backoff: bigint;
	rest: bigint;
	mark: number;
	markMode: number;
	countFlows: number;
	egressSlots: number;
	ingressSlots: number;
	backoffSlots: number;
	filterEntries: number;
	filter6Entries: number;
	window: bigint;
	loadsInOrder: number;
}

export const settings = {
	size: 80,
	offset: { maxStaleness: 0, retry: 8, backoff: 16, rest: 24, mark: 32, markMode: 36, countFlows: 40, egressSlots: 44, ingressSlots: 48, backoffSlots: 52, filterEntries: 56, filter6Entries: 60, window: 64, loadsInOrder: 72 },
	read: (view: DataView, at = 0): Settings => ({
		maxStaleness: view.getBigUint64(at, true),
		retry: view.getBigUint64(at + 8, true),
		backoff: view.getBigUint64(at + 16, true),
		rest: view.getBigUint64(at + 24, true),
		mark: view.getUint32(at + 32, true),
		markMode: view.getUint32(at + 36, true),
		countFlows: view.getUint32(at + 40, true),
		egressSlots: view.getUint32(at + 44, true),
		ingressSlots: view.getUint32(at + 48, true),
		backoffSlots: view.getUint32(at + 52, true),
		filterEntries: view.getUint32(at + 56, true),
		filter6Entries: view.getUint32(at + 60, true),
		window: view.getBigUint64(at + 64, true),
		loadsInOrder: view.getUint32(at + 72, true),
	}),
	write: (view: DataView, at: number, value: Settings): void => {
		view.setBigUint64(at, value.maxStaleness, true);
		view.setBigUint64(at + 8, value.retry, true);
		view.setBigUint64(at + 16, value.backoff, true);
		view.setBigUint64(at + 24, value.rest, true);
		view.setUint32(at + 32, value.mark, true);
		view.setUint32(at + 36, value.markMode, true);
		view.setUint32(at + 40, value.countFlows, true);
		view.setUint32(at + 44, value.egressSlots, true);
		view.setUint32(at + 48, value.ingressSlots, true);
		view.setUint32(at + 52, value.backoffSlots, true);
		view.setUint32(at + 56, value.filterEntries, true);
		view.setUint32(at + 60, value.filter6Entries, true);
		view.setBigUint64(at + 64, value.window, true);
		view.setUint32(at + 72, value.loadsInOrder, true);
	},
};

export interface Counts {
	packets: Counter[];
	flows: bigint;
	flows6: bigint;
	lessons: bigint[];
}

export const counts = {
	size: 1232,
	offset: { packets: 0, flows: 1024, flows6: 1032, lessons: 1040 },
	read: (view: DataView, at = 0): Counts => ({
		packets: Array.from({ length: 64 }, (_, i) => counter.read(view, at + i * 16)),
		flows: view.getBigUint64(at + 1024, true),
		flows6: view.getBigUint64(at + 1032, true),
		lessons: Array.from({ length: 24 }, (_, i) => view.getBigUint64(at + 1040 + i * 8, true)),
	}),
	write: (view: DataView, at: number, value: Counts): void => {
		for (const [i, item] of value.packets.entries()) counter.write(view, at + i * 16, item);
		view.setBigUint64(at + 1024, value.flows, true);
		view.setBigUint64(at + 1032, value.flows6, true);
		for (const [i, item] of value.lessons.entries()) view.setBigUint64(at + 1040 + i * 8, item, true);
	},
};

export interface Counter {
	packets: bigint;
	bytes: bigint;
}

export const counter = {
	size: 16,
	offset: { packets: 0, bytes: 8 },
	read: (view: DataView, at = 0): Counter => ({
		packets: view.getBigUint64(at, true),
		bytes: view.getBigUint64(at + 8, true),
	}),
	write: (view: DataView, at: number, value: Counter): void => {
		view.setBigUint64(at, value.packets, true);
		view.setBigUint64(at + 8, value.bytes, true);
	},
};

export interface Backoff {
	at: bigint;
	tag: number;
	declined: number;
}

export const backoff = {
	size: 16,
	offset: { at: 0, tag: 8, declined: 12 },
	read: (view: DataView, at = 0): Backoff => ({
		at: view.getBigUint64(at, true),
		tag: view.getUint32(at + 8, true),
		declined: view.getUint32(at + 12, true),
	}),
	write: (view: DataView, at: number, value: Backoff): void => {
		view.setBigUint64(at, value.at, true);
		view.setUint32(at + 8, value.tag, true);
		view.setUint32(at + 12, value.declined, true);
	},
};

export interface Pending {
	at: bigint;
	foreign: number;
	tos: number;
}

export const pending = {
	size: 16,
	offset: { at: 0, foreign: 8, tos: 12 },
	read: (view: DataView, at = 0): Pending => ({
		at: view.getBigUint64(at, true),
		foreign: view.getUint32(at + 8, true),
		tos: view.getUint8(at + 12),
	}),
	write: (view: DataView, at: number, value: Pending): void => {
		view.setBigUint64(at, value.at, true);
		view.setUint32(at + 8, value.foreign, true);
		view.setUint8(at + 12, value.tos);
	},
};
