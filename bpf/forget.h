/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * A connection tracking entry has ended: its flow leaves the cache at once.
 * The program is the filter of the agent's netlink socket in the group
 * NFNLGRP_CONNTRACK_DESTROY, so it runs where the entry is destroyed, however
 * many are, and the agent sleeps on.
 */
#ifndef ONCACHE_FORGET_H
#define ONCACHE_FORGET_H

#include "conntrack.h"
#include "maps.h"
#include <linux/in.h>
#include <linux/netlink.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_conntrack.h>

#define SEEN 0			/* nothing for the agent to read */
#define UNKNOWN 0xffffffff	/* the agent gets the whole message, and evicts everything */

#define ATTRIBUTE(name, type_of_value) struct { struct nlattr name##_head; type_of_value name; }

/*
 * A destroy event from its beginning, as net/netfilter/nf_conntrack_netlink.c
 * writes it: the tuple of each direction as it comes into the host. ICMP has
 * its identifier where the others have their source port.
 */
struct tuple_event {
	struct nlattr tuple;
	struct nlattr addresses;
	ATTRIBUTE(source, ipv4_t);
	ATTRIBUTE(destination, ipv4_t);
	struct nlattr protocol;
	struct nlattr number_head;
	__u8 number;
	__u8 pad0[3];
	struct nlattr source_port_head;
	port_t source_port;
	__u16 pad1;
	struct nlattr destination_port_head;
	port_t destination_port;
	__u16 pad2;
};

/* Likewise over IPv6. */
struct tuple_event6 {
	struct nlattr tuple;
	struct nlattr addresses;
	ATTRIBUTE(source, ipv6_t);
	ATTRIBUTE(destination, ipv6_t);
	struct nlattr protocol;
	struct nlattr number_head;
	__u8 number;
	__u8 pad0[3];
	struct nlattr source_port_head;
	port_t source_port;
	__u16 pad1;
	struct nlattr destination_port_head;
	port_t destination_port;
	__u16 pad2;
};

struct destroy_event {
	struct nlmsghdr message;
	struct nfgenmsg family;
};

static __always_inline int attribute_is(const struct nlattr *attribute, __u16 type)
{
	return (attribute->nla_type & NLA_TYPE_MASK) == type;
}

static __always_inline void forget_flow(struct control *ctl, const struct tuple_event *event, int towards_local)
{
	struct flow_key key = {
		.local_ip = towards_local ? event->destination : event->source,
		.remote_ip = towards_local ? event->source : event->destination,
		.proto = event->number,
	};
	port_t source = event->source_port;
	port_t destination = event->number == IPPROTO_ICMP ? 0 : event->destination_port;

	key.local_port = towards_local ? destination : source;
	key.remote_port = towards_local ? source : destination;
	if (filter_cache_forget(&key))
		__sync_fetch_and_add(&ctl->forgotten, 1);
}

/* One direction's tuple at `offset`; SEEN when done. */
static __always_inline __u32 forget_tuple(struct __sk_buff *skb, struct control *ctl, __u32 *offset, __u16 type)
{
	struct tuple_event event;

	if (bpf_skb_load_bytes(skb, *offset, &event, sizeof(event)))
		return UNKNOWN;
	if (!attribute_is(&event.tuple, type) || !attribute_is(&event.addresses, CTA_TUPLE_IP) ||
	    !attribute_is(&event.source_head, CTA_IP_V4_SRC) || !attribute_is(&event.destination_head, CTA_IP_V4_DST) ||
	    !attribute_is(&event.protocol, CTA_TUPLE_PROTO) || !attribute_is(&event.number_head, CTA_PROTO_NUM))
		return UNKNOWN;
	if (event.number == IPPROTO_ICMP) {
		if (!attribute_is(&event.source_port_head, CTA_PROTO_ICMP_ID))
			return UNKNOWN;
	} else if (event.number == IPPROTO_TCP || event.number == IPPROTO_UDP) {
		if (!attribute_is(&event.source_port_head, CTA_PROTO_SRC_PORT) ||
		    !attribute_is(&event.destination_port_head, CTA_PROTO_DST_PORT))
			return UNKNOWN;
	} else {
		return SEEN;
	}
	*offset += NLA_ALIGN(event.tuple.nla_len);
	forget_flow(ctl, &event, 0);
	forget_flow(ctl, &event, 1);
	return SEEN;
}

static __always_inline void forget_flow6(struct control *ctl, const struct tuple_event6 *event, int towards_local)
{
	port_t source = event->source_port;
	port_t destination = event->number == IPPROTO_ICMPV6 ? 0 : event->destination_port;
	struct flow_key6 key;

	key.local_ip = towards_local ? event->destination : event->source;
	key.remote_ip = towards_local ? event->source : event->destination;
	key.local_port = towards_local ? destination : source;
	key.remote_port = towards_local ? source : destination;
	*(__u32 *)&key.proto = bpf_htole32(event->number);
	if (filter_cache6_forget(&key))
		__sync_fetch_and_add(&ctl->forgotten, 1);
}

/* As forget_tuple(). */
static __noinline __u32 forget_tuple6(struct __sk_buff *skb, struct control *ctl, __u32 *offset, __u16 type)
{
	struct tuple_event6 event;

	if (!ctl || !offset || bpf_skb_load_bytes(skb, *offset, &event, sizeof(event)))
		return UNKNOWN;
	if (!attribute_is(&event.tuple, type) || !attribute_is(&event.addresses, CTA_TUPLE_IP) ||
	    !attribute_is(&event.source_head, CTA_IP_V6_SRC) || !attribute_is(&event.destination_head, CTA_IP_V6_DST) ||
	    !attribute_is(&event.protocol, CTA_TUPLE_PROTO) || !attribute_is(&event.number_head, CTA_PROTO_NUM))
		return UNKNOWN;
	if (event.number == IPPROTO_ICMPV6) {
		if (!attribute_is(&event.source_port_head, CTA_PROTO_ICMPV6_ID))
			return UNKNOWN;
	} else if (event.number == IPPROTO_TCP || event.number == IPPROTO_UDP) {
		if (!attribute_is(&event.source_port_head, CTA_PROTO_SRC_PORT) ||
		    !attribute_is(&event.destination_port_head, CTA_PROTO_DST_PORT))
			return UNKNOWN;
	} else {
		return SEEN;
	}
	*offset += NLA_ALIGN(event.tuple.nla_len);
	forget_flow6(ctl, &event, 0);
	forget_flow6(ctl, &event, 1);
	return SEEN;
}

SEC("socket")
int forget(struct __sk_buff *skb)
{
	struct destroy_event event;
	struct control *ctl = control_get();
	__u32 offset = sizeof(event);

	if (!ctl || bpf_skb_load_bytes(skb, 0, &event, sizeof(event)))
		return UNKNOWN;
	if (event.family.nfgen_family != AF_INET && event.family.nfgen_family != AF_INET6)
		return SEEN;
	/* A lesson that has asked connection tracking before it was told. */
	__sync_fetch_and_add(&ctl->evictions, 1);
	/* Translated, each direction has addresses of its own. */
	if (event.family.nfgen_family == AF_INET6)
		return forget_tuple6(skb, ctl, &offset, CTA_TUPLE_ORIG) ||
		       forget_tuple6(skb, ctl, &offset, CTA_TUPLE_REPLY) ? UNKNOWN : SEEN;
	if (forget_tuple(skb, ctl, &offset, CTA_TUPLE_ORIG) || forget_tuple(skb, ctl, &offset, CTA_TUPLE_REPLY))
		return UNKNOWN;
	return SEEN;
}

#endif
