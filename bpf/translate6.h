/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* As translate.h for IPv6, whose header has no checksum. */
#ifndef ONCACHE_TRANSLATE6_H
#define ONCACHE_TRANSLATE6_H

#include "csum.h"
#include "parse6.h"

/*
 * As translate(). bpf_l4_csum_replace() takes it that the header's own
 * checksum hides changed addresses from skb->csum (CHECKSUM_COMPLETE). Here
 * the L4 checksum does, so the sum is as it was, and gets back what was taken.
 */
static __noinline int translate6(struct __sk_buff *skb, __u32 offset, const struct flow6 *flow, __u32 proto, int into_pod)
{
	__u32 check = offset + sizeof(struct ipv6hdr) + (proto == IPPROTO_TCP ? 16 : 6);
	__u64 zero_is_none = proto == IPPROTO_UDP ? BPF_F_MARK_MANGLED_0 : 0;
	struct {
		ipv6_t source_ip, destination_ip;
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
	if (flow->address_sum) {
		if (bpf_l4_csum_replace(skb, check, 0, flow->address_sum, BPF_F_PSEUDO_HDR | zero_is_none))
			return -1;
		bpf_csum_update(skb, flow->address_sum);
	}
	if (flow->port_sum && bpf_l4_csum_replace(skb, check, 0, flow->port_sum, zero_is_none))
		return -1;
	return bpf_skb_store_bytes(skb, offset + __builtin_offsetof(struct ipv6hdr, saddr), &out, sizeof(out), 0);
}

#endif
