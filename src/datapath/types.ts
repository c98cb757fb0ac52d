// What the rest of the program may ask of the datapath: plain values, no pointers.
import type { Ipv4 } from "../net/ipv4.js";
import type { MacAddress } from "../net/mac.js";

export type MarkMode = "metadata" | "dscp";
export type AttachKind = "tcx" | "clsact";
/** The four programs, each at its one hook. */
export type ProgramName = "egress" | "egress_init" | "ingress" | "ingress_init";
export type HookDirection = "ingress" | "egress";

/** Which program runs at which tc direction of which device role. */
export const HOOKS = {
	veth: { ingress: "egress", egress: "ingress_init" },
	uplink: { ingress: "ingress", egress: "egress_init" },
} as const satisfies Record<string, Record<HookDirection, ProgramName>>;
export type DeviceRole = keyof typeof HOOKS;

export interface DatapathOptions {
	/** Pin directory on a bpffs, such as /sys/fs/bpf/oncache. */
	bpffs: string;
	attach: AttachKind;
	markMode: MarkMode;
	/** One bit. */
	mark: number;
	maxStalenessMs: number;
	countFlows: boolean;
	/** Entries; each a power of two. */
	sizes: { filter: number; egress: number; ingress: number };
}

/** A tunnel device that may be accelerated. */
export interface TunnelEntry {
	ifindex: number;
	uplink: number;
	vni: number;
	port: number;
	/** Largest inner IPv4 packet, bytes. */
	mtu: number;
	mac: MacAddress;
	tosInherit: boolean;
	ttlInherit: boolean;
	dfInherit: boolean;
}

export interface VethEntry {
	ifindex: number;
	/** Its egress qdisc must see every packet. */
	shaped: boolean;
	/** Largest IPv4 packet towards the pod, bytes. */
	mtu: number;
}

/** One program on one device, as it is now. */
export interface Attachment {
	ifindex: number;
	direction: HookDirection;
	program: ProgramName;
	kind: AttachKind;
}

/** An entry of the ingress cache. */
export interface CachedPod {
	slot: number;
	ip: Ipv4;
	veth: number;
	mac: MacAddress;
	gatewayMac: MacAddress;
}

/** An entry of the egress cache. */
export interface CachedHost {
	slot: number;
	remote: Ipv4;
	local: Ipv4;
	vni: number;
	tunnel: number;
	uplink: number;
	mtu: number;
}
