/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * As encap.h for inner IPv6: the same outer header, another inner one. Without
 * a checksum of its own, what changes in it changes skb->csum where a NIC has
 * summed the whole packet (CHECKSUM_COMPLETE), so on the way to a pod that sum
 * is told. (It begins behind the Ethernet header, so BPF_F_RECOMPUTE_CSUM
 * would need a write of its own.)
 */
#ifndef ONCACHE_ENCAP6_H
#define ONCACHE_ENCAP6_H

#include "encap.h"
#include "parse6.h"
#include "translate6.h"

/* Of a later linux/bpf.h than may be installed; Linux 6.3. */
#define ADJ_ROOM_DECAP_L3_IPV6 (1ULL << 8)

/* As ecn_decapsulate(). */
static __always_inline int ecn_decapsulate6(struct packet6 *pkt, __u8 outer)
{
	__u8 inner = tclass(pkt), ecn = inner;

	outer &= ECN_MASK;
	if (!outer)
		return 1;
	if (!(inner & ECN_MASK))
		return 0;
	if (outer == ECN_CE)
		ecn = inner | ECN_CE;
	else if (outer == ECN_ECT_1 && (inner & ECN_MASK) == ECN_ECT_0)
		ecn = (inner & ~ECN_MASK) | ECN_ECT_1;
	pkt->head.first ^= bpf_htonl((__u32)(inner ^ ecn) << TCLASS_SHIFT);
	return 1;
}

/* As encapsulate(), with a stack of its own: it needs so much that egress6()'s other callees would get too little. */
static __noinline enum change encapsulate6(struct __sk_buff *skb, struct packet6 *pkt, struct host *host,
					   const struct pod *pod, const struct flow6 *flow)
{
	struct {
		struct outer outer;
		__u8 head[sizeof(pkt->head)];
		struct ends6 ends;
	} out;
	struct iphdr *ip = &out.outer.ip;
	__u16 len = bpf_ntohs(pkt->head.payload_len) + sizeof(struct ipv6hdr) + ENCAP_LEN;
	__u32 segments = skb->gso_segs;
	__u8 inner = tclass(pkt), tos = ecn_encapsulate(inner);
	__u32 sum = host->checksum;

	if (bpf_skb_adjust_room(skb, ENCAP_LEN, BPF_ADJ_ROOM_MAC, ENCAP_FLAGS))
		return CHANGE_REFUSED;

	__builtin_memcpy(&out.outer, host->template, OUTER_LEN);
	if (host->tunnel_flags & TUNNEL_TOS_INHERIT)
		tos |= inner & ~ECN_MASK;
	if (host->tunnel_flags & TUNNEL_TTL_INHERIT) {
		ip->ttl = pkt->head.hop_limit - !(host->tunnel_flags & TUNNEL_BRIDGED);
		sum += bpf_htons((__u16)ip->ttl << 8);
	}
	if (host->tunnel_flags & TUNNEL_DF_INHERIT) {
		/* No router fragments IPv6: drivers/net/vxlan and geneve.c take it for DF. */
		ip->frag_off = bpf_htons(IP_DF);
		sum += ip->frag_off;
	}
	if (host->tunnel_flags & TUNNEL_BRIDGED)
		__builtin_memcpy(out.outer.inner_eth.h_source, pod->macs, ETH_ALEN);
	ip->tos |= tos;
	ip->tot_len = bpf_htons(len);
	ip->id = bpf_htons(__sync_fetch_and_add(&host->ip_id, segments ? segments : 1));
	ip->check = ~csum_fold((__u64)sum + bpf_htons(tos) + ip->tot_len + ip->id);
	out.outer.udp.source = flow->egress.outer_port;
	out.outer.udp.len = bpf_htons(len - sizeof(*ip));
	out.outer.inner_eth.h_proto = bpf_htons(ETH_P_IPV6);

	if (!(host->tunnel_flags & TUNNEL_BRIDGED))
		pkt->head.hop_limit--;
	__builtin_memcpy(out.head, &pkt->head, sizeof(out.head));
	if (!(flow->egress.flags & VERDICT_TRANSLATED))
		return bpf_skb_store_bytes(skb, 0, &out, OUTER_LEN + sizeof(out.head), 0) ? CHANGE_BROKEN : CHANGE_DONE;
	translate_ends6(&out.ends, flow, 0);
	return bpf_skb_store_bytes(skb, 0, &out, OUTER_LEN + sizeof(out.head) + sizeof(out.ends), 0) ||
	       translate_checksum6(skb, INNER_OFFSET, pkt->key.proto, flow) ? CHANGE_BROKEN : CHANGE_DONE;
}

