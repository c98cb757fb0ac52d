// RTM_NEWADDR, RTM_NEWROUTE and RTM_NEWNEIGH: bytes to Address, Route, FdbEntry, Neighbour
// (include/uapi/linux/if_addr.h, rtnetlink.h, neighbour.h).
import { decodeIp, IPV6_BYTES, type Ip } from "../net/ip.js";
import type { Ipv4 } from "../net/ipv4.js";
import type { Ipv6 } from "../net/ipv6.js";
import { readMac } from "../net/mac.js";
import { parseAttributes } from "./attribute.js";
import type { Address, FdbEntry, Neighbour, Route } from "./link.js";

export const IFADDRMSG_BYTES = 8;
export const RTMSG_BYTES = 12;
export const NDMSG_BYTES = 12;

const IFA = { address: 1, local: 2 };
const RTA = { destination: 1, device: 4, gateway: 5, source: 7, metrics: 8, table: 15 };
const RTAX_MTU = 2;
const RTN_LAST_USABLE = 5;
const NDA = { destination: 1, mac: 2, cacheInfo: 3, master: 9 };
/** NUD_REACHABLE, STALE, DELAY, PROBE, NOARP, PERMANENT: the address may be used. */
const NUD_VALID = 0x02 | 0x04 | 0x08 | 0x10 | 0x40 | 0x80;

const AF_INET6 = 10;

/** IFA_ADDRESS is the peer's on a point-to-point device; IFA_LOCAL is always ours. */
export function decodeAddress(body: Buffer): Address | undefined {
	const attributes = parseAttributes(body, IFADDRMSG_BYTES);
	const bytes = attributes.get(IFA.local) ?? attributes.get(IFA.address);
	const ip = bytes && decodeIp(bytes);
	if (ip === undefined) return undefined;
	return { ifindex: body.readUInt32LE(4), ip, prefixLength: body.readUInt8(1) };
}

/** `device` is undefined for a route that names none: unreachable, blackhole, several next hops. */
export function decodeRoute(body: Buffer): Route {
	const attributes = parseAttributes(body, RTMSG_BYTES);
	const destination = attributes.get(RTA.destination);
	const gateway = attributes.get(RTA.gateway);
	const source = attributes.get(RTA.source);
	const metrics = attributes.get(RTA.metrics);
	return {
		destination: (destination && decodeIp(destination)) ?? anyOf(body.readUInt8(0)),
		prefixLength: body.readUInt8(1),
		gateway: gateway && decodeIp(gateway),
		device: attributes.get(RTA.device)?.readUInt32LE(),
		table: attributes.get(RTA.table)?.readUInt32LE() ?? body.readUInt8(4),
		source: source && decodeIp(source),
		forwards: body.readUInt8(7) <= RTN_LAST_USABLE,
		mtu: metrics && parseAttributes(metrics).get(RTAX_MTU)?.readUInt32LE(),
	};
}

/** The default route names no destination. */
function anyOf(family: number): Ip {
	return family === AF_INET6 ? (0n as Ipv6) : (0 as Ipv4);
}

export function decodeFdbEntry(body: Buffer): FdbEntry | undefined {
	const attributes = parseAttributes(body, NDMSG_BYTES);
	const mac = attributes.get(NDA.mac);
	const remote = attributes.get(NDA.destination);
	if (mac?.length !== 6) return undefined;
	return {
		ifindex: body.readInt32LE(4),
		master: attributes.get(NDA.master)?.readUInt32LE(),
		mac: readMac(mac),
		remote: remote && decodeIp(remote),
	};
}

/**
 * Whether a notification only repeats a request, without what became of it: before Linux 6.13 one follows each change of a tunnel
 * device's entry, and has no remote host (rtnl_fdb_notify() of net/core/rtnetlink.c).
 */
export function isEcho(body: Buffer): boolean {
	return !parseAttributes(body, NDMSG_BYTES).has(NDA.cacheInfo);
}

export function decodeNeighbour(body: Buffer): Neighbour | undefined {
	const attributes = parseAttributes(body, NDMSG_BYTES);
	const bytes = attributes.get(NDA.destination);
	// Nobody is asked for the address of a multicast group, and every device has several.
	if (bytes === undefined || isMulticast(bytes)) return undefined;
	const ip = decodeIp(bytes);
	const mac = attributes.get(NDA.mac);
	if (ip === undefined) return undefined;
	const isValid = (body.readUInt16LE(8) & NUD_VALID) !== 0;
	return {
		ifindex: body.readInt32LE(4),
		ip,
		mac: isValid && mac?.length === 6 ? readMac(mac) : undefined,
	};
}

function isMulticast(bytes: Buffer): boolean {
	const [first = 0] = bytes;
	return bytes.length === IPV6_BYTES ? first === 0xff : first >> 4 === 0xe;
}
