/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * As encap.h for inner IPv6: the same outer header, another inner one. Without
 * a checksum of its own, what changes in it changes skb->csum where a NIC has
 * summed the whole packet (CHECKSUM_COMPLETE), so on the way to a pod it is
 * written with BPF_F_RECOMPUTE_CSUM. That sum begins behind the Ethernet
 * header, which is therefore written apart.
 */
#ifndef ONCACHE_ENCAP6_H
#define ONCACHE_ENCAP6_H

#include "encap.h"
#include "parse6.h"

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

/* As encapsulate(). */
static __always_inline enum change encapsulate6(struct __sk_buff *skb, struct packet6 *pkt, struct host *host,
						const struct pod *pod, port_t outer_port)
{
	struct {
		struct outer outer;
		__u8 head[sizeof(pkt->head)];
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
	out.outer.udp.source = outer_port;
	out.outer.udp.len = bpf_htons(len - sizeof(*ip));
	out.outer.inner_eth.h_proto = bpf_htons(ETH_P_IPV6);

	if (!(host->tunnel_flags & TUNNEL_BRIDGED))
		pkt->head.hop_limit--;
	__builtin_memcpy(out.head, &pkt->head, sizeof(out.head));
	return bpf_skb_store_bytes(skb, 0, &out, OUTER_LEN + sizeof(out.head), 0) ? CHANGE_BROKEN : CHANGE_DONE;
}

static __always_inline int head6_write(struct __sk_buff *skb, const struct packet6 *pkt)
{
	return bpf_skb_store_bytes(skb, ETH_HLEN, &pkt->head, sizeof(pkt->head), BPF_F_RECOMPUTE_CSUM);
}

/* As readdress(). */
static __always_inline int readdress6(struct __sk_buff *skb, struct packet6 *pkt, const struct pod *pod)
{
	struct {
		__u8 macs[12];
		__be16 proto;
	} __attribute__((packed)) out;

	__builtin_memcpy(out.macs, pod->macs, sizeof(out.macs));
	out.proto = bpf_htons(ETH_P_IPV6);
	pkt->head.hop_limit--;
	return bpf_skb_store_bytes(skb, 0, &out, sizeof(out), 0) || head6_write(skb, pkt);
}

/* As readdress_bridged(). */
static __always_inline int readdress_bridged6(struct __sk_buff *skb, const struct packet6 *pkt, const struct pod *pod,
					      const struct host *host)
{
	const struct outer *template = (const void *)host->template;
	struct {
		__u8 dest[6], source[6];
		__be16 proto;
	} __attribute__((packed)) out;

	__builtin_memcpy(out.dest, pod->macs, sizeof(out.dest));
	__builtin_memcpy(out.source, template->inner_eth.h_dest, sizeof(out.source));
	out.proto = bpf_htons(ETH_P_IPV6);
	return bpf_skb_store_bytes(skb, 0, &out, sizeof(out), 0) || head6_write(skb, pkt);
}

/*
 * As decapsulate(). The stack goes by skb->protocol, which was that of the
 * outer header. `renamed`: it is IPv6 now; a kernel before Linux 6.3 has no way
 * to say so, and only a device that reads the Ethernet header anew will do.
 */
static __always_inline enum change decapsulate6(struct __sk_buff *skb, struct packet6 *pkt, const struct pod *pod,
						const struct host *host, int bridged, int *renamed)
{
	int failed;

	*renamed = !bpf_skb_adjust_room(skb, -ENCAP_LEN, BPF_ADJ_ROOM_MAC, DECAP_FLAGS | ADJ_ROOM_DECAP_L3_IPV6);
	if (!*renamed && bpf_skb_adjust_room(skb, -ENCAP_LEN, BPF_ADJ_ROOM_MAC, DECAP_FLAGS))
		return CHANGE_REFUSED;
	bpf_csum_level(skb, BPF_CSUM_LEVEL_DEC);
	failed = bridged ? readdress_bridged6(skb, pkt, pod, host) : readdress6(skb, pkt, pod);
	return failed ? CHANGE_BROKEN : CHANGE_DONE;
}

#endif
