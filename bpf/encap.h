/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Adding and removing the outer header.
 *
 *   before   | Ethernet 14 |                                          | IPv4 ...
 *   after    | Ethernet 14 | IPv4 20 | UDP 8 | VXLAN 8 | Ethernet 14  | IPv4 ...
 *              <------------------ template, 64 bytes --------------->
 *
 * Headers are written with one bpf_skb_store_bytes() and never through direct
 * packet access: a program that writes directly gets a prologue which copies
 * every cloned packet, and the packets of a TCP socket are clones whose
 * headers may be written without copying.
 */
#ifndef ONCACHE_ENCAP_H
#define ONCACHE_ENCAP_H

#include "csum.h"
#include "parse.h"
#include "translate.h"

#define ENCAP_LEN (OUTER_LEN - ETH_HLEN)
#define ENCAP_FLAGS (BPF_F_ADJ_ROOM_FIXED_GSO | BPF_F_ADJ_ROOM_ENCAP_L3_IPV4 | BPF_F_ADJ_ROOM_ENCAP_L4_UDP | \
		     BPF_F_ADJ_ROOM_ENCAP_L2(ETH_HLEN) | BPF_F_ADJ_ROOM_ENCAP_L2_ETH)
#define DECAP_FLAGS (BPF_F_ADJ_ROOM_FIXED_GSO | BPF_F_ADJ_ROOM_NO_CSUM_RESET)

#define ECN_ECT_1 0x01
#define ECN_ECT_0 0x02
#define ECN_CE 0x03

/* As ip_decrease_ttl() of include/net/ip.h. */
static __always_inline void decrease_ttl(struct packet *pkt)
{
	__u32 check = pkt->head.check + bpf_htons(0x0100);

	pkt->head.check = check + (check >= 0xffff);
	pkt->head.ttl--;
}

/* Outer ECN for an inner TOS byte: INET_ECN_encapsulate() of include/net/inet_ecn.h, which the tunnel device uses. */
static __always_inline __u8 ecn_encapsulate(__u8 inner)
{
	return (inner & ECN_MASK) == ECN_CE ? ECN_ECT_0 : inner & ECN_MASK;
}

/*
 * Brings the outer ECN field into the inner header (RFC 6040, section 4.2;
 * INET_ECN_decapsulate()). False when the combination needs the fallback: it
 * logs or drops what a broken tunnel ingress has made.
 */
static __always_inline int ecn_decapsulate(struct packet *pkt, __u8 outer)
{
	__u8 inner = pkt->head.tos, ecn = inner;

	outer &= ECN_MASK;
	if (!outer)
		return 1;
	if (!(inner & ECN_MASK))
		return 0;
	if (outer == ECN_CE)
		ecn = inner | ECN_CE;
	else if (outer == ECN_ECT_1 && (inner & ECN_MASK) == ECN_ECT_0)
		ecn = (inner & ~ECN_MASK) | ECN_ECT_1;
	if (ecn != inner) {
		pkt->head.check = csum_replace(pkt->head.check, bpf_htons(0x4500 | inner), bpf_htons(0x4500 | ecn));
		pkt->head.tos = ecn;
	}
	return 1;
}

/* Zero until the packet is changed; then 0 or a packet that can only be dropped. */
enum change {
	CHANGE_DONE = 0,
	CHANGE_REFUSED,	/* the packet is as it was */
	CHANGE_BROKEN,	/* half changed */
};

/* Sends an inner packet to a remote host: outer header on, TTL one less unless it is bridged. */
static __always_inline enum change encapsulate(struct __sk_buff *skb, struct packet *pkt, struct host *host,
					       const struct pod *pod, const struct flow *flow, __u32 flags)
{
	struct {
		struct outer outer;
		__u8 head[sizeof(pkt->head)];
		struct ends ends;
	} out;
	struct iphdr *ip = &out.outer.ip;
	__u16 len = bpf_ntohs(pkt->head.tot_len) + ENCAP_LEN;
	__u32 segments = skb->gso_segs;
	__u8 tos = ecn_encapsulate(pkt->head.tos);
	__u32 sum = host->checksum;

	if (bpf_skb_adjust_room(skb, ENCAP_LEN, BPF_ADJ_ROOM_MAC, ENCAP_FLAGS))
		return CHANGE_REFUSED;

	__builtin_memcpy(&out.outer, host->template, OUTER_LEN);
	if (unlikely(host->tunnel_flags)) {
		if (host->tunnel_flags & TUNNEL_TOS_INHERIT)
			tos |= pkt->head.tos & ~ECN_MASK;
		if (host->tunnel_flags & TUNNEL_TTL_INHERIT) {
			ip->ttl = pkt->head.ttl - !(host->tunnel_flags & TUNNEL_BRIDGED);
			sum += bpf_htons((__u16)ip->ttl << 8);
		}
		if (host->tunnel_flags & TUNNEL_DF_INHERIT) {
			ip->frag_off = pkt->head.frag_off & bpf_htons(IP_DF);
			sum += ip->frag_off;
		}
		if (host->tunnel_flags & TUNNEL_BRIDGED)
			__builtin_memcpy(out.outer.inner_eth.h_source, pod->macs, ETH_ALEN);
	}
	ip->tos |= tos;
	ip->tot_len = bpf_htons(len);
	ip->id = bpf_htons(__sync_fetch_and_add(&host->ip_id, segments ? segments : 1));
	ip->check = ~csum_fold((__u64)sum + bpf_htons(tos) + ip->tot_len + ip->id);
	out.outer.udp.source = flow->egress.outer_port;
	out.outer.udp.len = bpf_htons(len - sizeof(*ip));

	if (likely(!(host->tunnel_flags & TUNNEL_BRIDGED)))
		decrease_ttl(pkt);
	__builtin_memcpy(out.head, &pkt->head, sizeof(out.head));
	if (likely(!(flags & VERDICT_TRANSLATED)))
		return bpf_skb_store_bytes(skb, 0, &out, OUTER_LEN + sizeof(out.head), 0) ? CHANGE_BROKEN : CHANGE_DONE;
	translate_ends(&out.ends, flow, 0);
	return bpf_skb_store_bytes(skb, 0, &out, OUTER_LEN + sizeof(out.head) + sizeof(out.ends), 0) ||
	       translate_checksum(skb, INNER_OFFSET + sizeof(struct iphdr), pkt->key.proto, flow->address_sum,
				  flow->port_sum) ? CHANGE_BROKEN : CHANGE_DONE;
}

