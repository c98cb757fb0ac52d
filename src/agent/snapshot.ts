// Everything the agent asks the kernel about its network namespace, read in one go.
import { CLSACT_PARENT, isOwnFilter } from "../datapath/attach.js";
import type { Filter, Qdisc } from "../kernel/link.js";
import type { Rtnetlink } from "../kernel/rtnetlink.js";
import { readSysctl } from "../kernel/sysctl.js";
import type { Network } from "../kernel/topology.js";
import { sendingPolicies, type XfrmPolicy } from "../kernel/xfrm.js";
import type { Switch } from "../ovs/switch.js";
import type { NetworkStatus } from "./api.js";
import { readNetworkConfiguration } from "./network-configuration.js";
import { recognise } from "./recognise.js";

export interface Snapshot extends Network {
	qdiscs: readonly Qdisc[];
	/** Classifiers that are not ONCache's on clsact and ingress qdiscs. */
	filters: readonly Filter[];
	/** What bridges forward passes iptables, and so connection tracking (net.bridge.bridge-nf-call-iptables). */
	bridgesCallIptables: boolean;
	switch?: Switch | undefined;
	/** IPsec policies for what this host sends. */
	ipsec: readonly XfrmPolicy[];
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
		ipsec: sendingPolicies(),
		bridgesCallIptables: Number(readSysctl("net.bridge.bridge-nf-call-iptables") ?? 0) !== 0,
	};
}

/** @param confDir where the CNI's configuration is, or "auto" */
export function networkOf(links: Snapshot["links"], confDir: string): NetworkStatus {
	const { dir, plugins } = readNetworkConfiguration(confDir);
	return recognise({ links, plugins, confDir: dir });
}