/* One's complement sum of what has changed in the header. */
static __always_inline __u16 head6_change(const struct packet6 *pkt)
{
	const __u32 *words = (const __u32 *)&pkt->head;

	return csum_fold((__u64)words[0] + words[1] + (__u16)~pkt->sum);
}

/* What a pod's frame begins with. */
struct frame6 {
	__u8 macs[2 * ETH_ALEN];
	__be16 proto;
	__u8 head[sizeof(((struct packet6 *)0)->head)];
	struct ends6 ends;
} __attribute__((packed));

/* As frame_write(). */
static __always_inline enum change frame_write6(struct __sk_buff *skb, struct frame6 *frame, const struct packet6 *pkt,
						const struct flow6 *flow, __u32 flags)
{
	struct ends6 ends;

	frame->proto = bpf_htons(ETH_P_IPV6);
	__builtin_memcpy(frame->head, &pkt->head, sizeof(frame->head));
	if (!(flags & VERDICT_TRANSLATED)) {
		if (bpf_skb_store_bytes(skb, 0, frame, __builtin_offsetof(struct frame6, ends), 0))
			return CHANGE_REFUSED;
		bpf_csum_update(skb, head6_change(pkt));
		return CHANGE_DONE;
	}
	translate_ends6(&ends, flow, 1);
	frame->ends = ends;
	if (bpf_skb_store_bytes(skb, 0, frame, sizeof(*frame), 0))
		return CHANGE_REFUSED;
	bpf_csum_update(skb, head6_change(pkt));
	return translate_checksum6(skb, ETH_HLEN, pkt->key.proto, flow) ? CHANGE_BROKEN : CHANGE_DONE;
}

/* As readdress(). */
static __always_inline enum change readdress6(struct __sk_buff *skb, struct packet6 *pkt, const struct pod *pod,
					      const struct flow6 *flow, __u32 flags)
{
	struct frame6 out;

	__builtin_memcpy(out.macs, pod->macs, sizeof(out.macs));
	pkt->head.hop_limit--;
	return frame_write6(skb, &out, pkt, flow, flags);
}

/* As readdress_bridged(). */
static __always_inline enum change readdress_bridged6(struct __sk_buff *skb, const struct packet6 *pkt,
						      const struct pod *pod, const __u8 *source,
						      const struct flow6 *flow, __u32 flags)
{
	struct frame6 out;

	__builtin_memcpy(out.macs, pod->macs, ETH_ALEN);
	__builtin_memcpy(out.macs + ETH_ALEN, source, ETH_ALEN);
	return frame_write6(skb, &out, pkt, flow, flags);
}

/*
 * As decapsulate(). The stack goes by skb->protocol, which was that of the
 * outer header. `renamed`: it is IPv6 now; a kernel before Linux 6.3 has no way
 * to say so, and only a device that reads the Ethernet header anew will do.
 */
static __always_inline enum change decapsulate6(struct __sk_buff *skb, struct packet6 *pkt, const struct pod *pod,
						const struct host *host, const struct flow6 *flow, __u32 flags,
						int *renamed)
{
	const struct outer *template = (const void *)host->template;
	enum change change;

	*renamed = !bpf_skb_adjust_room(skb, -ENCAP_LEN, BPF_ADJ_ROOM_MAC, DECAP_FLAGS | ADJ_ROOM_DECAP_L3_IPV6);
	if (!*renamed && bpf_skb_adjust_room(skb, -ENCAP_LEN, BPF_ADJ_ROOM_MAC, DECAP_FLAGS))
		return CHANGE_REFUSED;
	bpf_csum_level(skb, BPF_CSUM_LEVEL_DEC);
	change = flags & VERDICT_BRIDGED ?
		 readdress_bridged6(skb, pkt, pod, template->inner_eth.h_dest, flow, flags) :
		 readdress6(skb, pkt, pod, flow, flags);
	return change ? CHANGE_BROKEN : CHANGE_DONE;
}

#endif
