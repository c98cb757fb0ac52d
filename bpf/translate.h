/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Replaying what connection tracking's address translation does to a flow (a
 * Service's backend, a masqueraded source). The one's complement differences
 * were computed when the flow was learned (RFC 1624).
 */
#ifndef ONCACHE_TRANSLATE_H
#define ONCACHE_TRANSLATE_H

#include "csum.h"
#include "parse.h"
#include <bpf/bpf_helpers.h>
#include <linux/in.h>

/* The IPv4 header checksum as it will be; the packet is not touched yet. */
static __always_inline void translate_head(struct packet *pkt, const struct flow *flow)
{
	pkt->head.check = ~csum_fold((__u64)(__u16)~pkt->head.check + flow->address_sum);
}

/*
 * Writes addresses and ports, and what they mean for the L4 checksum: also
 * when the kernel or a NIC is to finish it, or UDP has none. `offset` is that
 * of the IPv4 header; 0 when done.
 */
static __noinline int translate(struct __sk_buff *skb, __u32 offset, const struct flow *flow, __u32 proto, int into_pod)
{
	__u32 check = offset + sizeof(struct iphdr) + (proto == IPPROTO_TCP ? 16 : 6);
	__u64 zero_is_none = proto == IPPROTO_UDP ? BPF_F_MARK_MANGLED_0 : 0;
	struct {
		ipv4_t source_ip, destination_ip;
		port_t source_port, destination_port;
	} out;

	if (!skb || !flow)
		return -1;
	if (into_pod) {
		out.source_ip = flow->other.remote_ip;
		out.destination_ip = flow->other.local_ip;
		out.source_port = flow->other.remote_port;
		out.destination_port = flow->other.local_port;
	} else {
		out.source_ip = flow->other.local_ip;
		out.destination_ip = flow->other.remote_ip;
		out.source_port = flow->other.local_port;
		out.destination_port = flow->other.remote_port;
	}
	if (flow->address_sum &&
	    bpf_l4_csum_replace(skb, check, 0, flow->address_sum, BPF_F_PSEUDO_HDR | zero_is_none))
		return -1;
	if (flow->port_sum && bpf_l4_csum_replace(skb, check, 0, flow->port_sum, zero_is_none))
		return -1;
	return bpf_skb_store_bytes(skb, offset + __builtin_offsetof(struct iphdr, saddr), &out, sizeof(out), 0);
}

#endif
