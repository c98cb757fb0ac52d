// Everything the agent asks the kernel about its network namespace, read in one go.
import { CLSACT_PARENT, isOwnFilter } from "../datapath/attach.js";
import type { Filter, Qdisc } from "../kernel/link.js";
import type { Rtnetlink } from "../kernel/rtnetlink.js";
import { readSysctl } from "../kernel/sysctl.js";
import type { Network } from "../kernel/topology.js";
import type { Switch } from "../ovs/switch.js";

export interface Snapshot extends Network {
	qdiscs: readonly Qdisc[];
	/** Classifiers that are not ONCache's on clsact and ingress qdiscs. */
	filters: readonly Filter[];
	/** What bridges forward passes iptables, and so connection tracking (net.bridge.bridge-nf-call-iptables). */
	bridgesCallIptables: boolean;
	switch?: Switch | undefined;
}

/** O(devices + routes); one more question per device that has a clsact or ingress qdisc. */
export function takeSnapshot(rtnetlink: Rtnetlink, ovs?: Switch): Snapshot {
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
		switch: ovs,
		bridgesCallIptables: Number(readSysctl("net.bridge.bridge-nf-call-iptables") ?? 0) !== 0,
	};
}
