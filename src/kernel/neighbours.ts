// What is known of neighbours and forwarding entries, so that of the many notifications about them only those count that say
// something else than before: every neighbour announces each of its states.
import type { Ip } from "../net/ip.js";
import type { MacAddress } from "../net/mac.js";
import { ByDevice } from "./by-device.js";
import { decodeFdbEntry, decodeNeighbour, isEcho } from "./decode-route.js";
import type { FdbEntry, Neighbour } from "./link.js";
import type { Message } from "./netlink.js";
import { Rtnetlink } from "./rtnetlink.js";

const RTM_DELNEIGH = 29;
const AF_INET = 2;
const AF_INET6 = 10;
const AF_BRIDGE = 7;
const NO_REMOTE = "none";

export class Neighbours {
	/** Of each neighbour. */
	readonly #macs = new ByDevice<Ip, MacAddress>();
	/** Of vxlan devices: the remote host behind a MAC address. */
	readonly #remotes = new ByDevice<MacAddress, Ip | typeof NO_REMOTE>();
	/** Of bridges: the port behind which a MAC address is. */
	readonly #ports = new ByDevice<MacAddress, number>();

	constructor() {
		this.read();
	}

	/** All again. O(neighbours + forwarding entries). */
	read(): void {
		const rtnetlink = Rtnetlink.open();
		try {
			for (const map of [this.#macs, this.#remotes, this.#ports]) map.clear();
			for (const entry of rtnetlink.neighbours()) this.#learnNeighbour(entry, false);
			for (const entry of rtnetlink.fdb()) this.#learnEntry(entry, false);
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
			return entry !== undefined && this.#learnNeighbour(entry, isGone);
		}
		if (family !== AF_BRIDGE || isEcho(message.body)) return false;
		const entry = decodeFdbEntry(message.body);
		return entry !== undefined && this.#learnEntry(entry, isGone);
	}

	#learnNeighbour({ ifindex, ip, mac }: Neighbour, isGone: boolean): boolean {
		return learn(this.#macs, ifindex, ip, isGone ? undefined : mac);
	}

	#learnEntry({ ifindex, master, mac, remote }: FdbEntry, isGone: boolean): boolean {
		return master === undefined
			? learn(this.#remotes, ifindex, mac, isGone ? undefined : (remote ?? NO_REMOTE))
			: learn(this.#ports, master, mac, isGone ? undefined : ifindex);
	}
}

function learn<Key, Value>(known: ByDevice<Key, Value>, device: number, key: Key, value: Value | undefined): boolean {
	const before = known.get(device, key);
	if (value === undefined) known.delete(device, key);
	else known.set(device, key, value);
	return before !== undefined && before !== value;
}
