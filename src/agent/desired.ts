// From what the kernel lists to what should be accelerated, with the reason for everything that should not. Pure.
import { CLSACT_PARENT } from "../datapath/attach.js";
import { TUNNELS_MAX } from "../datapath/layout.js";
import type { TunnelEntry, VethEntry, Zones } from "../datapath/types.js";
import type { Link } from "../kernel/link.js";
import { findPodVeths, findSwitchGateway, findTunnels, isSwitch, type Tunnel } from "../kernel/topology.js";
import type { XfrmPolicy } from "../kernel/xfrm.js";
import type { MacAddress } from "../net/mac.js";
import type { PodName } from "./api.js";
import { refusalOf } from "./recognise.js";
import type { Snapshot } from "./snapshot.js";

export interface Choice {
	/** Names of tunnel devices, or all that can be. */
	tunnels: "auto" | readonly string[];
	isExcluded: (veth: string) => boolean;
	/** Why nothing of a switch may be accelerated, one sentence; undefined: it may. */
	whyNoSwitch?: (() => string | undefined) | undefined;
	/** ifindex of veths whose pods do not want to be accelerated. */
	optedOut?: ReadonlyMap<number, PodName> | undefined;
	/** Likewise tunnels over IPv6. */
	whyNoIpv6Underlay?: string | undefined;
}

export const CHOOSE_ALL: Choice = { tunnels: "auto", isExcluded: () => false };

export interface DesiredTunnel {
	tunnel: Tunnel;
	bridging: TunnelEntry["bridging"];
	why: string | null;
}

export interface DesiredVeth {
	link: Link;
	entry: VethEntry;
	why: string | null;
	/** It is not accelerated because the user said so. */
	excluded: boolean;
	/** Its pod said so itself. */
	optedOut?: PodName | undefined;
}

export interface Desired {
	tunnels: DesiredTunnel[];
	veths: DesiredVeth[];
	/** ifindex of each uplink of an accelerated tunnel. */
	uplinks: number[];
}

export const NOTHING: Desired = { tunnels: [], veths: [], uplinks: [] };

const NO_ZONES: Zones = { ipv4: 0, ipv6: 0 };

/** Root qdiscs that do not hold a packet back for a rate. */
const UNSHAPED = ["noqueue", "noop", "pfifo_fast", "pfifo", "bfifo", "fq_codel", "fq", "mq", "clsact", "ingress"];

export function desiredState(snapshot: Snapshot, choice: Choice): Desired {
	const all = findTunnels(snapshot);
	const own = switchOf(all, snapshot, choice);
	const refusal = refusalOf(snapshot.links);
	const tunnels: DesiredTunnel[] = [];
	for (const tunnel of all) {
		const accelerated = tunnels.filter(({ why }) => why === null).length;
		const bridging = !tunnel.bridge ? "none" : isTracked(tunnel.bridge, snapshot) ? "tracked" : "untracked";
		tunnels.push({ tunnel, bridging, why: refusal ?? whyNotTunnel(tunnel, own, choice, snapshot, accelerated) });
	}
	const uplinks = tunnels.flatMap(({ tunnel, why }) => (why === null && tunnel.uplink ? [tunnel.uplink.ifindex] : []));
	return {
		tunnels,
		uplinks: [...new Set(uplinks)],
		veths: findPodVeths(snapshot.links, all)
			.map(({ link }) => desiredVeth(link, own, snapshot, choice))
			.map((veth) => (refusal === undefined ? veth : { ...veth, why: refusal })),
	};
}

export function tunnelEntries(desired: Desired): TunnelEntry[] {
	return desired.tunnels
		.filter(({ why }) => why === null)
		.sort((a, b) => Number(a.tunnel.ipv6) - Number(b.tunnel.ipv6)) // as struct tunnel of bpf/oncache.h has it
		.map(({ tunnel, bridging }) => ({
			kind: tunnel.kind,
			ifindex: tunnel.link.ifindex,
			uplink: tunnel.uplink?.ifindex ?? 0,
			vni: tunnel.vni,
			port: tunnel.port,
			mtu: tunnel.mtu,
			mac: (tunnel.flowBased?.gateway ?? tunnel.bridge ?? tunnel.link).mac ?? ("00:00:00:00:00:00" as MacAddress),
			flowBased: tunnel.flowBased && {
				zones: zonesOf(tunnel),
				gateway: tunnel.flowBased.gateway?.ifindex ?? 0,
			},
			bridging,
			ipv6: tunnel.ipv6,
			labelInherit: tunnel.labelInherit,
			tosInherit: tunnel.tosInherit,
			ttlInherit: tunnel.ttlInherit,
			dfInherit: tunnel.dfInherit,
		}));
}

export function vethEntries(desired: Desired): VethEntry[] {
	return desired.veths.filter(({ why }) => why === null).map(({ entry }) => entry);
}

/** What devices of the host's switch have in common. */
interface OwnSwitch {
	/** Why nothing of it may be accelerated. */
	why: string | null;
	gateway: Link | undefined;
	zones: Zones;
	/** Why its single ports may not be, by name. */
	ports: ReadonlyMap<string, string>;
}

