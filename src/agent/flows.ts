// The flow list as the API gives it: names instead of interface numbers.
import type { Datapath } from "../datapath/datapath.js";
import type { Link } from "../kernel/link.js";
import type { Ipv4 } from "../net/ipv4.js";
import type { FlowList } from "./api.js";

export async function flowList(
	datapath: Datapath,
	links: readonly Link[],
	isCounted: boolean,
	query: { pod?: Ipv4; peer?: Ipv4; limit: number },
): Promise<FlowList> {
	const { total, flows } = await datapath.flows(query);
	const names = new Map(links.map(({ ifindex, name }) => [ifindex, name]));
	return {
		total,
		flows: flows.map((flow) => ({
			...flow,
			veth: flow.veth === null ? null : (names.get(flow.veth) ?? null),
			packets: isCounted ? flow.packets : null,
		})),
	};
}
