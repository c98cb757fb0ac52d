// From what the kernel lists to what should be accelerated, with the reason for everything that should not. Pure.
import { CLSACT_PARENT } from "../datapath/attach.js";
import { TUNNELS_MAX } from "../datapath/layout.js";
import type { TunnelEntry, VethEntry } from "../datapath/types.js";
import type { Link } from "../kernel/link.js";
import { findPodVeths, findTunnels, type Tunnel } from "../kernel/topology.js";
import type { MacAddress } from "../net/mac.js";
import type { Snapshot } from "./snapshot.js";

export interface Choice {
	/** Names of tunnel devices, or all that can be. */
	tunnels: "auto" | readonly string[];
	isExcluded: (veth: string) => boolean;
}

export const CHOOSE_ALL: Choice = { tunnels: "auto", isExcluded: () => false };

export interface DesiredTunnel {
	tunnel: Tunnel;
	why: string | null;
}

export interface DesiredVeth {
	link: Link;
	entry: VethEntry;
	why: string | null;
	/** It is not accelerated because the user said so. */
	excluded: boolean;
}

export interface Desired {
	tunnels: DesiredTunnel[];
	veths: DesiredVeth[];
	/** ifindex of each uplink of an accelerated tunnel. */
	uplinks: number[];
}

export const NOTHING: Desired = { tunnels: [], veths: [], uplinks: [] };

/** Root qdiscs that do not hold a packet back for a rate. */
const UNSHAPED = ["noqueue", "noop", "pfifo_fast", "pfifo", "bfifo", "fq_codel", "fq", "mq", "clsact", "ingress"];

export function desiredState(snapshot: Snapshot, choice: Choice): Desired {
	const all = findTunnels(snapshot);
	const tunnels: DesiredTunnel[] = [];
	for (const tunnel of all) {
		const accelerated = tunnels.filter(({ why }) => why === null).length;
		tunnels.push({ tunnel, why: whyNotTunnel(tunnel, choice, accelerated) });
	}
	const uplinks = tunnels.flatMap(({ tunnel, why }) => (why === null && tunnel.uplink ? [tunnel.uplink.ifindex] : []));
	return {
		tunnels,
		uplinks: [...new Set(uplinks)],
		veths: findPodVeths(snapshot.links, all).map(({ link }) => desiredVeth(link, snapshot, choice)),
	};
}

export function tunnelEntries(desired: Desired): TunnelEntry[] {
	return desired.tunnels
		.filter(({ why }) => why === null)
		.map(({ tunnel }) => ({
			ifindex: tunnel.link.ifindex,
			uplink: tunnel.uplink?.ifindex ?? 0,
			vni: tunnel.vni,
			port: tunnel.port,
			mtu: tunnel.mtu,
			mac: tunnel.link.mac ?? ("00:00:00:00:00:00" as MacAddress),
			tosInherit: tunnel.tosInherit,
			ttlInherit: tunnel.ttlInherit,
			dfInherit: tunnel.dfInherit,
		}));
}

export function vethEntries(desired: Desired): VethEntry[] {
	return desired.veths.filter(({ why }) => why === null).map(({ entry }) => entry);
}

function whyNotTunnel(tunnel: Tunnel, { tunnels }: Choice, accelerated: number): string | null {
	if (tunnels !== "auto" && !tunnels.includes(tunnel.link.name)) return "Not among the configured tunnels";
	if (tunnel.why !== undefined) return tunnel.why;
	return accelerated >= TUNNELS_MAX ? `More than ${TUNNELS_MAX} tunnel devices` : null;
}

function desiredVeth(link: Link, { links, qdiscs, filters }: Snapshot, choice: Choice): DesiredVeth {
	const own = filters.filter(({ ifindex }) => ifindex === link.ifindex);
	const before = own.find(({ parent }) => parent !== CLSACT_PARENT.egress);
	const excluded = choice.isExcluded(link.name);
	const isShaped = qdiscs.some(({ ifindex, kind }) => ifindex === link.ifindex && !UNSHAPED.includes(kind));
	const why = excluded
		? "Excluded by the configuration"
		: before
			? `A ${before.kind} classifier${before.bpfName ? ` "${before.bpfName}"` : ""} on its ingress must see every packet`
			: !link.up
				? "The device is down"
				: null;
	const bridge = links.find(({ ifindex }) => ifindex === link.master);
	return {
		link,
		why,
		excluded,
		entry: {
			ifindex: link.ifindex,
			// bpf_redirect_peer would pass by the qdisc and the classifiers of its egress.
			shaped: isShaped || own.some(({ parent }) => parent === CLSACT_PARENT.egress),
			mtu: Math.min(link.mtu, bridge?.mtu ?? link.mtu),
		},
	};
}
