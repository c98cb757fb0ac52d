// Where this host's fallback sends packets now, as the kernel itself answers: routes, neighbours, forwarding entries.
import type { Ip } from "../net/ip.js";
import type { MacAddress } from "../net/mac.js";
import { ByDevice } from "./by-device.js";
import type { Address, Link } from "./link.js";
import type { RouteFrom, Rtnetlink } from "./rtnetlink.js";
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

const NO_MAC = "00:00:00:00:00:00" as MacAddress;

/** One look: neighbours and forwarding entries as they were when it was taken, routes as they are when asked for. */
export class Forwarding {
	readonly links: ReadonlyMap<number, Link>;
	readonly addresses: readonly Address[];
	/** Of a switch, whose flows decide instead of routes and neighbours. */
	readonly gateway: Link | undefined;
	/** The remote hosts to which its flows lead; undefined: not known. */
	readonly switchRemotes: ReadonlySet<Ip> | undefined;
	readonly #rtnetlink: Rtnetlink;
	readonly #neighbours = new ByDevice<Ip, MacAddress | "failed">();
	/** Of vxlan devices. */
	readonly #remotes = new ByDevice<MacAddress, Set<Ip>>();
	/** Of bridges. */
	readonly #ports = new ByDevice<MacAddress, number>();

	/** O(neighbours + forwarding entries). */
	constructor(rtnetlink: Rtnetlink, links: readonly Link[], switchRemotes?: readonly Ip[]) {
		this.#rtnetlink = rtnetlink;
		this.addresses = rtnetlink.addresses();
		this.gateway = links.some(({ kind }) => isSwitch(kind))
			? findSwitchGateway({ links, addresses: this.addresses })
			: undefined;
		this.switchRemotes = switchRemotes && new Set(switchRemotes);
		this.links = new Map(links.map((link) => [link.ifindex, link]));
		for (const { ifindex, ip, mac } of rtnetlink.neighbours()) this.#neighbours.set(ifindex, ip, mac ?? "failed");
		for (const { ifindex, master, mac, remote } of rtnetlink.fdb())
			if (remote !== undefined) {
				const known = this.#remotes.get(ifindex, mac);
				if (known) known.add(remote);
				else this.#remotes.set(ifindex, mac, new Set([remote]));
			} else if (master !== undefined && ifindex !== master) this.#ports.set(master, mac, ifindex);
	}

	/** Undefined: the kernel has no route. */
	hops(destinations: readonly Ip[], from?: RouteFrom): [Ip, Hop | undefined][] {
		const routes = this.#rtnetlink.routesTo(destinations, from);
		return destinations.map((destination, i) => {
			const route = routes[i];
			if (route?.device === undefined) return [destination, undefined];
			const ip = route.gateway ?? destination;
			return [destination, { device: route.device, ip, mac: this.#neighbours.get(route.device, ip) }];
		});
	}

	/** The remote hosts to which a vxlan device sends frames for `mac`. */
	remotesOf(tunnel: number, mac: MacAddress): ReadonlySet<Ip> {
		return this.#remotes.get(tunnel, mac) ?? this.#remotes.get(tunnel, NO_MAC) ?? NOBODY;
	}

	/** Whether any neighbour on a device has this MAC address. O(neighbours there). */
	isNeighbour(device: number, mac: MacAddress): boolean {
		for (const each of this.#neighbours.values(device)) if (each === mac) return true;
		return false;
	}

	/** The port behind which a bridge knows `mac`; undefined: it would ask all. */
	portOf(bridge: number, mac: MacAddress): number | undefined {
		return this.#ports.get(bridge, mac);
	}
}

const NOBODY: ReadonlySet<Ip> = new Set();