/* What a pod's frame begins with. */
struct frame {
	__u8 macs[2 * ETH_ALEN];
	__be16 proto;
	__u8 head[sizeof(((struct packet *)0)->head)];
	struct ends ends;
} __attribute__((packed));

/* Hands a packet to a pod, between the MAC addresses that are in `frame` already. */
static __always_inline enum change frame_write(struct __sk_buff *skb, struct frame *frame, const struct packet *pkt,
				       const struct flow *flow, __u32 flags)
{
	struct ends ends;

	frame->proto = bpf_htons(ETH_P_IP);
	__builtin_memcpy(frame->head, &pkt->head, sizeof(frame->head));
	if (likely(!(flags & VERDICT_TRANSLATED)))
		return bpf_skb_store_bytes(skb, 0, frame, __builtin_offsetof(struct frame, ends), 0) ? CHANGE_REFUSED :
													CHANGE_DONE;
	translate_ends(&ends, flow, 1);
	frame->ends = ends;
	if (bpf_skb_store_bytes(skb, 0, frame, sizeof(*frame), 0))
		return CHANGE_REFUSED;
	return translate_checksum(skb, ETH_HLEN + sizeof(struct iphdr), pkt->key.proto, flow->address_sum,
				  flow->port_sum) ? CHANGE_BROKEN : CHANGE_DONE;
}

/* As its router does: their MAC addresses, TTL one less. */
static __always_inline enum change readdress(struct __sk_buff *skb, struct packet *pkt, const struct pod *pod,
				     const struct flow *flow, __u32 flags)
{
	struct frame out;

	__builtin_memcpy(out.macs, pod->macs, sizeof(out.macs));
	decrease_ttl(pkt);
	return frame_write(skb, &out, pkt, flow, flags);
}

/* Likewise as a bridge does, from the pod with the MAC address `source`. */
static __always_inline enum change readdress_bridged(struct __sk_buff *skb, const struct packet *pkt,
						     const struct pod *pod, const __u8 *source,
						     const struct flow *flow, __u32 flags)
{
	struct frame out;

	__builtin_memcpy(out.macs, pod->macs, ETH_ALEN);
	__builtin_memcpy(out.macs + ETH_ALEN, source, ETH_ALEN);
	return frame_write(skb, &out, pkt, flow, flags);
}

/*
 * Delivers an encapsulated packet to a pod: outer header off, inner one on.
 * The state of checksums that the NIC verified goes one level down, as
 * udp_tunnel and vxlan do. What is not routed, but bridged, is from `host`.
 * (NULL for what is not looked at would be less to say, but Linux 6.1 loses
 * sight of such a pointer when the compiler asks for the condition again.)
 */
static __always_inline enum change decapsulate(struct __sk_buff *skb, struct packet *pkt, const struct pod *pod,
					       const struct host *host, const struct flow *flow, __u32 flags)
{
	const struct outer *template = (const void *)host->template;
	enum change change;

	if (unlikely(bpf_skb_adjust_room(skb, -ENCAP_LEN, BPF_ADJ_ROOM_MAC, DECAP_FLAGS)))
		return CHANGE_REFUSED;
	bpf_csum_level(skb, BPF_CSUM_LEVEL_DEC);
	change = unlikely(flags & VERDICT_BRIDGED) ?
		 readdress_bridged(skb, pkt, pod, template->inner_eth.h_dest, flow, flags) :
		 readdress(skb, pkt, pod, flow, flags);
	return change ? CHANGE_BROKEN : CHANGE_DONE;
}

#endif
