/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * The contract between the eBPF programs and the agent: vocabulary, structs,
 * enums and limits. No code. src/datapath/layout.ts is generated from the BTF
 * of this file; a test fails when the two differ.
 *
 * Typedefs carry unit and byte order: ipv4_t, ipv6_t, port_t, vni_t and tunnel_word_t are big endian
 * (as on the wire), everything else is host order.
 */
#ifndef ONCACHE_H
#define ONCACHE_H

#include <linux/types.h>

/* Changes whenever the meaning of a map changes without changing its size. */
#define ONCACHE_CONTRACT 6

typedef __be32 ipv4_t;
typedef struct { __be32 w[4]; } ipv6_t;	/* where both families may be, IPv4 is ::ffff:a.b.c.d (RFC 4291, section 2.5.5.2) */
typedef __be16 port_t;
typedef __be32 tunnel_word_t;	/* the first word of the tunnel header */
typedef __be32 vni_t;		/* as in the tunnel header: VNI << 8, RFC 7348 and 8926 */
/*
 * The kernel's tick counter. Read by one load, where every clock helper costs
 * a chain of calls: 50 ns less per packet. Its length is the resolution of
 * CLOCK_MONOTONIC_COARSE.
 */
typedef __u64 jiffies_t;
typedef __u32 ifindex_t;

/* A MAC address, zero-padded so that it is compared as one word. */
typedef struct { __u8 b[6]; __u8 pad[2]; } mac_t;

#define TUNNELS_MAX 8		/* tunnel devices in one network namespace */
#define OPTED_OUT_MAX 65536	/* addresses of pods that are left alone */
#define SLOT_PROBES 16		/* slots looked at for one key */

/* Where a packet is going, seen from this host. */
enum direction {
	DIRECTION_EGRESS = 0,	/* from a local pod */
	DIRECTION_INGRESS = 1,	/* to a local pod */
	DIRECTION_MAX,
};

/*
 * Why a packet took the fallback. Append only: numbers are kept in pinned
 * counters. FAST is not a reason: it is the slot that counts hits.
 */
enum reason {
	REASON_FAST = 0,
	REASON_PAUSED,		/* using the cache is switched off */
	REASON_NOT_IPV4,	/* neither IPv4 nor IPv6: ARP, anything else */
	REASON_VLAN,		/* a VLAN tag */
	REASON_TRUNCATED,	/* headers not in the packet, or lengths that lie */
	REASON_IP_OPTIONS,	/* IPv4 header longer than 20 bytes */
	REASON_FRAGMENT,	/* any fragment, the first one too */
	REASON_CHECKSUM,	/* an IPv4 header checksum that is wrong */
	REASON_TTL,		/* TTL or hop limit would expire */
	REASON_PROTOCOL,	/* not TCP, UDP or ICMP echo */
	REASON_TCP_FLAGS,	/* SYN, FIN, RST or no ACK: connection tracking must see it */
	REASON_OUTER,		/* outer header the fast path does not replay: IP options, fragment, UDP checksum, VXLAN flags, more Geneve options than fit */
	REASON_VNI,		/* not a VNI of this host */
	REASON_FLOW_MISS,	/* flow not in the filter cache, or flushed */
	REASON_REVERSE,		/* only one direction of the flow is cached */
	REASON_STALE,		/* not confirmed by the fallback within the bound */
	REASON_SAMPLE,		/* sent through the fallback to confirm the flow */
	REASON_HOST_MISS,	/* remote host not in the egress cache any more */
	REASON_POD_MISS,	/* local pod not in the ingress cache any more */
	REASON_VETH,		/* not from the veth that the flow belongs to */
	REASON_MAC,		/* not between the MAC addresses that the flow was learned with */
	REASON_PEER,		/* not from the remote host, VNI or uplink that the flow belongs to */
	REASON_MTU,		/* larger than the path allows */
	REASON_REFUSED,		/* the kernel made no room: a GSO type that it does not encapsulate, or no memory */
	REASON_BACKOFF,		/* the fallback declined this flow lately: not asked again yet */
	REASON_DSCP,		/* dscp mode: the packet's own DSCP uses the mark's bits */
	REASON_DROP,		/* not a fallback: dropped after the packet was changed */
	REASON_OVERLOAD,	/* more flows than the filter cache has room for: this one is left out for now */
	REASON_EXTENSION,	/* IPv6 extension header, other than of a fragment */
	REASON_SCOPE,		/* IPv6 address that is not one host's everywhere: link-local, multicast, IPv4-mapped */
	REASON_IPV6,		/* dscp mode: IPv6 is left alone */
	REASON_OPTIONS,		/* other Geneve options than the flow was learned with */
	REASON_MAX,
};

