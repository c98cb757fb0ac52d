// The tunnel of world.ts over IPv6:
//
//   pod 10.244.1.2, fd00:10:244:1::2 --- pod0   flannel.1   up0 --- host fd00:77::2, pods 10.244.2.2 and fd00:10:244:2::2
import { inner6, track6 } from "./ipv6.js";
import { type Ipv6Header, ipv6 } from "./packet.js";
import {
	datagram, inner, type L4, MARK, type OuterOptions, onWire, toPod, track, type Way, type World,
} from "./world.js"; // biome-ignore format: a list

export const LOCAL_HOST6 = "fd00:77::1";
export const REMOTE_HOST6 = "fd00:77::2";
/** Ethernet, IPv6, UDP, VXLAN, inner Ethernet. */
export const OUTER6_BYTES = 14 + 40 + 8 + 8 + 14;

/** Before Linux 6.3 an inner packet as large as an IPv6 header is the least that the kernel decapsulates. */
export const PAYLOAD = "hello, hello, hello";

/** Inner packets of either family: what the pod says, and what it is answered. */
export const INNER = {
	ipv4: (l4: L4, direction: "egress" | "ingress", ttl?: number, tos?: number): Buffer =>
		inner(l4, direction, { ...(ttl !== undefined && { ttl }), ...(tos !== undefined && { tos }) }, PAYLOAD),
	ipv6: (l4: L4, direction: "egress" | "ingress", hopLimit?: number, tclass?: number): Buffer =>
		inner6(l4, direction, { ...(hopLimit !== undefined && { hopLimit }), ...(tclass !== undefined && { tclass }) }),
};
export type Family = keyof typeof INNER;

export interface Outer6Options extends Omit<OuterOptions, "ip"> {
	ip?: Partial<Ipv6Header>;
	/** Changes the UDP datagram, its length included: Geneve. */
	rewrite?: (datagram: Buffer) => Buffer;
}

function encapsulated6(way: Way, packet: Uint8Array, options: Outer6Options): Buffer {
	const { ip, rewrite = (same) => same, ...rest } = options;
	const [source, destination] = way === "out" ? [LOCAL_HOST6, REMOTE_HOST6] : [REMOTE_HOST6, LOCAL_HOST6];
	return onWire(way, ipv6({ source, destination, nextHeader: 17, ...ip }, rewrite(datagram(way, packet, rest))), rest);
}

/** As the tunnel device sends it. */
export function outbound6(packet: Uint8Array, options: Outer6Options = {}): Buffer {
	return encapsulated6("out", packet, options);
}

/** As it arrives from the remote host. */
export function inbound6(packet: Uint8Array, options: Outer6Options = {}): Buffer {
	return encapsulated6("in", packet, options);
}

/** Both init programs see the flow carried by the fallback. */
export function teachOver6(world: World, family: Family, l4: L4, options: Outer6Options = {}): void {
	if (family === "ipv4") track(l4);
	else track6(l4);
	world.run("egress_init", outbound6(INNER[family](l4, "egress", 63), options), { mark: MARK });
	world.run("ingress_init", toPod(INNER[family](l4, "ingress", 62)), { mark: MARK });
}
