// RTM_NEWADDR, RTM_NEWROUTE and RTM_NEWNEIGH of bridges: bytes to Address, Route, FdbEntry
// (include/uapi/linux/if_addr.h, rtnetlink.h, neighbour.h).
import { type Ipv4, readIpv4 } from "../net/ipv4.js";
import { readMac } from "../net/mac.js";
import { parseAttributes } from "./attribute.js";
import type { Address, FdbEntry, Route } from "./link.js";

export const IFADDRMSG_BYTES = 8;
export const RTMSG_BYTES = 12;
export const NDMSG_BYTES = 12;

const IFA = { address: 1, local: 2 };
const RTA = { destination: 1, device: 4, gateway: 5, table: 15 };
const NDA = { destination: 1, mac: 2 };

const IPV4_BYTES = 4;

/** IFA_ADDRESS is the peer's on a point-to-point device; IFA_LOCAL is always ours. */
export function decodeAddress(body: Buffer): Address | undefined {
	const attributes = parseAttributes(body, IFADDRMSG_BYTES);
	const ip = attributes.get(IFA.local) ?? attributes.get(IFA.address);
	if (ip === undefined) return undefined;
	return { ifindex: body.readUInt32LE(4), ip: readIpv4(ip), prefixLength: body.readUInt8(1) };
}

/** `device` is undefined for a route that names none: unreachable, blackhole, several next hops. */
export function decodeRoute(body: Buffer): Route {
	const attributes = parseAttributes(body, RTMSG_BYTES);
	const destination = attributes.get(RTA.destination);
	const gateway = attributes.get(RTA.gateway);
	return {
		destination: destination ? readIpv4(destination) : (0 as Ipv4),
		prefixLength: body.readUInt8(1),
		gateway: gateway && readIpv4(gateway),
		device: attributes.get(RTA.device)?.readUInt32LE(),
		table: attributes.get(RTA.table)?.readUInt32LE() ?? body.readUInt8(4),
	};
}

export function decodeFdbEntry(body: Buffer): FdbEntry | undefined {
	const attributes = parseAttributes(body, NDMSG_BYTES);
	const mac = attributes.get(NDA.mac);
	const remote = attributes.get(NDA.destination);
	if (mac === undefined) return undefined;
	return {
		ifindex: body.readInt32LE(4),
		mac: readMac(mac),
		remote: remote?.length === IPV4_BYTES ? readIpv4(remote) : undefined,
	};
}
