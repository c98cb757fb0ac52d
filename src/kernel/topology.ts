// Reads the overlay out of what the kernel lists: which devices are tunnels, over which uplink, and which are pods.
// Decides nothing about the fast path except whether a tunnel is one that it can replay.
import { IPV4_BYTES, IPV6_BYTES, type Ip, isIpv6 } from "../net/ip.js";
import type { Address, FdbEntry, GeneveInfo, Link, Route, VxlanInfo } from "./link.js";

/** All of one network namespace. */
export interface Network {
	links: readonly Link[];
	addresses: readonly Address[];
	routes: readonly Route[];
	/** Of the tunnel devices. */
	fdb: readonly FdbEntry[];
	/** Of a switch whose tunnels are flow based, what its database and flows tell; undefined: nobody has told. */
	switch?: SwitchFacts | undefined;
}

/** By family; undefined: not known. */
export interface FoundZones {
	ipv4: number | undefined;
	ipv6: number | undefined;
}

/** A part of what ../ovs reads. */
export interface SwitchFacts {
	/** Of connection tracking. */
	zones: FoundZones;
	/** Where its tunnels lead to. */
	remotes: readonly Ip[];
	tunnels: readonly {
		kind: string;
		port: number;
		tosInherit: boolean;
		ttlInherit: boolean;
		udpChecksum: boolean;
	}[];
}

export interface Tunnel {
	link: Link;
	kind: "vxlan" | "geneve";
	vni: number;
	/** Outer UDP destination port. */
	port: number;
	uplink: Link | undefined;
	/** The outer header is IPv6; of a flow based tunnel each packet's may be. */
	ipv6: boolean;
	/** Largest inner packet, bytes; flow based: with an outer IPv4 header and no options. */
	mtu: number;
	/** The bridge that it is a port of. */
	bridge: Link | undefined;
	/** Remote host and VNI are chosen for each packet by the flows of a switch, which has this gateway and these zones. */
	flowBased: { gateway: Link | undefined; zones: FoundZones } | undefined;
	tosInherit: boolean;
	ttlInherit: boolean;
	dfInherit: boolean;
	/** Of the outer IPv6 flow label. */
	labelInherit: boolean;
	/** Why it cannot be accelerated, in one sentence; undefined when it can. */
	why: string | undefined;
}

/** The host side of a pod. */
export interface PodVeth {
	link: Link;
}

export const POD_DEVICES: readonly string[] = ["veth", "netkit"];
/** What the outer header takes of the uplink's MTU: IP, UDP, VXLAN or Geneve without options, inner Ethernet. */
export const overheadBytes = (ipv6: boolean): number => (ipv6 ? 40 : 20) + 8 + 8 + 14;
const TOS_INHERIT = 1;
const RT_TABLE_MAIN = 254;
/** Antrea's, where its switch cannot be asked. */
const ANTREA_GATEWAY = "antrea-gw0";
const ANTREA_ZONES: FoundZones = { ipv4: 65_520, ipv6: 65_510 };
const NO_ZONES: FoundZones = { ipv4: undefined, ipv6: undefined };

export function findTunnels(network: Network): Tunnel[] {
	return network.links.flatMap((link) => {
		if (link.vxlan) return [vxlanTunnel(link, link.vxlan, network)];
		return link.geneve ? [geneveTunnel(link, link.geneve, network)] : [];
	});
}

/** Veths, and netkit devices, whose peer lives in another network namespace, except those that carry the underlay. */
export function findPodVeths(links: readonly Link[], tunnels: readonly Tunnel[]): PodVeth[] {
	const underlay = new Set<number>();
	for (const { uplink } of tunnels) if (uplink) collectUnderlay(uplink, links, underlay);
	return links
		.filter(
			(link) => POD_DEVICES.includes(link.kind ?? "") && link.linkNetnsid !== undefined && !underlay.has(link.ifindex),
		)
		.map((link) => ({ link }));
}

