// Compares what is cached with what the kernel would do now. The agent evicts what differs; `oncache verify` prints it.
import type { Datapath } from "../datapath/datapath.js";
import { type FlowChunk, FlowKeys } from "../datapath/flows.js";
import type { CachedHost, CachedPod } from "../datapath/types.js";
import type { Forwarding, Hop } from "../kernel/forwarding.js";
import type { Link } from "../kernel/link.js";
import { isSwitch } from "../kernel/topology.js";
import { formatEnd, formatIp, type Ip } from "../net/ip.js";

/** One cached decision that is not the kernel's any more. */
export interface Difference {
	cache: "egress" | "ingress" | "filter";
	/** "host 192.168.77.2", "pod 10.244.1.2", "flow tcp 10.244.1.2:80 10.244.2.2:4000". */
	entry: string;
	/** What the kernel says and the cache does not, one sentence. */
	why: string;
}

/** What a comparison found. */
export interface Comparison {
	checked: { hosts: number; pods: number; flows: number };
	differences: Difference[];
	/** Entries that differ. */
	total: number;
}

export interface ComparisonOptions {
	/** Evict what differs: hosts and pods as soon as they are known, before the flows are gone through. */
	evict?: boolean;
	/** The datapath is not to be touched any more. */
	isOver?: () => boolean;
	/** An entry that the kernel knows nothing about any more counts as a difference: right after it was told to forget. */
	strict?: boolean;
	/** Flows that connection tracking does not know; asked only by `oncache verify`. */
	isTracked?: (chunk: FlowChunk, i: number) => boolean;
	/** Differences to describe; all are counted and evicted. Default 1000. */
	limit?: number;
}

const LIMIT = 1000;
const PROTOCOLS: Record<number, string> = { 1: "icmp", 6: "tcp", 17: "udp", 58: "icmp" };

/** What a comparison compares with, and what becomes of it. */
class Judge {
	readonly checked = { hosts: 0, pods: 0, flows: 0 };
	readonly differences: Difference[] = [];
	total = 0;
	readonly #limit: number;

	constructor(limit: number) {
		this.#limit = limit;
	}

