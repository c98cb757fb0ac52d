/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* As translate.h for IPv6, whose header has no checksum. */
#ifndef ONCACHE_TRANSLATE6_H
#define ONCACHE_TRANSLATE6_H

#include "parse6.h"
#include "translate.h"

/* What follows packet6.head in the packet. */
struct ends6 {
	ipv6_t source_ip, destination_ip;
	port_t source_port, destination_port;
};

/* As translate_ends(). */
static __always_inline void translate_ends6(struct ends6 *to, const struct flow6 *flow, int into_pod)
{
	const struct flow_key6 *other = &flow->other;

	to->source_ip = into_pod ? other->remote_ip : other->local_ip;
	to->destination_ip = into_pod ? other->local_ip : other->remote_ip;
	to->source_port = into_pod ? other->remote_port : other->local_port;
	to->destination_port = into_pod ? other->local_port : other->remote_port;
}

/*
 * As translate_checksum(). bpf_l4_csum_replace() takes it that the header's own
 * checksum hides changed addresses from skb->csum (CHECKSUM_COMPLETE). Here
 * the L4 checksum does, so the sum is as it was, and gets back what was taken.
 */
static __always_inline int translate_checksum6(struct __sk_buff *skb, __u32 offset, __u32 proto, const struct flow6 *flow)
{
	if (translate_checksum(skb, offset + sizeof(struct ipv6hdr), proto, flow->address_sum, flow->port_sum))
		return -1;
	if (flow->address_sum)
		bpf_csum_update(skb, flow->address_sum);
	return 0;
}

#endif