/* What the init programs did with a marked packet. Append only. */
enum lesson {
	LESSON_LEARNED = 0,	/* entered or moved */
	LESSON_CONFIRMED,	/* was there already: fresh again */
	LESSON_PAUSED,		/* learning is paused, or the guard time after an eviction */
	LESSON_UNFIT,		/* the packet is not what the fast path could replay */
	LESSON_NOT_ESTABLISHED,	/* connection tracking has not seen both directions */
	LESSON_NAT,		/* addresses are translated in a way that is not replayed */
	LESSON_DEVICE,		/* not a veth or tunnel device of ours */
	LESSON_FULL,		/* no slot left, or the map refused */
	LESSON_FORGED,		/* dscp mode: a mark that ONCache did not set */
	LESSON_HELPER,		/* a connection tracking helper or sequence adjustment must see every packet */
	LESSON_CONFLICT,	/* from the other side of the tunnel than a flow in use with these addresses: one of them is forged */
	LESSON_OPTED_OUT,	/* one of its pods does not want to be accelerated */
	LESSON_MAX,
};

enum mark_mode {
	MARK_METADATA = 0,	/* one bit of skb->mark, conntrack through the kfunc */
	MARK_DSCP = 1,		/* two bits of the inner DSCP, a rule in the fallback */
};

/* The two bits of dscp mode, in the inner IPv4 TOS byte (paper, section 3.3). */
#define TOS_MISS 0x04
#define TOS_ESTABLISHED 0x08
#define TOS_MARKS (TOS_MISS | TOS_ESTABLISHED)

/*
 * Key of the filter cache. Both directions of a flow have one key: local is
 * the pod on this host. ICMP echo: the identifier stands on the side that
 * sent the request, the other port is 0.
 *
 * A flow that this host translates (a Service), or that has both its ends on
 * this host, is entered twice: once as each end sees it.
 */
struct flow_key {
	ipv4_t local_ip;
	ipv4_t remote_ip;
	port_t local_port;
	port_t remote_port;
	__u8 proto;
	__u8 pad[3];
};

/* Likewise over IPv6, in a filter cache of its own. */
struct flow_key6 {
	ipv6_t local_ip;
	ipv6_t remote_ip;
	port_t local_port;
	port_t remote_port;
	__u8 proto;
	__u8 pad[3];
};

/*
 * A reference to a slot of the egress or ingress cache: slot number in the
 * low half, generation in the high half. Retiring a slot changes its
 * generation, and with it every reference to it dies at once.
 */
typedef __u64 ref_t;
#define REF_POD 0x80000000	/* of an egress verdict: a slot of the ingress cache, that of another pod of this host */

#define VERDICT_TRANSLATED 0x1	/* addresses and ports change to those of flow.other */
#define VERDICT_BRIDGED 0x2	/* not routed by this host: TTL and MAC addresses stay */
#define VERDICT_REVERSE 0x4	/* evidence for the reverse check only: packets of this direction have the other key */
#define VERDICT_OPTIONS 0x8	/* ingress: packets have the Geneve options of flow.options */
#define VERDICT_TWICE 0x10	/* of a flow that is entered twice: flow.other is the other entry's key */

/* What the fallback decided for one direction of a flow. Written only by that direction's init program. */
struct verdict {
	jiffies_t confirmed_at;	/* when the fallback last carried the flow in this direction; 0: never */
	jiffies_t sampled_at;	/* when a packet was last sent to confirm it */
	ref_t ref;		/* egress: slot of the egress cache; ingress: of the ingress cache */
	__u32 epoch;		/* control.epoch at that time */
	port_t outer_port;	/* egress: outer UDP source port */
	__u16 flags;		/* VERDICT_* */
};

struct flow {
	struct verdict egress;
	struct verdict ingress;
	__u64 packets[DIRECTION_MAX];	/* on the fast path; counted only when settings.count_flows is set */
	struct flow_key other;	/* as the other end sees the flow, with VERDICT_TWICE; else zero */
	__u16 address_sum;	/* one's complement sum of other's addresses, less those of this entry's key */
	__u16 port_sum;		/* likewise of the ports; 0: the same ports */
	__u32 options;		/* with VERDICT_OPTIONS: digest of the Geneve header that arriving packets have */
	__u64 pad[3];		/* the kernel's head of an entry and the key take 64 bytes: so each entry begins a cache line */
};

/* Likewise over IPv6; up to `other` the same as a flow. */
struct flow6 {
	struct verdict egress;
	struct verdict ingress;
	__u64 packets[DIRECTION_MAX];
	struct flow_key6 other;
	__u16 address_sum;
	__u16 port_sum;
	__u32 options;
};