function vxlanTunnel(link: Link, vxlan: VxlanInfo, network: Network): Tunnel {
	const { links, addresses, routes, fdb } = network;
	const uplink = findUplink(link, links, [
		vxlan.link,
		...addresses.filter(({ ip }) => ip === vxlan.local).map(({ ifindex }) => ifindex),
		...fdb
			.filter((entry) => entry.ifindex === link.ifindex && entry.remote !== undefined && !isMulticast(entry.remote))
			.map((entry) => routeTo(entry.remote as Ip, routes)?.device),
		...remotesOf(vxlan, network).map((remote) => routeTo(remote, routes)?.device),
		defaultRoute(routes, vxlan.ipv6)?.device,
	]);
	const why = vxlan.extensions
		? "uses a VXLAN extension (group policy, generic protocol or remote checksum)"
		: undefined;
	return tunnelOf("vxlan", link, vxlan, uplink, why, network);
}

function geneveTunnel(link: Link, geneve: GeneveInfo, network: Network): Tunnel {
	const { links, routes } = network;
	const uplink = findUplink(link, links, [
		geneve.remote === undefined ? undefined : routeTo(geneve.remote, routes)?.device,
		...remotesOf(geneve, network).map((remote) => routeTo(remote, routes)?.device),
		defaultRoute(routes, geneve.ipv6)?.device,
	]);
	const why = geneve.innerProtocolInherit ? "carries packets without an inner Ethernet header" : undefined;
	return tunnelOf("geneve", link, geneve, uplink, why, network);
}

function tunnelOf(
	kind: Tunnel["kind"],
	link: Link,
	info: VxlanInfo | GeneveInfo,
	uplink: Link | undefined,
	why: string | undefined,
	network: Network,
): Tunnel {
	const master = network.links.find(({ ifindex }) => ifindex === link.master);
	const flowBased = info.collectMetadata ? flowBasedOf(network) : undefined;
	// The device does not say what its outer headers are like: the switch does, for each packet.
	const port = info.collectMetadata
		? network.switch?.tunnels.find((each) => each.kind === kind && each.port === info.port)
		: undefined;
	return {
		link,
		kind,
		vni: info.vni,
		port: info.port,
		uplink,
		ipv6: info.ipv6 && !info.collectMetadata,
		mtu: smallestMtu(link, uplink, info.ipv6 && !info.collectMetadata, network),
		bridge: master?.bridge && master,
		flowBased,
		tosInherit: port?.tosInherit ?? info.tos === TOS_INHERIT,
		ttlInherit: port?.ttlInherit ?? info.ttlInherit,
		dfInherit: info.df === "inherit",
		labelInherit: "labelInherit" in info && info.labelInherit,
		why: whyNot(link, info, uplink, why, flowBased, port?.udpChecksum ?? false),
	};
}

function remotesOf({ collectMetadata }: VxlanInfo | GeneveInfo, network: Network): readonly Ip[] {
	return collectMetadata ? (network.switch?.remotes ?? []) : [];
}

function flowBasedOf(network: Network): NonNullable<Tunnel["flowBased"]> {
	const gateway = findSwitchGateway(network);
	const assumed = network.switch === undefined && gateway?.name === ANTREA_GATEWAY ? ANTREA_ZONES : NO_ZONES;
	return { gateway, zones: network.switch?.zones ?? assumed };
}

/** The device by which the host itself is on its switch, with an address in the pods' network. */
export function findSwitchGateway({ links, addresses }: Pick<Network, "links" | "addresses">): Link | undefined {
	const candidates = links.filter(
		({ ifindex, kind, up }) => isSwitch(kind) && up && addresses.some((address) => address.ifindex === ifindex),
	);
	return candidates.find(({ name }) => name === ANTREA_GATEWAY) ?? candidates[0];
}

/** IFLA_INFO_KIND of an Open vSwitch datapath, and of its own ports. */
export const isSwitch = (kind: string | undefined): boolean => kind === "openvswitch";

/**
 * The largest packet that surely passes: a route into the tunnel, or over the uplink, may allow less than its device. Larger
 * ones take the fallback, which knows which route it is.
 */
