// What a lab consists of: names and addresses, all derived from its specification. Pure.
import type { LabSpec } from "./spec.js";

export { checkSpec, DEFAULT_SPEC, isBridged, isRouted, type LabSpec, specOf } from "./spec.js";

export type Family = 4 | 6;

export interface LabPod {
	/** Such as "h1p1". */
	name: string;
	/** Path of its network namespace. */
	netns: string;
	/** The first of its addresses: IPv4 unless the pods have only IPv6. */
	ip: string;
	/** One per subnet of its host, in the same order. */
	addresses: string[];
	mac: string;
	/** Host-side veth. */
	veth: string;
}

/** A host's pods have one for each family. */
export interface PodSubnet {
	family: Family;
	/** Of the pods of all hosts. */
	network: string;
	/** Of this host's pods. */
	cidr: string;
	/** Prefix length of a pod's address where pods have neighbours. */
	length: number;
	gateway: string;
	/** Of the host's tunnel device: the first of the cidr. */
	tunnelAddress: string;
}

export interface LabTunnel {
	name: string;
	mac: string;
	vni: number;
	/** Of the outer header. */
	underlay: Family;
	/** Of the pods' packets that it carries. */
	families: Family[];
	/** Name of the host at its other end, if there is only one. */
	peer: string | undefined;
}

export interface LabHost {
	/** Such as "h1". */
	name: string;
	/** 1.. */
	number: number;
	netns: string;
	/** Underlay address of its first tunnel device. */
	ip: string;
	/** Of the uplink, in every family that the underlay or the pods have. */
	nodeIps: Partial<Record<Family, string>>;
	uplink: string;
	/** MAC of the uplink. */
	mac: string;
	tunnels: LabTunnel[];
	/** The first of them. */
	tunnel: string;
	tunnelMac: string;
	subnets: PodSubnet[];
	/** Of the first subnet. */
	podCidr: string;
	/** Of the first subnet: of the bridge, if there is one. */
	gateway: string;
	bridgeMac: string;
	pods: LabPod[];
	/** Of its Open vSwitch: sockets, database, logs. */
	switchDir: string | undefined;
	/** Of the agent that may run there. */
	socket: string;
	bpffs: string;
}

export interface Lab {
	spec: LabSpec;
	hosts: LabHost[];
	/** Network namespace of what joins hosts that do not share a cable. */
	fabric: string | undefined;
}

export const POD_NETWORK = "10.244.0.0/16";
export const POD_NETWORK_6 = "fd00:10:244::/48";
export const BRIDGE = "cni0";
/** Antrea's: the bridge, the host's own port on it, and the MAC address of every gateway that is elsewhere. */
export const SWITCH = "br-int";
export const GATEWAY = "antrea-gw0";
export const GLOBAL_MAC = "aa:bb:cc:dd:ee:ff";
/** Of datapath "netdev": the bridge that has the uplink and its address. */
export const PHYSICAL = "br-phy";
export const UPLINK_MTU = 1500;
/** Outer IPv4, UDP, VXLAN and inner Ethernet headers. */
export const POD_MTU = UPLINK_MTU - 50;
export const RUN_DIR = "/run/oncache";
const NETNS_DIR = "/run/netns";

export const runDir = (name: string): string => `${RUN_DIR}/lab-${name}`;
/** Every namespace of a lab begins like this. */
export const prefix = (name: string): string => `oc-${name}-`;
/** As ip netns calls the namespace of that path. */
export const nameOf = (netns: string): string => netns.slice(netns.lastIndexOf("/") + 1);

export function labOf(spec: LabSpec): Lab {
	const hosts = Array.from({ length: spec.hosts }, (_, i) => hostOf(spec, i + 1));
	return { spec, hosts, fabric: spec.hosts > 2 ? netnsOf(spec, "fabric") : undefined };
}

/** Of every device that pods' packets pass: IPv6 outside is 20 bytes longer. */
export function podMtu({ underlay }: LabSpec): number {
	return underlay === "ipv4" ? POD_MTU : POD_MTU - 20;
}

/** Which of the host's devices leads to a peer. Both ends choose alike. */
export function tunnelTo(host: LabHost, peer: LabHost, family: Family): LabTunnel {
	const candidates = host.tunnels.filter(
		(tunnel) => tunnel.families.includes(family) && (tunnel.peer ?? peer.name) === peer.name,
	);
	// h1 and h2 use the first, h1 and h3 the second.
	const tunnel = candidates[(host.number + peer.number - 3) % candidates.length];
	if (!tunnel) throw new Error(`Host ${host.name} has no tunnel to ${peer.name}`);
	return tunnel;
}

/** Whether packets between the two need no tunnel. */
export function isDirect({ spec }: Lab, host: LabHost, peer: LabHost): boolean {
	return spec.direct && segmentOf(spec, host.number) === segmentOf(spec, peer.number);
}

/** Number of the underlay's subnet. */
export function segmentOf(spec: LabSpec, host: number): number {
	return spec.direct && host % 2 === 0 ? 78 : 77;
}

/** In a subnet of the underlay. */
export function underlayAddress(family: Family, segment: number, last: number): string {
	return family === 4 ? `192.168.${segment}.${last}` : `fd00:${segment}::${last.toString(16)}`;
}

export const underlayLength = (family: Family): number => (family === 4 ? 24 : 64);

export function podFamilies({ family }: LabSpec): Family[] {
	return family === "dual" ? [4, 6] : family === "ipv4" ? [4] : [6];
}