enum slot_state {
	SLOT_EMPTY = 0,
	SLOT_BUSY,		/* being filled by one CPU */
	SLOT_LIVE,
	SLOT_RETIRED,		/* reusable a second after retired_at */
};

struct slot {
	__u32 state;
	__u32 generation;
	jiffies_t retired_at;
};

#define OUTER_LEN 64		/* Ethernet + IPv4 + UDP + VXLAN or Geneve + inner Ethernet */
#define LONG_MAX 128		/* of a long header (IPv6, Geneve options), up to the inner Ethernet header: 56 bytes of options over IPv6 */

/*
 * Entry of the egress cache: a remote host, by the outer header the fallback
 * uses towards it. In the template every field that differs from packet to
 * packet is zero: total length, ID, checksum, UDP source port and length, and
 * what TUNNEL_*_INHERIT says.
 *
 * A host with TUNNEL_LONG has another outer header than the one of 64 bytes.
 * Then `header` is its template, and of `template` only the Ethernet, tunnel
 * and inner Ethernet headers are filled.
 */
struct host {
	struct slot slot;
	__u64 template[OUTER_LEN / 8];	/* struct outer of parse.h */
	ipv6_t remote_ip;	/* outer destination, or IPv4 */
	ipv6_t local_ip;	/* outer source, likewise */
	__u32 checksum;		/* one's complement sum of the template's outer IPv4 header */
	ifindex_t uplink;
	vni_t vni;
	__u16 mtu;		/* largest inner packet without its Ethernet header, bytes */
	__u16 tunnel_flags;	/* TUNNEL_* */
	__u32 ip_id;		/* next outer IPv4 ID, atomically; on a cache line with nothing that a short header needs */
	ifindex_t tunnel;	/* ifindex of the tunnel device */
	__u32 header_len;	/* bytes of `header` */
	__u32 pad0;
	__u64 pad1[6];
	__u64 header[LONG_MAX / 8];	/* Ethernet, IPv6 or IPv4, UDP, VXLAN or Geneve with its options */
};

/* Entry of the ingress cache: an address of a local pod, as the fallback delivers to it. */
struct pod {
	struct slot slot;
	__u8 macs[12];		/* Ethernet destination (the pod) and source (its gateway) */
	ifindex_t veth;		/* host side */
	__u8 from_pod[12];	/* the same two addresses as the pod's own frames carry them */
	__u16 veth_flags;	/* VETH_* */
	__u16 mtu;		/* largest packet without its Ethernet header, bytes */
	ipv6_t ip;		/* or IPv4: a pod with both has two entries */
};

#define TUNNEL_TOS_INHERIT 0x1	/* outer DSCP is the inner one */
#define TUNNEL_TTL_INHERIT 0x2	/* outer TTL is the inner one */
#define TUNNEL_DF_INHERIT 0x4	/* outer DF is the inner one */
#define TUNNEL_INHERIT (TUNNEL_TOS_INHERIT | TUNNEL_TTL_INHERIT | TUNNEL_DF_INHERIT)
#define TUNNEL_PORT 0x8		/* a port of a bridge: what it carries may not be routed by this host */
#define TUNNEL_UNTRACKED 0x10	/* what that bridge forwards does not pass connection tracking */
#define TUNNEL_FLOW_BASED 0x40	/* remote host and VNI are chosen for each packet (collect_md): a switch decides, not a routing table */
#define TUNNEL_BRIDGED 0x20	/* of a host: for frames that are bridged, whose source address the template lacks */
#define TUNNEL_IPV6 0x80	/* the outer header is IPv6; `mtu` reckons with it */
#define TUNNEL_LABEL_INHERIT 0x100	/* outer flow label is that of inner IPv6, 0 of IPv4 */
#define TUNNEL_LONG 0x200	/* of a host: `header` instead of `template` */

/* A tunnel device that may be accelerated. Written by the agent, those over IPv6 last. */
struct tunnel {
	ifindex_t ifindex;
	ifindex_t uplink;
	vni_t vni;
	port_t port;		/* outer UDP destination port */
	__u16 mtu;		/* largest inner packet without its Ethernet header, bytes */
	mac_t mac;		/* inner Ethernet source of what this host routes into it: its own, its bridge's, or its switch's gateway */
	__u16 flags;		/* TUNNEL_* */
	__u16 zone;		/* of connection tracking, in which the fallback knows its flows over IPv4 */
	tunnel_word_t header;	/* first word of the tunnel header: flags of VXLAN; Geneve's version, no options, Ethernet */
	ifindex_t gateway;	/* flow based: the device to which the host routes what the switch sends into it */
	__u16 zone6;		/* as zone, over IPv6 */
	__u16 pad;
};

