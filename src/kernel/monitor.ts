// Says that something about the network changed, and of what kind; what exactly, the listener reads again itself.
import koffi from "koffi";
import { KernelError } from "./error.js";
import { NETLINK_ROUTE, Netlink } from "./netlink.js";

/** "overrun": the kernel dropped notifications, so anything may have changed. */
export type Change = "link" | "address" | "route" | "neighbour" | "tc" | "overrun";

export interface WatchOptions {
	signal: AbortSignal;
	onChange: (changes: ReadonlySet<Change>) => void;
	/** What the kernel keeps while the program is busy; half of it is the kernel's own bookkeeping. */
	bufferBytes?: number;
	/** Whether watching keeps the process alive. */
	keepAlive?: boolean;
}

/** RTNLGRP_LINK, NEIGH (ARP and bridge forwarding entries), TC, IPV4_IFADDR, IPV4_ROUTE. */
const GROUPS = [1, 3, 4, 5, 7];

/** By message type / 4: each kind has a block of four types (new, delete, get, set). */
const KINDS = new Map<number, Change>([
	[16 / 4, "link"],
	[20 / 4, "address"],
	[24 / 4, "route"],
	[28 / 4, "neighbour"],
	[36 / 4, "tc"],
	[40 / 4, "tc"],
	[44 / 4, "tc"],
	[48 / 4, "tc"],
	[100 / 4, "tc"],
]);

/** Datagrams per wake-up, so that a flood cannot hold up the rest of the program. */
const DRAIN_LIMIT = 4096;

const READABLE = { readable: true };

/** Calls `onChange` once for everything that came together, until `signal` aborts. */
export function watchNetwork(options: WatchOptions): void {
	const { signal, onChange, bufferBytes = 4 << 20, keepAlive = true } = options;
	if (signal.aborted) return;
	const netlink = Netlink.open(NETLINK_ROUTE, GROUPS);
	netlink.setReceiveBuffer(bufferBytes);
	const wake = () => {
		if (signal.aborted) return;
		const changes = drain(netlink);
		// The overrun was an error on the socket (POLLERR), and libuv stops polling then.
		if (changes.has("overrun")) handle.start(READABLE, wakeSoon);
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

function drain(netlink: Netlink): Set<Change> {
	const changes = new Set<Change>();
	for (let datagram = 0; datagram < DRAIN_LIMIT; datagram++) {
		try {
			const messages = netlink.poll();
			if (messages === undefined) break;
			for (const message of messages) {
				const kind = KINDS.get(message.type >> 2);
				if (kind !== undefined) changes.add(kind);
			}
		} catch (error) {
			if (!(error instanceof KernelError) || error.code !== "ENOBUFS") throw error;
			changes.add("overrun");
		}
	}
	return changes;
}