function smallestMtu(link: Link, uplink: Link | undefined, ipv6: boolean, { routes }: Network): number {
	const allowed = (device: Link): number =>
		Math.min(
			device.mtu,
			...routes.flatMap((route) => (route.device === device.ifindex && route.mtu ? [route.mtu] : [])),
		);
	return Math.min(allowed(link), uplink ? allowed(uplink) - overheadBytes(ipv6) : link.mtu);
}

/** The device that the tunnel names; else the one with its address; else the one towards a remote host, or any host. */
function findUplink(link: Link, links: readonly Link[], candidates: readonly (number | undefined)[]): Link | undefined {
	const byIndex = new Map(links.map((each) => [each.ifindex, each]));
	// A tunnel address may lie on loopback, and a route to a remote host may lead into the tunnel: look further.
	return candidates
		.map((ifindex) => (ifindex === undefined || ifindex === link.ifindex ? undefined : byIndex.get(ifindex)))
		.find((candidate) => candidate !== undefined && !candidate.loopback);
}

function whyNot(
	link: Link,
	info: VxlanInfo | GeneveInfo,
	uplink: Link | undefined,
	why: string | undefined,
	flowBased: Tunnel["flowBased"],
	usesChecksum: boolean,
): string | undefined {
	const device = `Tunnel device "${link.name}"`;
	if (link.linkNetnsid !== undefined) return `${device} has its underlay in another network namespace`;
	if (flowBased && !flowBased.gateway)
		return `${device} is in metadata mode, and no Open vSwitch with a gateway that has an address is here to choose VNI and remote host`;
	if (flowBased && flowBased.zones.ipv4 === undefined && flowBased.zones.ipv6 === undefined)
		return `${device} belongs to a switch whose connection tracking zone is not known: it is no Antrea bridge; set ovsZone`;
	if (info.vni === 0 && !flowBased) return `${device} has no VNI`;
	if (why !== undefined) return `${device} ${why}`;
	if (usesChecksum) return `${device} computes outer UDP checksums: its port has options:csum=true`;
	if (!flowBased && info.ipv6) {
		// RFC 6936: both ends must agree to do without it.
		const { tx, rx } = info.zeroChecksum6;
		if (!tx) return `${device} computes outer UDP checksums over IPv6; create it with udp6zerocsumtx`;
		if (!rx) return `${device} refuses outer UDP without checksum over IPv6; create it with udp6zerocsumrx`;
	} else if (info.udpChecksum && !flowBased) return `${device} computes outer UDP checksums; create it with noudpcsum`;
	if (!link.up) return `${device} is down`;
	if (!uplink) return `${device} has no uplink: no option, address, route or forwarding entry of it names one`;
	if (!uplink.up) return `${device} has the uplink "${uplink.name}", which is down`;
	if (!uplink.mac) return `${device} has the uplink "${uplink.name}", which is not an Ethernet device`;
	if (uplink.vxlan || uplink.geneve)
		return `${device} has the uplink "${uplink.name}", which is a tunnel device itself`;
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

function defaultRoute(routes: readonly Route[], ipv6: boolean): Route | undefined {
	return routes.find(
		({ table, prefixLength, destination }) =>
			table === RT_TABLE_MAIN && prefixLength === 0 && isIpv6(destination) === ipv6,
	);
}

/** Longest prefix of the main table; of equal ones the first, which the kernel prefers. */
function routeTo(ip: Ip, routes: readonly Route[]): Route | undefined {
	return routes
		.filter((route) => route.table === RT_TABLE_MAIN && contains(route, ip))
		.reduce<Route | undefined>(
			(best, route) => (best && best.prefixLength >= route.prefixLength ? best : route),
			undefined,
		);
}

function contains({ destination, prefixLength }: Route, ip: Ip): boolean {
	if (isIpv6(destination) !== isIpv6(ip)) return false;
	const hostBits = BigInt(8 * (isIpv6(ip) ? IPV6_BYTES : IPV4_BYTES) - prefixLength);
	return BigInt(destination) >> hostBits === BigInt(ip) >> hostBits;
}

function isMulticast(ip: Ip): boolean {
	return isIpv6(ip) ? ip >> 120n === 0xffn : ip >>> 28 === 0xe;
}