#define VETH_SHAPED 0x1		/* its egress qdisc must see every packet: redirect through it */
#define VETH_UNTRACKED 0x2	/* what its bridge forwards does not pass connection tracking */

/* A pod's veth that may be accelerated. Key: ifindex. Written by the agent. */
struct veth {
	__u32 flags;		/* VETH_* */
	__u32 mtu;		/* largest packet without its Ethernet header, bytes */
	mac_t router;		/* source of what is routed to the pod: its bridge, its switch's gateway, or itself; 0: not known */
	__u16 zone;		/* of connection tracking, as those of a tunnel */
	__u16 zone6;
	__u32 pad;
};

/*
 * Which MAC address a pod last sent from, as egress saw it: the address in the
 * low 48 bits, above it what tells apart the devices that share an entry. Key:
 * ifindex modulo SENDERS. 0: nothing yet.
 */
typedef __u64 sender_t;
#define SENDERS 8192

/* What the agent changes while the programs run. One entry, memory-mapped. */
struct control {
	jiffies_t max_staleness;	/* a copy of settings.max_staleness, for readers */
	__s64 jiffies_offset;		/* jiffies = CLOCK_MONOTONIC / tick + this, for readers */
	jiffies_t learn_after;	/* no lesson before this time: marks of packets under way at an eviction are void, and so is a leased pause */
	__u32 contract;		/* ONCACHE_CONTRACT */
	__u32 epoch;		/* never 0; changing it empties the filter cache */
	__u32 learning;		/* 0: teach nothing */
	__u32 using;		/* 0: every packet takes the fallback */
	__u32 tunnel_count;
	__s32 saved_tcp_be_liberal;	/* the sysctl's value before the agent changed it; -1: not changed */
	__u32 evictions;	/* counts them: a lesson during which it changed is void */
	__u32 opting_out;	/* 0: `opted_out` is empty */
	__u64 forgotten;	/* flows that went with their connection tracking entry */
	struct tunnel tunnels[TUNNELS_MAX];
};

/* Fixed when the programs are loaded (.rodata): what is off costs nothing. */
struct settings {
	jiffies_t max_staleness;	/* no verdict is used longer than this without confirmation */
	jiffies_t retry;		/* between two samples of one direction */
	jiffies_t backoff;		/* between two questions about a flow that was declined */
	jiffies_t rest;			/* a second: a retired slot and a dscp mark are over after it */
	__u32 mark;			/* the miss mark: one bit of skb->mark */
	__u32 mark_mode;		/* enum mark_mode */
	__u32 count_flows;		/* count packets per flow */
	__u32 egress_slots;		/* entries of the egress cache, a power of two */
	__u32 ingress_slots;		/* entries of the ingress cache, a power of two */
	__u32 backoff_slots;		/* entries of the backoff table, a power of two */
	__u32 filter_entries;		/* of the filter cache */
	__u32 filter6_entries;		/* of the one for IPv6 */
	jiffies_t window;		/* in which overload is noticed */
	__u32 loads_in_order;		/* the CPU does not read out of order: x86 (its manual's memory ordering), not arm64 */
	__u32 pad;
};

struct counter {
	__u64 packets;		/* as the stack hands them over: a GSO packet counts once */
	__u64 bytes;		/* of the inner Ethernet frames */
};

/* One entry, so that all of it is found by one address. */
struct counts {
	struct counter packets[DIRECTION_MAX * REASON_MAX];	/* at direction * REASON_MAX + reason */
	__u64 flows, flows6;					/* entered into the filter caches */
	__u64 lessons[LESSON_MAX * DIRECTION_MAX];		/* at lesson * DIRECTION_MAX + direction */
};

/* A direction of a flow that the fallback declined, found by a hash of the key; the other direction is next to it. */
struct backoff {
	jiffies_t at;
	__u32 tag;
	__u32 declined;		/* in a row */
};

#define BACKOFF_FREE 4		/* questions before a declined flow has to wait */

/*
 * Which Geneve header a flow's packets had lately that the fallback was asked
 * about. Written where the header is seen, egress_init and ingress; read there
 * and in ingress_init, which does not see it any more.
 */
struct carried_key {
	struct flow_key6 flow;	/* of IPv4 too */
	__u32 direction;
};

struct carried {
	jiffies_t changed_at;	/* when it last was another one; 0: never */
	__u32 options;		/* digest, as in struct flow */
	__u32 same;		/* how many in a row have had it */
};

#define OPTIONS_SAME 4		/* packets with the same options before they are taken for the flow's */

/* dscp mode: who set the mark's bits on this flow's packets, and what they were before. */
struct pending {
	jiffies_t at;
	__u32 foreign;		/* the pod's or the wire's own bits: teach nothing, put back tos */
	__u8 tos;
	__u8 pad[3];
};


#endif