function switchOf(tunnels: readonly Tunnel[], snapshot: Snapshot, { whyNoSwitch }: Choice): OwnSwitch {
	const { userspacePorts = [], diverted = {} } = snapshot.switch ?? {};
	const ports = new Map([...Object.entries(diverted), ...userspacePorts.map((name) => [name, TAPPED] as const)]);
	if (!snapshot.links.some(({ kind }) => isSwitch(kind)))
		return { why: null, gateway: undefined, zones: NO_ZONES, ports };
	const zones = zonesOf(tunnels.find(({ flowBased }) => flowBased));
	return { why: whyNoSwitch?.() ?? null, gateway: findSwitchGateway(snapshot), zones, ports };
}

/** Where a switch tracks one family only, nothing is ever found for the other in its zone. */
function zonesOf(tunnel: Tunnel | undefined): Zones {
	const { ipv4, ipv6 } = tunnel?.flowBased?.zones ?? NO_ZONES;
	return { ipv4: ipv4 ?? ipv6 ?? 0, ipv6: ipv6 ?? ipv4 ?? 0 };
}

function whyNotTunnel(
	tunnel: Tunnel,
	own: OwnSwitch,
	{ tunnels, whyNoIpv6Underlay }: Choice,
	{ ipsec }: Snapshot,
	accelerated: number,
): string | null {
	if (tunnels !== "auto" && !tunnels.includes(tunnel.link.name)) return "Not among the configured tunnels";
	if (tunnel.why !== undefined) return tunnel.why;
	if (tunnel.ipv6 && whyNoIpv6Underlay !== undefined) return whyNoIpv6Underlay;
	if (tunnel.flowBased && own.why !== null) return own.why;
	if (ipsec.some((policy) => encrypts(policy, tunnel)))
		return "IPsec policies of this host encrypt what it sends: the fast path would send it in the clear";
	const port = tunnel.uplink && own.ports.get(tunnel.uplink.name);
	if (port !== undefined) return `Uplink "${tunnel.uplink?.name}": ${port}`;
	return accelerated >= TUNNELS_MAX ? `More than ${TUNNELS_MAX} tunnel devices` : null;
}

/**
 * A packet socket gets a packet before tc ingress does (__netif_receive_skb_core() of net/core/dev.c): what a program
 * redirects there, the switch delivers once more.
 */
const TAPPED =
	"Open vSwitch reads it by a packet socket (userspace datapath), and would deliver a second time what is redirected here";

const UDP = 17;

/** Whether a policy may transform the tunnel's outer packets. */
function encrypts({ family, protocol, port }: XfrmPolicy, tunnel: Tunnel): boolean {
	const isOfFamily = tunnel.flowBased !== undefined || (family === 6) === tunnel.ipv6;
	return isOfFamily && (protocol === 0 || protocol === UDP) && (port === undefined || port === tunnel.port);
}

/** Whether what a bridge forwards passes connection tracking. */
function isTracked({ bridge }: Link, { bridgesCallIptables }: Snapshot): boolean {
	return bridgesCallIptables || (bridge?.callsIptables ?? false);
}

function desiredVeth(link: Link, own: OwnSwitch, snapshot: Snapshot, choice: Choice): DesiredVeth {
	const { links, qdiscs, filters } = snapshot;
	const classifiers = filters.filter(({ ifindex }) => ifindex === link.ifindex);
	const before = classifiers.find(({ parent }) => parent !== CLSACT_PARENT.egress);
	const optedOut = choice.optedOut?.get(link.ifindex);
	const excluded = choice.isExcluded(link.name) || optedOut !== undefined;
	const isShaped = qdiscs.some(({ ifindex, kind }) => ifindex === link.ifindex && !UNSHAPED.includes(kind));
	const master = links.find(({ ifindex }) => ifindex === link.master);
	const isOnSwitch = isSwitch(master?.kind);
	const why = optedOut
		? `Pod ${optedOut.namespace}/${optedOut.name} is opted out`
		: excluded
			? "Excluded by the configuration"
			: before
				? `A ${before.kind} classifier${before.bpfName ? ` "${before.bpfName}"` : ""} on its ingress must see every packet`
				: link.up
					? (own.ports.get(link.name) ?? (isOnSwitch ? own.why : null))
					: "The device is down";
	return {
		link,
		why,
		excluded,
		optedOut,
		entry: {
			ifindex: link.ifindex,
			// bpf_redirect_peer would pass by the qdisc and the classifiers of its egress, and by a netkit device's own programs.
			shaped: isShaped || link.kind === "netkit" || classifiers.some(({ parent }) => parent === CLSACT_PARENT.egress),
			mtu: Math.min(link.mtu, master?.mtu ?? link.mtu),
			router: master === undefined ? link.mac : isOnSwitch ? own.gateway?.mac : master.bridge && master.mac,
			untracked: master?.bridge !== undefined && !isTracked(master, snapshot),
			zones: isOnSwitch ? own.zones : NO_ZONES,
		},
	};
}
