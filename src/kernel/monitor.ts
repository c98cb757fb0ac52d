// Says that something about the network changed, and of what kind; what exactly, the listener reads again itself.
import koffi from "koffi";
import { parseAttributes } from "./attribute.js";
import { KernelError } from "./error.js";
import { Neighbours } from "./neighbours.js";
import { type Message, NETLINK_NETFILTER, NETLINK_ROUTE, Netlink } from "./netlink.js";

/**
 * "neighbour": what was known is not so any more: another MAC address, another port, another remote host, or none.
 * "ruleset": the nftables ruleset (that of iptables-nft too), or the forwarding settings of a device.
 * "conntrack": an entry ended in a way that its filter does not understand.
 * "overrun": the kernel dropped notifications, so anything may have changed.
 */
export type Change = "link" | "address" | "route" | "neighbour" | "tc" | "ruleset" | "conntrack" | "overrun";

export interface WatchOptions {
	signal: AbortSignal;
	onChange: (changes: ReadonlySet<Change>) => void;
	/** What the kernel keeps while the program is busy; half of it is the kernel's own bookkeeping. */
	bufferBytes?: number;
	/** Whether watching keeps the process alive. */
	keepAlive?: boolean;
}

/**
 * RTNLGRP_LINK, NEIGH (neighbours and bridge forwarding entries), TC; _IFADDR, _ROUTE, _RULE and _NETCONF of IPV4 and of IPV6;
 * NEXTHOP.
 */
const GROUPS = [1, 3, 4, 5, 7, 8, 24, 9, 11, 19, 25, 32];
const NFNLGRP_CONNTRACK_DESTROY = 3;
const NFNLGRP_NFTABLES = 7;
/** Told last in a transaction, when the new rules hold (nf_tables_gen_notify). */
const NFT_MSG_NEWGEN = (10 << 8) | 15;

/** By message type / 4: each kind has a block of four types (new, delete, get, set). */
const KINDS = new Map<number, Change>([
	[16 / 4, "link"],
	[20 / 4, "address"],
	[24 / 4, "route"],
	[32 / 4, "route"], // policy rules
	[36 / 4, "tc"],
	[40 / 4, "tc"],
	[44 / 4, "tc"],
	[48 / 4, "tc"],
	[100 / 4, "tc"],
	[104 / 4, "route"], // next hop objects
]);
const NEIGHBOUR = 28 / 4;
/** RTM_NEWNETCONF: a setting of a device changed, such as forwarding; one that has just been made tells them all. */
const NETCONF = 80 / 4;
const NETCONFMSG_BYTES = 4;
const IFINDEX_AND_ONE_SETTING = 2;

/** Datagrams per wake-up, so that a flood cannot hold up the rest of the program. */
const DRAIN_LIMIT = 4096;

const READABLE = { readable: true };

/** Calls `onChange` once for everything that came together, until `signal` aborts. */
export function watchNetwork(options: WatchOptions): void {
	if (options.signal.aborted) return;
	const netlink = Netlink.open(NETLINK_ROUTE, GROUPS);
	const neighbours = new Neighbours();
	const kindOf = (message: Message): Change | undefined => {
		const kind = message.type >> 2;
		if (kind === NEIGHBOUR) return neighbours.apply(message) ? "neighbour" : undefined;
		if (kind !== NETCONF) return KINDS.get(kind);
		const { size } = parseAttributes(message.body, NETCONFMSG_BYTES);
		return size === IFINDEX_AND_ONE_SETTING ? "ruleset" : undefined;
	};
	watch(netlink, options, kindOf, () => neighbours.read());
}

/** Likewise, of the nftables ruleset. */
export function watchRuleset(options: WatchOptions): void {
	if (options.signal.aborted) return;
	watch(Netlink.open(NETLINK_NETFILTER, [NFNLGRP_NFTABLES]), options, ({ type }) =>
		type === NFT_MSG_NEWGEN ? "ruleset" : undefined,
	);
}

/** Has `filterFd`, a socket filter program, see every connection tracking entry that ends; reports what it lets through. */
export function watchConntrack(options: WatchOptions & { filterFd: number }): void {
	if (options.signal.aborted) return;
	const netlink = Netlink.open(NETLINK_NETFILTER, []);
	netlink.setFilter(options.filterFd);
	netlink.join(NFNLGRP_CONNTRACK_DESTROY);
	watch(netlink, options, () => "conntrack");
}

function watch(
	netlink: Netlink,
	options: WatchOptions,
	kindOf: (message: Message) => Change | undefined,
	onOverrun: () => void = () => {},
): void {
	const { signal, onChange, bufferBytes = 4 << 20, keepAlive = true } = options;
	netlink.setReceiveBuffer(bufferBytes);
	const wake = () => {
		if (signal.aborted) return;
		const { changes, isMore } = drain(netlink, kindOf);
		// The overrun was an error on the socket (POLLERR), and libuv stops polling then.
		if (changes.has("overrun")) {
			handle.start(READABLE, wakeSoon);
			onOverrun();
		}
		if (isMore) wakeSoon();
		if (changes.size > 0) onChange(changes);
	};
	// Not within koffi's callback, which swallows exceptions. koffi polls only while somebody refers to the handle: `wake` does.
	const wakeSoon = () => void setImmediate(wake);
	const handle = koffi.node.poll(netlink.fd, READABLE, wakeSoon);
	if (!keepAlive) handle.unref();
	signal.addEventListener(
		"abort",
		() => {
			handle.close();
			netlink.close();
		},
		{ once: true },
	);
}

function drain(
	netlink: Netlink,
	kindOf: (message: Message) => Change | undefined,
): { changes: Set<Change>; isMore: boolean } {
	const changes = new Set<Change>();
	for (let datagram = 0; datagram < DRAIN_LIMIT; datagram++) {
		try {
			const messages = netlink.poll();
			if (messages === undefined) return { changes, isMore: false };
			for (const message of messages) {
				const kind = kindOf(message);
				if (kind !== undefined) changes.add(kind);
			}
		} catch (error) {
			// A message that cannot be read says no less than one that was dropped.
			if (!(error instanceof RangeError) && !(error instanceof KernelError && error.code === "ENOBUFS")) throw error;
			changes.add("overrun");
		}
	}
	return { changes, isMore: true };
}
