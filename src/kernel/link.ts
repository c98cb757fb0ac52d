// Network devices as the kernel describes them (RTM_GETLINK), reduced to what ONCache asks about.
import type { Ip } from "../net/ip.js";
import type { MacAddress } from "../net/mac.js";

/** IFLA_VXLAN_* of a vxlan device. */
export interface VxlanInfo {
	vni: number;
	/** Outer UDP destination port. */
	port: number;
	/** ifindex of the underlay device, when the device names one. */
	link: number | undefined;
	/** Outer source, when the device names one. */
	local: Ip | undefined;
	/** The outer header is IPv6. */
	ipv6: boolean;
	/** First and last outer UDP source port; 0, 0 is the kernel's default range. */
	portRange: { low: number; high: number };
	/** 0: the system's default. */
	ttl: number;
	ttlInherit: boolean;
	/** The whole TOS byte; 1 means "inherit the inner DSCP". */
	tos: number;
	df: "unset" | "set" | "inherit";
	/** The outer IPv6 flow label is that of inner IPv6. */
	labelInherit: boolean;
	/** Outer UDP checksum over IPv4. */
	udpChecksum: boolean;
	/** Over IPv6: none is sent, none is needed (RFC 6935). */
	zeroChecksum6: { tx: boolean; rx: boolean };
	/** Metadata (flow based) mode, as Open vSwitch uses it. */
	collectMetadata: boolean;
	/** Group policy, generic protocol or remote checksum extensions are on. */
	extensions: boolean;
}

/** IFLA_GENEVE_* of a geneve device. */
export interface GeneveInfo {
	vni: number;
	/** Outer UDP destination port. */
	port: number;
	/** The one remote host. */
	remote: Ip | undefined;
	/** The outer header is IPv6. */
	ipv6: boolean;
	ttlInherit: boolean;
	/** The whole TOS byte; 1 means "inherit the inner DSCP". */
	tos: number;
	df: "unset" | "set" | "inherit";
	/** Outer UDP checksum over IPv4. */
	udpChecksum: boolean;
	/** Over IPv6: none is sent, none is needed (RFC 6935). */
	zeroChecksum6: { tx: boolean; rx: boolean };
	/** Metadata (flow based) mode, as Open vSwitch uses it. */
	collectMetadata: boolean;
	/** It carries IP packets without an inner Ethernet header. */
	innerProtocolInherit: boolean;
}

/** IFLA_BR_* of a bridge. */
export interface BridgeInfo {
	/** What it forwards passes iptables whatever the sysctl says. */
	callsIptables: boolean;
}

export interface Link {
	ifindex: number;
	name: string;
	/** IFLA_INFO_KIND: "veth", "vxlan", "bridge" ...; undefined for physical devices. */
	kind: string | undefined;
	/** Undefined when frames on it have no Ethernet header (tun, wireguard). */
	mac: MacAddress | undefined;
	mtu: number;
	/** IFF_UP. */
	up: boolean;
	/** IFF_LOOPBACK. */
	loopback: boolean;
	/** ifindex of the bridge or bond it belongs to. */
	master: number | undefined;
	/** IFLA_LINK: a veth's peer, a VLAN's parent. */
	link: number | undefined;
	/** IFLA_LINK_NETNSID: set when `link` lies in another network namespace. */
	linkNetnsid: number | undefined;
	vxlan: VxlanInfo | undefined;
	geneve: GeneveInfo | undefined;
	bridge: BridgeInfo | undefined;
}

export interface Address {
	ifindex: number;
	ip: Ip;
	prefixLength: number;
}

export interface Route {
	destination: Ip;
	prefixLength: number;
	gateway: Ip | undefined;
	/** ifindex of the outgoing device. */
	device: number | undefined;
	table: number;
	/** RTA_PREFSRC: the source address that goes with it. */
	source: Ip | undefined;
	/** False for an unreachable, blackhole or prohibit route. */
	forwards: boolean;
	/** RTAX_MTU, bytes; undefined: the device's. */
	mtu: number | undefined;
}

/** A bridge forwarding entry; of a vxlan device: the remote host behind a MAC address. */
export interface FdbEntry {
	/** The port; of a vxlan device's own table: the device. */
	ifindex: number;
	/** ifindex of the bridge; undefined in a vxlan device's own table. */
	master: number | undefined;
	mac: MacAddress;
	remote: Ip | undefined;
}

/** An ARP entry, or one of IPv6's neighbour discovery. */
export interface Neighbour {
	ifindex: number;
	ip: Ip;
	/** Undefined while nobody has answered, or nobody does any more. */
	mac: MacAddress | undefined;
}

export interface Qdisc {
	ifindex: number;
	/** "noqueue", "tbf", "clsact", "ingress" ... */
	kind: string;
	/** Major number in the high half. */
	handle: number;
	parent: number;
}

/** A tc classifier. */
export interface Filter {
	ifindex: number;
	/** 0xfffffff2 clsact/ingress, 0xfffffff3 clsact egress, else the qdisc it hangs on. */
	parent: number;
	/** "bpf", "u32", "matchall" ... */
	kind: string;
	priority: number;
	handle: number;
	/** TCA_BPF_NAME and TCA_BPF_ID of a bpf classifier. */
	bpfName: string | undefined;
	bpfId: number | undefined;
}
