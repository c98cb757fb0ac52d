// Asks the kernel for the network devices, addresses, routes and classifiers of the network namespace it was opened in.
import { encodeIp, type Ip, isIpv6 } from "../net/ip.js";
import { encodeAttribute, encodeU32, parseAttributes } from "./attribute.js";
import { decodeLink, IFINFOMSG_BYTES } from "./decode-link.js";
import {
	decodeAddress,
	decodeFdbEntry,
	decodeNeighbour,
	decodeRoute,
	IFADDRMSG_BYTES,
	NDMSG_BYTES,
	RTMSG_BYTES,
} from "./decode-route.js";
import { decodeFilter, decodeQdisc, TCMSG_BYTES } from "./decode-tc.js";
import { KernelError } from "./error.js";
import type { Address, FdbEntry, Filter, Link, Neighbour, Qdisc, Route } from "./link.js";
import { NETLINK_ROUTE, Netlink } from "./netlink.js";

const RTM_GETLINK = 18;
const RTM_GETNSID = 90;
const RTM_GETADDR = 22;
const RTM_GETROUTE = 26;
const RTM_GETNEIGH = 30;
const RTM_GETQDISC = 38;
const RTM_GETTFILTER = 46;
const AF_INET = 2;
const AF_INET6 = 10;
const FAMILIES = [AF_INET, AF_INET6];
const AF_BRIDGE = 7;
const RTA_DST = 1;
const RTA_SRC = 2;
const RTA_OIF = 4;
const IFLA_IFNAME = 3;
const IFLA_EXT_MASK = 29;
const IFLA_TARGET_NETNSID = 46;
/** struct rtgenmsg, padded. */
const RTGENMSG_BYTES = 4;
const NETNSA_NSID = 1;
const NETNSA_FD = 3;
/** Counters are half of an answer, and nobody asks for them. */
const RTEXT_FILTER_SKIP_STATS = 8;

/** What is known of the sender of a packet whose route is asked for. */
export interface RouteFrom {
	/** ifindex: the socket is bound to it, as that of a vxlan device with an underlay device is. */
	device?: number | undefined;
	/**
	 * Its address, one of this host and of the destinations' family. Over IPv6 a bound socket without one finds only routes over
	 * its device (ip6_route_output_flags() of net/ipv6/route.c), and no blackhole.
	 */
	source?: Ip | undefined;
}

export class Rtnetlink {
	readonly #netlink: Netlink;

	private constructor(netlink: Netlink) {
		this.#netlink = netlink;
	}

	static open(): Rtnetlink {
		return new Rtnetlink(Netlink.open(NETLINK_ROUTE));
	}

	links(): Link[] {
		const body = Buffer.concat([Buffer.alloc(IFINFOMSG_BYTES), encodeU32(IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS)]);
		return this.#netlink.dump({ type: RTM_GETLINK, body, action: "list network devices" }, decodeLink);
	}

	/** @param netnsid where it is, by nsidOf(); undefined: here. @returns undefined where there is no such device */
	link(name: string, netnsid?: number): Link | undefined {
		const body = Buffer.concat([
			Buffer.alloc(IFINFOMSG_BYTES),
			encodeAttribute(IFLA_IFNAME, Buffer.from(`${name}\0`)),
			encodeU32(IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS),
			...(netnsid === undefined ? [] : [encodeU32(IFLA_TARGET_NETNSID, netnsid)]),
		]);
		try {
			return this.#netlink.request({ type: RTM_GETLINK, body, action: `find the device "${name}"` }, decodeLink)[0];
		} catch (error) {
			if (error instanceof KernelError && error.code === "ENODEV") return undefined;
			throw error;
		}
	}

