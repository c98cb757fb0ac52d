// Puts together what `oncache status` says: from the datapath, the kernel's lists, and the agent if there is one.
import { release } from "node:os";
import type { Datapath } from "../datapath/datapath.js";
import type { CachedPod } from "../datapath/types.js";
import { formatIp, type Ip, isIpv6 } from "../net/ip.js";
import type { Counts, PodName, PodStatus, Status, TunnelStatus } from "./api.js";
import type { Desired } from "./desired.js";
import type { Names } from "./flows.js";

export interface StatusSources {
	version: string;
	/** Undefined: nothing of ONCache is in this network namespace. */
	datapath: Datapath | undefined;
	desired: Desired;
	agent: { pid: number; startedAt: string } | undefined;
	markMode: Status["markMode"];
	/** What failed or is in the way, one sentence each. */
	problems: readonly string[];
	coherency: Status["coherency"];
	cni: Status["cni"];
	network: Status["network"];
	kubernetes: Status["kubernetes"];
	names: Names;
}

const NO_COUNTS: Counts = { fast: 0, fallback: {} };

/** O(flows) for the number of flows, in chunks; everything else is O(devices + slots). */
export async function buildStatus(sources: StatusSources): Promise<Status> {
	const { datapath, desired, agent } = sources;
	const problems = [...(sources.network.refused ? [sources.network.plan] : []), ...sources.problems];
	const attachments = (datapath?.attachments() ?? []).filter(({ gone }) => !gone);
	const isAttached = (ifindex: number): boolean => attachments.filter((at) => at.ifindex === ifindex).length === 2;
	const learned = addressesByVeth(datapath?.pods() ?? []);
	const pods = desired.veths.map(({ link, why, excluded, optedOut }): PodStatus & { excluded: boolean } => {
		// The programs on the device of a pod that is being removed go with it.
		const attached = isAttached(link.ifindex) && (why === null || agent === undefined);
		return {
			veth: link.name,
			ip: learned.get(link.ifindex)?.[0] ?? null,
			addresses: learned.get(link.ifindex) ?? [],
			pod: podOf(learned.get(link.ifindex) ?? [], sources.names) ?? optedOut ?? null,
			attached,
			why: attached ? null : (why ?? whyNotAttached(sources)),
			excluded,
		};
	});
	const tunnels = desired.tunnels.map(({ tunnel, why }): TunnelStatus => {
		const accelerated = why === null && tunnel.uplink !== undefined && isAttached(tunnel.uplink.ifindex);
		return {
			name: tunnel.link.name,
			kind: tunnel.kind,
			vni: tunnel.vni,
			port: tunnel.port,
			uplink: tunnel.uplink?.name ?? null,
			accelerated,
			why: accelerated ? null : (why ?? whyNotAttached(sources)),
		};
	});
	const counters = datapath?.counters();
	const cached = datapath?.cached ?? { egress: 0, ingress: 0 };
	const capacities = datapath?.capacities ?? { filter: 0, egress: 0, ingress: 0 };
	const flows = datapath ? (await datapath.flows({ limit: 0 })).total : 0;
	const using = datapath?.using ?? false;
	const learning = datapath?.learning ?? false;
	return {
		...stateOf({ tunnels, pods, using, learning, problems, isThere: attachments.length > 0 }),
		version: sources.version,
		kernel: release(),
		agent: { running: agent !== undefined, pid: agent?.pid ?? null, startedAt: agent?.startedAt ?? null },
		attach: attachments[0]?.kind ?? null,
		markMode: sources.markMode,
		learning,
		using,
		maxStalenessMs: datapath?.maxStalenessMs ?? null,
		tunnels,
		pods: pods.map(({ excluded: _, ...pod }) => pod),
		caches: {
			filter: { entries: flows, capacity: capacities.filter },
			egress: { entries: cached.egress, capacity: capacities.egress },
			ingress: { entries: cached.ingress, capacity: capacities.ingress },
		},
		packets: counters?.packets ?? { egress: NO_COUNTS, ingress: NO_COUNTS },
		bytes: counters?.bytes ?? { egress: NO_COUNTS, ingress: NO_COUNTS },
		coherency: sources.coherency,
		cni: sources.cni,
		network: sources.network,
		kubernetes: sources.kubernetes,
		lessons: datapath?.lessons() ?? { egress: {}, ingress: {} },
	};
}

/** IPv4 first. */
function addressesByVeth(pods: readonly CachedPod[]): Map<number, string[]> {
	const found = new Map<number, string[]>();
	const isFirst = (ip: Ip): number => (isIpv6(ip) ? 1 : 0);
	for (const { veth, ip } of [...pods].sort((a, b) => isFirst(a.ip) - isFirst(b.ip)))
		found.set(veth, [...(found.get(veth) ?? []), formatIp(ip)]);
	return found;
}

function podOf(addresses: readonly string[], names: Names): PodName | null {
	return addresses.map((ip) => names.podAt(ip)).find((pod) => pod !== null) ?? null;
}

function whyNotAttached({ agent, datapath, problems }: StatusSources): string {
	if (problems[0]) return problems[0];
	return agent || datapath ? "Not attached yet" : "No agent runs here: start oncache agent";
}

interface Facts {
	tunnels: TunnelStatus[];
	pods: (PodStatus & { excluded: boolean })[];
	using: boolean;
	learning: boolean;
	problems: readonly string[];
	isThere: boolean;
}

function stateOf(facts: Facts): Pick<Status, "state" | "why"> {
	const { tunnels, pods, using, learning, problems, isThere } = facts;
	const off: string[] = [];
	if (!isThere) off.push("Nothing is attached in this network namespace");
	if (isThere && !using) off.push("Using the cache is paused: oncache resume");
	if (tunnels.length === 0) off.push("No tunnel device was found");
	else if (!tunnels.some(({ accelerated }) => accelerated)) off.push("No tunnel device is accelerated");
	if (off.length > 0) return { state: "off", why: [...new Set([...off, ...problems])] };
	const degraded = [
		...problems,
		...(learning ? [] : ["Learning is paused: oncache resume"]),
		...tunnels.filter(({ why }) => why !== null).map(({ name, why }) => `${name}: ${why}`),
		...pods.filter(({ why, excluded }) => why !== null && !excluded).map(({ veth, why }) => `${veth}: ${why}`),
	];
	return degraded.length > 0 ? { state: "degraded", why: degraded } : { state: "accelerating", why: [] };
}