	/** @returns whether it differs */
	note(cache: Difference["cache"], entry: () => string, why: string | undefined): boolean {
		if (why === undefined) return false;
		this.total++;
		if (this.differences.length < this.#limit) this.differences.push({ cache, entry: entry(), why });
		return true;
	}
}

/** Hosts and pods at once, then the flows in slices. */
export async function compare(
	datapath: Datapath,
	forwarding: Forwarding,
	options: ComparisonOptions = {},
): Promise<Comparison> {
	const slots = compareSlots(datapath, forwarding, options);
	const flows = await compareFlows(datapath, forwarding, options);
	return {
		checked: { ...slots.checked, flows: flows.checked.flows },
		differences: [...slots.differences, ...flows.differences],
		total: slots.total + flows.total,
	};
}

/**
 * What each host's header and each pod's veth would be now. With one of them all its flows are gone.
 * O(slots), and one question to the kernel for each.
 */
export function compareSlots(
	datapath: Datapath,
	forwarding: Forwarding,
	{ strict = false, limit = LIMIT, evict = false }: ComparisonOptions = {},
): Comparison {
	const judge = new Judge(limit);
	const own = new Set(forwarding.addresses.map(({ ip }) => ip));
	const hosts = datapath.hosts();
	const pods = datapath.pods();
	const hops = new Map(forwarding.hops(pods.map(({ ip }) => ip)));
	const wrongHosts = hosts.filter((host) =>
		judge.note("egress", () => `host ${formatIp(host.remote)}`, whyNotHost(host, forwarding, own, strict)),
	);
	if (evict && wrongHosts.length > 0) datapath.retireHosts(isOneOf(wrongHosts));
	const wrongPods = pods.filter((pod) =>
		judge.note("ingress", () => `pod ${formatIp(pod.ip)}`, whyNotPod(pod, hops.get(pod.ip), forwarding, strict)),
	);
	if (evict && wrongPods.length > 0) datapath.retirePods(isOneOf(wrongPods));
	return { ...judge, checked: { hosts: hosts.length, pods: pods.length, flows: 0 } };
}

/** Where each flow would go now. O(flows), in slices, and one question to the kernel for each remote address. */
export async function compareFlows(
	datapath: Datapath,
	forwarding: Forwarding,
	{ strict = false, limit = LIMIT, isTracked, evict = false, isOver = () => false }: ComparisonOptions = {},
): Promise<Comparison> {
	const judge = new Judge(limit);
	const hosts = new Map(datapath.hosts().map((host) => [host.slot, host]));
	const pods = new Map(datapath.pods().map((pod) => [pod.slot, pod]));
	const isFresh = datapath.freshness();
	const hops = new Map<Ip, Hop | undefined>();
	let flows = 0;
	await datapath.scanFlows((chunk) => {
		if (isOver()) return;
		for (const [ip, hop] of forwarding.hops(newRemotes(chunk, hops))) hops.set(ip, hop);
		const wrong = new FlowKeys();
		for (let i = 0; i < chunk.count; i++) {
			const host = isFresh(chunk, i, "egress") ? hosts.get(chunk.slot(i, "egress")) : undefined;
			const pod = isFresh(chunk, i, "ingress") ? pods.get(chunk.slot(i, "ingress")) : undefined;
			const isHost = host?.generation === chunk.generation(i, "egress");
			const isPod = pod?.generation === chunk.generation(i, "ingress");
			if (!isHost && !isPod) continue; // nobody uses it any more
			flows++;
			const why =
				(isHost ? whyNotThere(host, hops.get(chunk.remotePodIp(i)), forwarding, strict) : undefined) ??
				(isPod && pod.ip !== chunk.localPodIp(i) ? `It is delivered to the pod ${formatIp(pod.ip)}` : undefined) ??
				(isTracked?.(chunk, i) === false ? "Connection tracking does not know it" : undefined);
			if (judge.note("filter", () => `flow ${nameOf(chunk, i)}`, why)) wrong.add(chunk, i);
		}
		// Now, not when all have been looked at: that may take a while.
		if (evict && wrong.count > 0) datapath.evictFlows(wrong);
	});
	return { ...judge, checked: { hosts: 0, pods: 0, flows } };
}

function isOneOf(entries: readonly { slot: number; generation: number }[]) {
	return ({ slot: { generation } }: { slot: { generation: number } }, slot: number): boolean =>
		entries.some((entry) => entry.slot === slot && entry.generation === generation);
}

function whyNotHost(
	host: CachedHost,
	forwarding: Forwarding,
	own: ReadonlySet<Ip>,
	strict: boolean,
): string | undefined {
	const tunnel = forwarding.links.get(host.tunnel);
	if (!tunnel?.up || !(tunnel.vxlan || tunnel.geneve)) return "Its tunnel device is gone or down";
	const uplink = forwarding.links.get(host.uplink);
	if (!uplink?.up) return "Its uplink is gone or down";
	const isSwitched = isFlowBased(tunnel);
	const router = (isSwitched ? forwarding.gateway : forwarding.links.get(routerOf(host.tunnel, forwarding))) ?? tunnel;
	if (!host.bridged && router.mac !== host.tunnelMac) return `"${router.name}" has the MAC address ${router.mac}`;
	if (uplink.mac !== host.uplinkMac) return `The uplink "${uplink.name}" has the MAC address ${uplink.mac}`;
	if (!own.has(host.local)) return `${formatIp(host.local)} is not an address of this host`;
	const isThere = isSwitched
		? (forwarding.switchRemotes?.has(host.remote) ?? true)
		: tunnel.geneve
			? tunnel.geneve.remote === host.remote
			: forwarding.remotesOf(host.tunnel, host.peerMac).has(host.remote);
	if (!isThere) return `"${tunnel.name}" does not send frames for ${host.peerMac} there`;
	const port = host.bridged ? forwarding.portOf(router.ifindex, host.peerMac) : undefined;
	if (port !== undefined && port !== host.tunnel)
		return `The bridge knows ${host.peerMac} behind ${nameOfLink(port, forwarding.links)}`;
	if (strict && !host.bridged && !isSwitched && !forwarding.isNeighbour(router.ifindex, host.peerMac))
		return `No neighbour on "${tunnel.name}" has the MAC address ${host.peerMac}`;
	const [[, hop] = []] = forwarding.hops([host.remote], { device: tunnel.vxlan?.link, source: host.local });
	return whyNotHop(hop, host.uplink, host.nextHopMac, forwarding, strict);
}

/** Of the flow's own route; a bridge that pods and tunnel device share has none. */
function whyNotThere(
	host: CachedHost,
	hop: Hop | undefined,
	forwarding: Forwarding,
	strict: boolean,
): string | undefined {
	if (host.bridged || isFlowBased(forwarding.links.get(host.tunnel))) return undefined;
	return whyNotHop(hop, routerOf(host.tunnel, forwarding), host.peerMac, forwarding, strict);
}

/** The flows of a switch decide where it sends what; routes and neighbours do not. */
function isFlowBased(tunnel: Link | undefined): boolean {
	return (tunnel?.vxlan ?? tunnel?.geneve)?.collectMetadata ?? false;
}

/** The device that this host's routes lead to: the tunnel device, or the bridge that it is a port of. */
function routerOf(tunnel: number, { links }: Forwarding): number {
	const master = links.get(tunnel)?.master;
	return master !== undefined && links.get(master)?.bridge ? master : tunnel;
}

function whyNotPod(pod: CachedPod, hop: Hop | undefined, forwarding: Forwarding, strict: boolean): string | undefined {
	const veth = forwarding.links.get(pod.veth);
	if (!veth?.up) return "Its veth is gone or down";
	const device = veth.master ?? veth.ifindex;
	const isSwitched = isSwitch(forwarding.links.get(device)?.kind);
	const why = isSwitched ? undefined : whyNotHop(hop, device, pod.mac, forwarding, strict);
	if (why !== undefined) return why;
	const gateway = isSwitched ? forwarding.gateway : forwarding.links.get(device);
	if (gateway?.mac !== pod.gatewayMac) return `Its gateway has the MAC address ${gateway?.mac}`;
	const port = veth.master === undefined ? undefined : forwarding.portOf(veth.master, pod.mac);
	return port === undefined || port === pod.veth
		? undefined
		: `The bridge knows ${pod.mac} behind ${nameOfLink(port, forwarding.links)}`;
}

function whyNotHop(
	hop: Hop | undefined,
	device: number,
	mac: string,
	{ links }: Forwarding,
	strict: boolean,
): string | undefined {
	if (hop === undefined) return "There is no route to it";
	if (hop.device !== device) return `Its route leads to ${nameOfLink(hop.device, links)}`;
	if (hop.mac === "failed" || (hop.mac === undefined && strict)) return `The neighbour ${formatIp(hop.ip)} is gone`;
	return hop.mac === undefined || hop.mac === mac
		? undefined
		: `The neighbour ${formatIp(hop.ip)} has the MAC address ${hop.mac}`;
}

function nameOfLink(ifindex: number, links: ReadonlyMap<number, Link>): string {
	return `"${links.get(ifindex)?.name ?? ifindex}"`;
}

function newRemotes(chunk: FlowChunk, known: ReadonlyMap<Ip, unknown>): Ip[] {
	const found = new Set<Ip>();
	for (let i = 0; i < chunk.count; i++) if (!known.has(chunk.remotePodIp(i))) found.add(chunk.remotePodIp(i));
	return [...found];
}

function nameOf(chunk: FlowChunk, i: number): string {
	const { proto, localIp, localPort, remoteIp, remotePort } = chunk.tuple(i);
	const [local, remote] = [formatEnd(formatIp(localIp), localPort), formatEnd(formatIp(remoteIp), remotePort)];
	return `${PROTOCOLS[proto] ?? proto} ${local} ${remote}`;
}
