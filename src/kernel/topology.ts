// Reads the overlay out of what the kernel lists: which devices are tunnels, over which uplink, and which are pods.
// Decides nothing about the fast path except whether a tunnel is one that it can replay.
import type { Ipv4 } from "../net/ipv4.js";
import type { Address, FdbEntry, Link, Route, VxlanInfo } from "./link.js";

/** All of one network namespace. */
export interface Network {
	links: readonly Link[];
	addresses: readonly Address[];
	routes: readonly Route[];
	/** Of the tunnel devices. */
	fdb: readonly FdbEntry[];
}

export interface Tunnel {
	link: Link;
	kind: "vxlan";
	vni: number;
	/** Outer UDP destination port. */
	port: number;
	uplink: Link | undefined;
	/** Largest inner IPv4 packet, bytes. */
	mtu: number;
	tosInherit: boolean;
	ttlInherit: boolean;
	dfInherit: boolean;
	/** Why it cannot be accelerated, in one sentence; undefined when it can. */
	why: string | undefined;
}

/** The host side of a pod. */
export interface PodVeth {
	link: Link;
}

/** IPv4 + UDP + VXLAN + inner Ethernet. */
const VXLAN_OVERHEAD_BYTES = 20 + 8 + 8 + 14;
const TOS_INHERIT = 1;
const RT_TABLE_MAIN = 254;

export function findTunnels(network: Network): Tunnel[] {
	return network.links.flatMap((link) => (link.vxlan ? [vxlanTunnel(link, link.vxlan, network)] : []));
}

/** Veths whose peer lives in another network namespace, except those that carry the underlay. */
export function findPodVeths(links: readonly Link[], tunnels: readonly Tunnel[]): PodVeth[] {
	const underlay = new Set<number>();
	for (const { uplink } of tunnels) if (uplink) collectUnderlay(uplink, links, underlay);
	return links
		.filter((link) => link.kind === "veth" && link.linkNetnsid !== undefined && !underlay.has(link.ifindex))
		.map((link) => ({ link }));
}

function vxlanTunnel(link: Link, vxlan: VxlanInfo, network: Network): Tunnel {
	const uplink = findUplink(link, vxlan, network);
	return {
		link,
		kind: "vxlan",
		vni: vxlan.vni,
		port: vxlan.port,
		uplink,
		mtu: Math.min(link.mtu, (uplink?.mtu ?? link.mtu) - VXLAN_OVERHEAD_BYTES),
		tosInherit: vxlan.tos === TOS_INHERIT,
		ttlInherit: vxlan.ttlInherit,
		dfInherit: vxlan.df === "inherit",
		why: whyNot(link, vxlan, uplink),
	};
}

/** The device that the tunnel names; else the one with its address; else the one towards a remote host, or any host. */
function findUplink(link: Link, vxlan: VxlanInfo, { links, addresses, routes, fdb }: Network): Link | undefined {
	const candidates = [
		vxlan.link,
		...addresses.filter(({ ip }) => ip === vxlan.local).map(({ ifindex }) => ifindex),
		...fdb
			.filter((entry) => entry.ifindex === link.ifindex && entry.remote !== undefined && !isMulticast(entry.remote))
			.map((entry) => routeTo(entry.remote as Ipv4, routes)?.device),
		routes.find((route) => route.table === RT_TABLE_MAIN && route.prefixLength === 0)?.device,
	];
	const byIndex = new Map(links.map((each) => [each.ifindex, each]));
	// A tunnel address may lie on loopback, and a route to a remote host may lead into the tunnel: look further.
	return candidates
		.map((ifindex) => (ifindex === undefined || ifindex === link.ifindex ? undefined : byIndex.get(ifindex)))
		.find((candidate) => candidate !== undefined && !candidate.loopback);
}

function whyNot(link: Link, vxlan: VxlanInfo, uplink: Link | undefined): string | undefined {
	const device = `Tunnel device "${link.name}"`;
	if (link.linkNetnsid !== undefined) return `${device} has its underlay in another network namespace`;
	if (vxlan.collectMetadata) return `${device} is in metadata mode: VNI and remote host are chosen for each packet`;
	if (vxlan.vni === 0) return `${device} has no VNI`;
	if (vxlan.ipv6) return `${device} has an IPv6 underlay`;
	if (vxlan.extensions) return `${device} uses a VXLAN extension (group policy, generic protocol or remote checksum)`;
	if (vxlan.udpChecksum) return `${device} computes outer UDP checksums; create it with noudpcsum`;
	if (!link.up) return `${device} is down`;
	if (!uplink) return `${device} has no uplink: no option, address, route or forwarding entry of it names one`;
	if (!uplink.up) return `${device} has the uplink "${uplink.name}", which is down`;
	if (!uplink.mac) return `${device} has the uplink "${uplink.name}", which is not an Ethernet device`;
	if (uplink.vxlan) return `${device} has the uplink "${uplink.name}", which is a tunnel device itself`;
	return undefined;
}

/** The uplink and the devices under it: a VLAN's parent, the members of a bridge or bond. */
function collectUnderlay(device: Link, links: readonly Link[], underlay: Set<number>): void {
	if (underlay.has(device.ifindex)) return;
	underlay.add(device.ifindex);
	for (const link of links) {
		const isParent = device.linkNetnsid === undefined && link.ifindex === device.link;
		if (isParent || link.master === device.ifindex) collectUnderlay(link, links, underlay);
	}
}

/** Longest prefix of the main table; of equal ones the first, which the kernel prefers. */
function routeTo(ip: Ipv4, routes: readonly Route[]): Route | undefined {
	return routes
		.filter((route) => route.table === RT_TABLE_MAIN && contains(route, ip))
		.reduce<Route | undefined>(
			(best, route) => (best && best.prefixLength >= route.prefixLength ? best : route),
			undefined,
		);
}

function contains({ destination, prefixLength }: Route, ip: Ipv4): boolean {
	return prefixLength === 0 || (destination ^ ip) >>> (32 - prefixLength) === 0;
}

function isMulticast(ip: Ipv4): boolean {
	return ip >>> 28 === 0xe;
}
