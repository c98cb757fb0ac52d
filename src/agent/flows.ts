// The flow list as the API gives it: names instead of interface numbers.
import type { Datapath } from "../datapath/datapath.js";
import type { Link } from "../kernel/link.js";
import type { Ip } from "../net/ip.js";
import type { FlowList } from "./api.js";

export async function flowList(
	datapath: Datapath,
	links: readonly Link[],
	isCounted: boolean,
	query: { pod?: Ip; peer?: Ip; limit: number },
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
			packets: isCounted ? flow.packets : null,
		})),
	};
}