	/**
	 * The number by which devices here name another network namespace (Link.linkNetnsid); undefined where none does.
	 * @param fd of that namespace
	 */
	nsidOf(fd: number): number | undefined {
		const body = Buffer.concat([Buffer.alloc(RTGENMSG_BYTES), encodeU32(NETNSA_FD, fd)]);
		const [nsid = -1] = this.#netlink.request(
			{ type: RTM_GETNSID, body, action: "find a network namespace" },
			(answer) => parseAttributes(answer, RTGENMSG_BYTES).get(NETNSA_NSID)?.readInt32LE(0),
		);
		return nsid < 0 ? undefined : nsid;
	}

	/** Of both families. */
	addresses(): Address[] {
		return this.#dumpBoth({ type: RTM_GETADDR, bytes: IFADDRMSG_BYTES, action: "list addresses" }, decodeAddress);
	}

	/** Of both families, all tables. Of several to one destination in one table the kernel names the preferred one first. */
	routes(): Route[] {
		return this.#dumpBoth({ type: RTM_GETROUTE, bytes: RTMSG_BYTES, action: "list routes" }, decodeRoute);
	}

	/**
	 * Where the kernel would send a packet of this host to each address, policy rules included; undefined where it
	 * would not.
	 */
	routesTo(destinations: readonly Ip[], from: RouteFrom = {}): (Route | undefined)[] {
		const { device, source } = from;
		const bound = Buffer.concat([
			...(device === undefined ? [] : [encodeU32(RTA_OIF, device)]),
			...(source === undefined ? [] : [encodeAttribute(RTA_SRC, encodeIp(source))]),
		]);
		const bodies = destinations.map((ip) => {
			const address = encodeIp(ip);
			const body = Buffer.alloc(RTMSG_BYTES);
			body.writeUInt8(isIpv6(ip) ? AF_INET6 : AF_INET, 0);
			body.writeUInt8(8 * address.length, 1);
			if (source !== undefined) body.writeUInt8(8 * address.length, 2);
			return Buffer.concat([body, encodeAttribute(RTA_DST, address), bound]);
		});
		return this.#netlink.requestMany({ type: RTM_GETROUTE, bodies, action: "look routes up" }, (answer) => {
			const route = decodeRoute(answer);
			return route.forwards && route.device !== undefined ? route : undefined;
		});
	}

	/** Of all bridges and vxlan devices, or of one device. */
	fdb(ifindex = 0): FdbEntry[] {
		const body = Buffer.alloc(NDMSG_BYTES);
		body.writeUInt8(AF_BRIDGE, 0);
		body.writeInt32LE(ifindex, 4);
		const action = `list the forwarding entries of ${ifindex === 0 ? "all devices" : `device ${ifindex}`}`;
		return this.#netlink.dump({ type: RTM_GETNEIGH, body, action }, decodeFdbEntry);
	}

	/** Of both families and all devices. */
	neighbours(): Neighbour[] {
		return this.#dumpBoth({ type: RTM_GETNEIGH, bytes: NDMSG_BYTES, action: "list neighbours" }, decodeNeighbour);
	}

	/** Of all devices. */
	qdiscs(): Qdisc[] {
		const body = Buffer.alloc(TCMSG_BYTES);
		return this.#netlink.dump({ type: RTM_GETQDISC, body, action: "list qdiscs" }, decodeQdisc);
	}

	/** @param parent 0xfffffff2 clsact/ingress, 0xfffffff3 clsact egress, else a qdisc's handle */
	filters(ifindex: number, parent: number): Filter[] {
		const body = Buffer.alloc(TCMSG_BYTES);
		body.writeInt32LE(ifindex, 4);
		body.writeUInt32LE(parent, 12);
		const action = `list the classifiers of device ${ifindex}`;
		return this.#netlink.dump({ type: RTM_GETTFILTER, body, action }, decodeFilter);
	}

	close(): void {
		this.#netlink.close();
	}

	/** `bytes` is the length of a request, which begins with the family. */
	#dumpBoth<T>(
		{ type, bytes, action }: { type: number; bytes: number; action: string },
		decode: (body: Buffer) => T | undefined,
	): T[] {
		return FAMILIES.flatMap((family) => {
			const body = Buffer.alloc(bytes);
			body.writeUInt8(family, 0);
			// A kernel without IPv6 answers for all families that it has.
			return this.#netlink.dump({ type, body, action }, (answer) =>
				answer.readUInt8(0) === family ? decode(answer) : undefined,
			);
		});
	}
}
