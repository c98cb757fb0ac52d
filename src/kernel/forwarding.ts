// Where this host's fallback sends packets now, as the kernel itself answers: routes, neighbours, forwarding entries.
import { formatIp, type Ip } from "../net/ip.js";
import type { MacAddress } from "../net/mac.js";
import type { Link } from "./link.js";
import type { Rtnetlink } from "./rtnetlink.js";
import { findSwitchGateway, isSwitch } from "./topology.js";

/** The next hop of a route. */
export interface Hop {
	/** ifindex. */
	device: number;
	/** The gateway, or the destination itself. */
	ip: Ip;
	/** Of the neighbour; "failed": nobody answers; undefined: the kernel does not know (any more) and would ask. */
	mac: MacAddress | "failed" | undefined;
}

const NO_MAC = "00:00:00:00:00:00";

/** One look: neighbours and forwarding entries as they were when it was taken, routes as they are when asked for. */
export class Forwarding {
	readonly links: ReadonlyMap<number, Link>;
	/** Of a switch, whose flows decide instead of routes and neighbours. */
	readonly gateway: Link | undefined;
	/** The remote hosts to which its flows lead; undefined: not known. */
	readonly switchRemotes: ReadonlySet<Ip> | undefined;
	readonly #rtnetlink: Rtnetlink;
	readonly #neighbours: ReadonlyMap<string, MacAddress | "failed">;
	readonly #macs: ReadonlySet<string>;
	readonly #remotes: ReadonlyMap<string, ReadonlySet<Ip>>;
	readonly #ports: ReadonlyMap<string, number>;

	/** O(neighbours + forwarding entries). */
	constructor(rtnetlink: Rtnetlink, links: readonly Link[], switchRemotes?: readonly Ip[]) {
		this.#rtnetlink = rtnetlink;
		this.gateway = links.some(({ kind }) => isSwitch(kind))
			? findSwitchGateway({ links, addresses: rtnetlink.addresses() })
			: undefined;
		this.switchRemotes = switchRemotes && new Set(switchRemotes);
		this.links = new Map(links.map((link) => [link.ifindex, link]));
		const neighbours = rtnetlink.neighbours();
		this.#neighbours = new Map(neighbours.map(({ ifindex, ip, mac }) => [neighbourKey(ifindex, ip), mac ?? "failed"]));
		this.#macs = new Set(neighbours.map(({ ifindex, mac }) => `${ifindex} ${mac}`));
		const remotes = new Map<string, Set<Ip>>();
		const ports = new Map<string, number>();
		for (const { ifindex, master, mac, remote } of rtnetlink.fdb())
			if (remote !== undefined) {
				const key = `${ifindex} ${mac}`;
				remotes.set(key, (remotes.get(key) ?? new Set()).add(remote));
			} else if (master !== undefined && ifindex !== master) ports.set(`${master} ${mac}`, ifindex);
		this.#remotes = remotes;
		this.#ports = ports;
	}

	/** Undefined: the kernel has no route. `device` as in Rtnetlink.routesTo(). */
	hops(destinations: readonly Ip[], device?: number): [Ip, Hop | undefined][] {
		const routes = this.#rtnetlink.routesTo(destinations, device);
		return destinations.map((destination, i) => {
			const route = routes[i];
			if (route?.device === undefined) return [destination, undefined];
			const ip = route.gateway ?? destination;
			return [destination, { device: route.device, ip, mac: this.#neighbours.get(neighbourKey(route.device, ip)) }];
		});
	}

	/** The remote hosts to which a vxlan device sends frames for `mac`. */
	remotesOf(tunnel: number, mac: MacAddress): ReadonlySet<Ip> {
		return this.#remotes.get(`${tunnel} ${mac}`) ?? this.#remotes.get(`${tunnel} ${NO_MAC}`) ?? NOBODY;
	}

	/** Whether any neighbour on a device has this MAC address. */
	isNeighbour(device: number, mac: MacAddress): boolean {
		return this.#macs.has(`${device} ${mac}`);
	}

	/** The port behind which a bridge knows `mac`; undefined: it would ask all. */
	portOf(bridge: number, mac: MacAddress): number | undefined {
		return this.#ports.get(`${bridge} ${mac}`);
	}
}

function neighbourKey(ifindex: number, ip: Ip): string {
	return `${ifindex} ${formatIp(ip)}`;
}

const NOBODY: ReadonlySet<Ip> = new Set();
