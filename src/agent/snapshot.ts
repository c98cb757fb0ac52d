// Everything the agent asks the kernel about its network namespace, read in one go.
import { CLSACT_PARENT, isOwnFilter } from "../datapath/attach.js";
import type { Filter, Qdisc } from "../kernel/link.js";
import type { Rtnetlink } from "../kernel/rtnetlink.js";
import type { Network } from "../kernel/topology.js";

export interface Snapshot extends Network {
	qdiscs: readonly Qdisc[];
	/** Classifiers that are not ONCache's on clsact and ingress qdiscs. */
	filters: readonly Filter[];
}

/** O(devices + routes); one more question per device that has a clsact or ingress qdisc. */
export function takeSnapshot(rtnetlink: Rtnetlink): Snapshot {
	const links = rtnetlink.links();
	const qdiscs = rtnetlink.qdiscs();
	const classifying = qdiscs.filter(({ kind }) => kind === "clsact" || kind === "ingress");
	return {
		links,
		addresses: rtnetlink.addresses(),
		routes: rtnetlink.routes(),
		fdb: links.filter(({ vxlan }) => vxlan).flatMap(({ ifindex }) => rtnetlink.fdb(ifindex)),
		qdiscs,
		filters: classifying
			.flatMap(({ ifindex, kind }) => [
				...rtnetlink.filters(ifindex, CLSACT_PARENT.ingress),
				...(kind === "clsact" ? rtnetlink.filters(ifindex, CLSACT_PARENT.egress) : []),
			])
			.filter((filter) => !isOwnFilter(filter)),
	};
}
