// What is known of neighbours and forwarding entries, so that of the many notifications about them only those count that say
// something else than before: every neighbour announces each of its states.
import { formatIp } from "../net/ip.js";
import { decodeFdbEntry, decodeNeighbour, isEcho } from "./decode-route.js";
import type { FdbEntry, Neighbour } from "./link.js";
import type { Message } from "./netlink.js";
import { Rtnetlink } from "./rtnetlink.js";

const RTM_DELNEIGH = 29;
const AF_INET = 2;
const AF_INET6 = 10;
const AF_BRIDGE = 7;

export class Neighbours {
	/** Where each address leads to: a MAC address, a port, a remote host. */
	readonly #known = new Map<string, string>();

	constructor() {
		this.read();
	}

	/** All again. O(neighbours + forwarding entries). */
	read(): void {
		const rtnetlink = Rtnetlink.open();
		try {
			this.#known.clear();
			for (const entry of rtnetlink.neighbours()) this.#learn(neighbourKey(entry), entry.mac);
			for (const entry of rtnetlink.fdb()) this.#learn(fdbKey(entry), fdbTarget(entry));
		} finally {
			rtnetlink.close();
		}
	}

	/** @returns whether something that was known is not so any more; what is new alone has never been relied upon */
	apply(message: Message): boolean {
		const isGone = message.type === RTM_DELNEIGH;
		const family = message.body.readUInt8(0);
		if (family === AF_INET || family === AF_INET6) {
			const entry = decodeNeighbour(message.body);
			return entry !== undefined && this.#learn(neighbourKey(entry), isGone ? undefined : entry.mac);
		}
		if (family !== AF_BRIDGE || isEcho(message.body)) return false;
		const entry = decodeFdbEntry(message.body);
		return entry !== undefined && this.#learn(fdbKey(entry), isGone ? undefined : fdbTarget(entry));
	}

	#learn(key: string, target: string | undefined): boolean {
		const before = this.#known.get(key);
		if (target === undefined) this.#known.delete(key);
		else this.#known.set(key, target);
		return before !== undefined && before !== target;
	}
}

function neighbourKey({ ifindex, ip }: Neighbour): string {
	return `${ifindex} ${formatIp(ip)}`;
}

function fdbKey({ ifindex, master, mac }: FdbEntry): string {
	return `${master === undefined ? ifindex : `of ${master}`} ${mac}`;
}

function fdbTarget({ ifindex, remote }: FdbEntry): string {
	return `${ifindex} ${remote === undefined ? "" : formatIp(remote)}`;
}
