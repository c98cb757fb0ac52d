// What the rest of the program may ask of the datapath: plain values, no pointers.
import type { Ip } from "../net/ip.js";
import type { MacAddress } from "../net/mac.js";

export type MarkMode = "metadata" | "dscp";
export type AttachKind = "tcx" | "clsact";
/** The four programs, each at its one hook. */
export type ProgramName = "egress" | "egress_init" | "ingress" | "ingress_init";
/** The filter of the socket that hears of connection tracking entries that end. */
export type SocketFilterName = "forget";
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
	/** Entries; each a power of two. `filter6`, the filter cache of IPv6, is as large as that of IPv4 unless it is given. */
	sizes: { filter: number; filter6?: number; egress: number; ingress: number };
}

/** Of connection tracking, for each family; 0: none of its own. */
export interface Zones {
	ipv4: number;
	ipv6: number;
}

/** A tunnel device that may be accelerated. */
export interface TunnelEntry {
	kind: "vxlan" | "geneve";
	ifindex: number;
	uplink: number;
	vni: number;
	port: number;
	/** Largest inner packet without its Ethernet header, bytes. */
	mtu: number;
	/** Inner Ethernet source of what this host routes into it: its own address, its bridge's, or its switch's gateway's. */
	mac: MacAddress;
	/** A switch's flows choose remote host and VNI: the connection tracking zones it uses, the ifindex of its gateway. */
	flowBased: { zones: Zones; gateway: number } | undefined;
	/** Whether it is a port of a bridge, and whether what that forwards passes connection tracking. */
	bridging: "none" | "tracked" | "untracked";
	/** The outer header is IPv6. */
	ipv6: boolean;
	tosInherit: boolean;
	ttlInherit: boolean;
	dfInherit: boolean;
	labelInherit: boolean;
}

export interface VethEntry {
	ifindex: number;
	/** Its egress qdisc must see every packet. */
	shaped: boolean;
	/** Largest packet towards the pod without its Ethernet header, bytes. */
	mtu: number;
	/** Source of what is routed to the pod: of its bridge, its switch's gateway or the veth itself. */
	router: MacAddress | undefined;
	/** What its bridge forwards does not pass connection tracking. */
	untracked: boolean;
	/** In which connection tracking knows what its switch forwards. */
	zones: Zones;
}

/** One program on one device, as it is now. */
export interface Attachment {
	ifindex: number;
	direction: HookDirection;
	program: ProgramName;
	kind: AttachKind;
}

/** An entry of the ingress cache: a pod with two addresses has two. */
export interface CachedPod {
	slot: number;
	generation: number;
	ip: Ip;
	/** ifindex. */
	veth: number;
	mac: MacAddress;
	gatewayMac: MacAddress;
}

/** An entry of the egress cache. */
export interface CachedHost {
	slot: number;
	generation: number;
	/** Outer addresses. */
	remote: Ip;
	local: Ip;
	vni: number;
	/** ifindex. */
	tunnel: number;
	uplink: number;
	mtu: number;
	/** Outer Ethernet source and destination. */
	uplinkMac: MacAddress;
	nextHopMac: MacAddress;
	/** It is reached by frames that this host does not route: `peerMac` is that of a remote pod, `tunnelMac` is zero. */
	bridged: boolean;
	/** Inner Ethernet source and destination: of the tunnel device here, and of the remote one. */
	tunnelMac: MacAddress;
	peerMac: MacAddress;
}
