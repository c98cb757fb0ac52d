// Why packets took the fallback, and why the fallback taught nothing, in words. Pure.
import type { Lesson, Reason } from "../datapath/layout.js";

export interface Explanation {
	why: string;
	/** null: it is as it should be. */
	todo: string | null;
}

const asItShould = (why: string): Explanation => ({ why, todo: null });

export const REASON_TEXT: Record<Reason, Explanation> = {
	paused: asItShould("using the cache was switched off; oncache resume switches it on"),
	not_ipv4: asItShould("neither IPv4 nor IPv6, such as ARP"),
	vlan: asItShould("a VLAN tag"),
	truncated: asItShould("headers that are not there, or lengths that lie"),
	ip_options: asItShould("IP options"),
	fragment: asItShould("a fragment: only the kernel can put it together"),
	checksum: asItShould("a wrong IP header checksum"),
	ttl: asItShould("at its last hop: the kernel answers"),
	protocol: asItShould("neither TCP, UDP nor an ICMP echo"),
	tcp_flags: asItShould("opens or closes a TCP connection: connection tracking must see it"),
	outer: asItShould(
		"an outer header that is not replayed: IP options, fragment, UDP checksum, VXLAN flags, more Geneve options than fit",
	),
	vni: asItShould("another overlay's VNI"),
	flow_miss: asItShould("a flow that is new, unanswered, or was evicted"),
	reverse: asItShould("a flow of which only one direction was seen"),
	stale: asItShould("a flow that the overlay has not confirmed within maxStalenessMs"),
	sample: asItShould("sent through the overlay to confirm its flow"),
	host_miss: asItShould("its remote host was evicted"),
	pod_miss: asItShould("its pod was evicted"),
	veth: { why: "from another veth than its flow's: a pod forges addresses, or they have moved", todo: "oncache flows" },
	mac: { why: "other MAC addresses than its flow's: forged, or they have changed", todo: "oncache flows" },
	peer: { why: "from another host, VNI or uplink than its flow's: forged, or it has moved", todo: "oncache verify" },
	mtu: asItShould("larger than the path allows: the kernel answers or cuts it"),
	refused: asItShould("the kernel made no room for the outer header"),
	backoff: asItShould("of a flow that the overlay declined just now: it is asked again soon"),
	dscp: { why: "its own DSCP uses the bits of dscp mode", todo: "Use metadata mode, or other DSCP values" },
	drop: { why: "dropped: it could not be completed after it was changed", todo: "Report it, please" },
	overload: { why: "more flows than the filter cache has room for", todo: "Raise cache.filter or cache.filter6" },
	extension: asItShould("an IPv6 extension header"),
	scope: asItShould("a link-local, multicast or IPv4-mapped IPv6 address"),
	ipv6: asItShould("IPv6, which dscp mode leaves alone"),
	options: asItShould("other Geneve options than its flow's: they vary, or have changed"),
};

/** Of questions that were answered with no. */
export const LESSON_TEXT: Record<Exclude<Lesson, "learned" | "confirmed">, Explanation> = {
	paused: asItShould("learning was paused, or something had just been evicted"),
	unfit: asItShould("the overlay sent it in a way that cannot be replayed, such as with Geneve options that vary"),
	not_established: asItShould("connection tracking has not seen both directions"),
	nat: asItShould("translated to another protocol or family"),
	device: asItShould("through a device that is not accelerated"),
	full: { why: "no room for another host or pod", todo: "Raise cache.egress or cache.ingress" },
	forged: { why: "a mark that ONCache has not set", todo: "Some pod uses the bits of dscp mode: use metadata mode" },
	conflict: {
		why: "from the other side of the tunnel than a flow in use with these addresses: one of them is forged, or a pod has moved",
		todo: "oncache flows, and look who has the address",
	},
	opted_out: asItShould("of a pod that is opted out by oncache.io/accelerate"),
	helper: asItShould("a conntrack helper or adjusted sequence numbers: it must see every packet"),
};
