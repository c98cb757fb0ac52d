// Asks the kernel for the network devices, addresses, routes and classifiers of the network namespace it was opened in.
import { encodeU32 } from "./attribute.js";
import { decodeLink, IFINFOMSG_BYTES } from "./decode-link.js";
import {
	decodeAddress,
	decodeFdbEntry,
	decodeRoute,
	IFADDRMSG_BYTES,
	NDMSG_BYTES,
	RTMSG_BYTES,
} from "./decode-route.js";
import { decodeFilter, decodeQdisc, TCMSG_BYTES } from "./decode-tc.js";
import type { Address, FdbEntry, Filter, Link, Qdisc, Route } from "./link.js";
import { NETLINK_ROUTE, Netlink } from "./netlink.js";

const RTM_GETLINK = 18;
const RTM_GETADDR = 22;
const RTM_GETROUTE = 26;
const RTM_GETNEIGH = 30;
const RTM_GETQDISC = 38;
const RTM_GETTFILTER = 46;
const AF_INET = 2;
const AF_BRIDGE = 7;
const IFLA_EXT_MASK = 29;
/** Counters are half of an answer, and nobody asks for them. */
const RTEXT_FILTER_SKIP_STATS = 8;

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

	/** IPv4. */
	addresses(): Address[] {
		const body = Buffer.alloc(IFADDRMSG_BYTES);
		body.writeUInt8(AF_INET, 0);
		return this.#netlink.dump({ type: RTM_GETADDR, body, action: "list addresses" }, decodeAddress);
	}

	/** IPv4, all tables. Of several to one destination in one table the kernel names the preferred one first. */
	routes(): Route[] {
		const body = Buffer.alloc(RTMSG_BYTES);
		body.writeUInt8(AF_INET, 0);
		return this.#netlink.dump({ type: RTM_GETROUTE, body, action: "list routes" }, decodeRoute);
	}

	/** Of one device. */
	fdb(ifindex: number): FdbEntry[] {
		const body = Buffer.alloc(NDMSG_BYTES);
		body.writeUInt8(AF_BRIDGE, 0);
		body.writeInt32LE(ifindex, 4);
		const action = `list the forwarding entries of device ${ifindex}`;
		return this.#netlink.dump({ type: RTM_GETNEIGH, body, action }, decodeFdbEntry);
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
}
