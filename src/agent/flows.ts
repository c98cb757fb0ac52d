// The flow list as the API gives it: names instead of interface numbers.
import type { Datapath } from "../datapath/datapath.js";
import type { Link } from "../kernel/link.js";
import type { Ip } from "../net/ip.js";
import type { FlowList, PodName } from "./api.js";

/** What addresses are called in the cluster; null: not known. */
export interface Names {
	podAt(ip: string): PodName | null;
	nodeAt(ip: string): string | null;
}

export const NO_NAMES: Names = { podAt: () => null, nodeAt: () => null };

export async function flowList(
	datapath: Datapath,
	links: readonly Link[],
	isCounted: boolean,
	query: { pod?: Ip; peer?: Ip; limit: number },
	namesOf: Names = NO_NAMES,
): Promise<FlowList> {
	const { total, flows } = await datapath.flows(query);
	const names = new Map(links.map(({ ifindex, name }) => [ifindex, name]));
	const nameOf = (ifindex: number | null): string | null => (ifindex === null ? null : (names.get(ifindex) ?? null));
	return {
		total,
		flows: flows.map((flow) => ({
			...flow,
			veth: nameOf(flow.veth),
			peerVeth: nameOf(flow.peerVeth),
			localPod: namesOf.podAt(flow.local.ip),
			remotePod: namesOf.podAt(flow.remote.ip),
			node: flow.host === null ? null : namesOf.nodeAt(flow.host),
			packets: isCounted ? flow.packets : null,
		})),
	};
}