export function uplinkFamilies(spec: LabSpec): Family[] {
	const families = new Set(podFamilies(spec));
	if (spec.underlay !== "ipv6") families.add(4);
	if (spec.underlay !== "ipv4") families.add(6);
	return [...families].sort();
}

function hostOf(spec: LabSpec, number: number): LabHost {
	const name = `h${number}`;
	const families = uplinkFamilies(spec).map((family) => [
		family,
		underlayAddress(family, segmentOf(spec, number), number),
	]);
	const nodeIps = Object.fromEntries(families) as LabHost["nodeIps"];
	const subnets = podFamilies(spec).map((family) => subnetOf(spec, number, family));
	const tunnels = tunnelsOf(spec, number);
	const [tunnel] = tunnels as [LabTunnel];
	const [subnet] = subnets as [PodSubnet];
	return {
		name,
		number,
		netns: netnsOf(spec, name),
		ip: nodeIps[tunnel.underlay] as string,
		nodeIps,
		uplink: { veth: "eth0", macvlan: "macvlan0", vlan: "eth0.77", bond: "bond0", aliased: "eth0" }[spec.uplink],
		mac: macOf(0x10, number, 0),
		tunnels,
		tunnel: tunnel.name,
		tunnelMac: tunnel.mac,
		subnets,
		podCidr: subnet.cidr,
		gateway: subnet.gateway,
		bridgeMac: macOf(0x30, number, 0),
		pods: Array.from({ length: spec.pods }, (_, j) => podOf(spec, number, j + 1)),
		switchDir: spec.overlay === "antrea" ? `${runDir(spec.name)}/${name}.ovs` : undefined,
		socket: `${runDir(spec.name)}/${name}.sock`,
		bpffs: `/sys/fs/bpf/oncache-lab-${spec.name}/${name}`,
	};
}

function podOf(spec: LabSpec, host: number, number: number): LabPod {
	const name = `h${host}p${number}`;
	const addresses = podFamilies(spec).map((family) => podAddress(family, host, number + 1));
	const digits = `${host.toString(16).padStart(2, "0")}${number.toString(16).padStart(4, "0")}`;
	return {
		name,
		netns: netnsOf(spec, name),
		ip: addresses[0] as string,
		addresses,
		mac: macOf(0x58, host, number),
		veth: `${spec.overlay === "calico" ? "cali" : "veth"}${digits}`,
	};
}

function subnetOf(spec: LabSpec, host: number, family: Family): PodSubnet {
	const isShared = spec.overlay === "bridged";
	const first = podAddress(family, host, 0);
	const length = family === 4 ? 24 : 64;
	return {
		family,
		network: family === 4 ? POD_NETWORK : POD_NETWORK_6,
		cidr: `${first}/${length}`,
		length: isShared ? (family === 4 ? 16 : 48) : length,
		gateway: podAddress(family, host, 1),
		tunnelAddress: first,
	};
}

function tunnelsOf(spec: LabSpec, host: number): LabTunnel[] {
	const families = podFamilies(spec);
	const underlay = spec.underlay === "ipv6" ? 6 : 4;
	const tunnel = (name: string, more: Partial<LabTunnel> = {}): LabTunnel => ({
		name,
		mac: macOf(0x20, host, 0),
		vni: spec.vni,
		underlay,
		families,
		peer: undefined,
		...more,
	});
	const others = Array.from({ length: spec.hosts }, (_, i) => i + 1).filter((number) => number !== host);
	if (spec.overlay === "geneve")
		return others.map((peer) => tunnel(`gnv${peer}`, { mac: macOf(0x20, host, peer), peer: `h${peer}` }));
	if (spec.overlay === "bridged") return [tunnel("vxlan0")];
	// The switch makes it, one for all peers. In user space there is none: what it sends is only seen on the uplink.
	if (spec.overlay === "antrea")
		return [
			tunnel(
				spec.datapath === "netdev" ? "eth0" : `${spec.tunnelType === "vxlan" ? "vxlan" : "genev"}_sys_${spec.port}`,
				{ mac: macOf(0x30, host, 0) },
			),
		];
	const nameOf = (vni: number, v6: string): string =>
		spec.overlay === "calico" ? `vxlan${v6}.calico` : `flannel${v6}.${vni}`;
	return Array.from({ length: spec.tunnels }, (_, i) => {
		const vni = spec.vni + i;
		const mac = macOf(0x20, host, i);
		if (spec.underlay !== "dual") return [tunnel(nameOf(vni, ""), { vni, mac })];
		return [
			tunnel(nameOf(vni, ""), { vni, mac, families: [4] }),
			tunnel(nameOf(vni, "-v6"), { vni, mac: macOf(0x26, host, i), families: [6], underlay: 6 }),
		];
	}).flat();
}

function netnsOf(spec: LabSpec, suffix: string): string {
	return `${NETNS_DIR}/${prefix(spec.name)}${suffix}`;
}

function podAddress(family: Family, host: number, last: number): string {
	return family === 4
		? `10.244.${host}.${last}`
		: `fd00:10:244:${host.toString(16)}::${last === 0 ? "" : last.toString(16)}`;
}

/** Locally administered; 0x58 and the like only tell a reader what it belongs to. */
export function macOf(kind: number, host: number, pod: number): string {
	return [0x0a, kind, 0xf4, 0, host, pod].map((byte) => byte.toString(16).padStart(2, "0")).join(":");
}
