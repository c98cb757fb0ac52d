// oncache flows: the filter cache, readable.
import { Command } from "commander";
import { getFlows } from "../agent/access.js";
import type { FlowStatus, PodName, VerdictStatus } from "../agent/api.js";
import { formatEnd, parseIp } from "../net/ip.js";
import { table } from "./output.js";
import { countArgument, ipArgument, type PlaceOptions, printJson, withPlace } from "./place.js";

const DEFAULT_LIMIT = 100;

export function flowsCommand(): Command {
	return withPlace(new Command("flows"))
		.description("list the cached flows")
		.option("--pod <ip>", "only of this local pod", ipArgument)
		.option("--peer <ip>", "only with this remote pod", ipArgument)
		.option("--limit <n>", "flows to show", countArgument, DEFAULT_LIMIT)
		.option("--json", "machine-readable")
		.addHelpText(
			"after",
			`
In a cluster, addresses have the names of their pods and nodes. The host is the remote host that a flow goes to, or the veth of the other pod when both are on this host. A flow whose
addresses this host translates (a Service) is listed as each end sees it: the pod, and the wire or the other pod.

A verdict is usable (with its age since the fallback last confirmed it), stale (too old: the next packet asks again),
void (flushed, or its pod or host has changed) or none (that direction was never learned).

Examples:
  oncache flows --pod 10.244.1.2
  oncache flows --limit 10 --json`,
		)
		.action(async ({ pod, peer, limit, ...options }: PlaceOptions & { pod?: string; peer?: string; limit: number }) => {
			const query = { ...(pod && { pod: parseIp(pod) }), ...(peer && { peer: parseIp(peer) }), limit };
			const text = new URLSearchParams({ ...(pod && { pod }), ...(peer && { peer }), limit: String(limit) });
			const list = await getFlows(options, query, String(text));
			if (options.json) printJson(list);
			else {
				console.log(
					table(list.flows, [
						{ title: "proto", text: (flow) => flow.protocol },
						{ title: "local", text: ({ local, localPod }) => end(local, localPod) },
						{ title: "remote", text: ({ remote, remotePod }) => end(remote, remotePod) },
						{ title: "veth", text: (flow) => flow.veth ?? "-" },
						{ title: "host", text: (flow) => flow.node ?? flow.host ?? flow.peerVeth ?? "-" },
						{ title: "translated", text: translated },
						{ title: "egress", text: (flow) => verdict(flow.egress) },
						{ title: "ingress", text: (flow) => verdict(flow.ingress) },
						{ title: "packets", text: packets, align: "right" },
					]),
				);
				console.log(`\n${list.flows.length} of ${list.total} flows`);
			}
		});
}

function end({ ip, port }: FlowStatus["local"], pod: PodName | null): string {
	return pod ? `${formatEnd(ip, port)} ${pod.namespace}/${pod.name}` : formatEnd(ip, port);
}

function verdict({ state, ageMs }: VerdictStatus): string {
	return ageMs === null ? state : `${state} ${ageMs} ms`;
}

/** Only the end that changes. */
function translated({ local, remote, translated }: FlowStatus): string {
	if (!translated) return "-";
	const changed = [
		[local, translated.local],
		[remote, translated.remote],
	] as const;
	return changed
		.filter(([from, to]) => from.ip !== to.ip || from.port !== to.port)
		.map(([, { ip, port }]) => formatEnd(ip, port))
		.join(" ");
}

function packets({ packets }: FlowStatus): string {
	return packets ? `${packets.egress} / ${packets.ingress}` : "-";
}
