/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Replaying what connection tracking's address translation does to a flow (a
 * Service's backend, a masqueraded source). The one's complement differences
 * were computed when the flow was learned (RFC 1624).
 *
 * Addresses, ports and the header's checksum are written together with what
 * else changes there (encap.h). Only the L4 checksum, whose meaning depends on
 * who is to finish it, needs helpers of its own.
 */
#ifndef ONCACHE_TRANSLATE_H
#define ONCACHE_TRANSLATE_H

#include "csum.h"
#include "parse.h"
#include <bpf/bpf_helpers.h>
#include <linux/in.h>

/* What follows packet.head in the packet. */
struct ends {
	ipv4_t source_ip, destination_ip;
	port_t source_port, destination_port;
};

/* As the other end sees the flow. `into_pod`: of packets that it receives. */
static __always_inline void translate_ends(struct ends *to, const struct flow *flow, int into_pod)
{
	const struct flow_key *other = &flow->other;

	to->source_ip = into_pod ? other->remote_ip : other->local_ip;
	to->destination_ip = into_pod ? other->local_ip : other->remote_ip;
	to->source_port = into_pod ? other->remote_port : other->local_port;
	to->destination_port = into_pod ? other->local_port : other->remote_port;
}

/* The IPv4 header's checksum as it will be; the packet is not touched yet. */
static __always_inline void translate_head(struct packet *pkt, const struct flow *flow)
{
	pkt->head.check = ~csum_fold((__u64)(__u16)~pkt->head.check + flow->address_sum);
}

/*
 * The checksum of TCP or UDP at `offset`, after other addresses and ports: also
 * when the kernel or a NIC is to finish it, or UDP has none. One that is to be
 * finished holds the sum of the addresses but not that of the ports: two
 * steps. 0 when done.
 */
static __always_inline int translate_checksum(struct __sk_buff *skb, __u32 offset, __u32 proto, __u16 address_sum,
					      __u16 port_sum)
{
	__u64 zero_is_none = proto == IPPROTO_UDP ? BPF_F_MARK_MANGLED_0 : 0;
	__u32 check = offset + (proto == IPPROTO_TCP ? 16 : 6);

	if (address_sum && bpf_l4_csum_replace(skb, check, 0, address_sum, BPF_F_PSEUDO_HDR | zero_is_none))
		return -1;
	return port_sum ? bpf_l4_csum_replace(skb, check, 0, port_sum, zero_is_none) : 0;
}

#endif
