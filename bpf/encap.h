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
					       const struct pod *pod, port_t outer_port)
{
	struct {
		struct outer outer;
		__u8 head[sizeof(pkt->head)];
	} out;
	struct iphdr *ip = &out.outer.ip;
	__u16 len = bpf_ntohs(pkt->head.tot_len) + ENCAP_LEN;
	__u32 segments = skb->gso_segs;
	__u8 tos = ecn_encapsulate(pkt->head.tos);
	__u32 sum = host->checksum;

	if (bpf_skb_adjust_room(skb, ENCAP_LEN, BPF_ADJ_ROOM_MAC, ENCAP_FLAGS))
		return CHANGE_REFUSED;

	__builtin_memcpy(&out.outer, host->template, OUTER_LEN);
	if (host->tunnel_flags) {
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
	out.outer.udp.source = outer_port;
	out.outer.udp.len = bpf_htons(len - sizeof(*ip));

	if (!(host->tunnel_flags & TUNNEL_BRIDGED))
		decrease_ttl(pkt);
	__builtin_memcpy(out.head, &pkt->head, sizeof(out.head));
	return bpf_skb_store_bytes(skb, 0, &out, OUTER_LEN + sizeof(out.head), 0) ? CHANGE_BROKEN : CHANGE_DONE;
}

/* Hands a packet to a pod as its router does: their MAC addresses, TTL one less. */
static __always_inline int readdress(struct __sk_buff *skb, struct packet *pkt, const struct pod *pod)
{
	struct {
		__u8 macs[12];
		__be16 proto;
		__u8 head[sizeof(pkt->head)];
	} __attribute__((packed)) out;

	__builtin_memcpy(out.macs, pod->macs, sizeof(out.macs));
	out.proto = bpf_htons(ETH_P_IP);
	decrease_ttl(pkt);
	__builtin_memcpy(out.head, &pkt->head, sizeof(out.head));
	return bpf_skb_store_bytes(skb, 0, &out, sizeof(out), 0);
}

/* Likewise as a bridge does, from a remote pod. */
static __always_inline int readdress_bridged(struct __sk_buff *skb, struct packet *pkt, const struct pod *pod,
					     const struct host *host)
{
	const struct outer *template = (const void *)host->template;
	struct {
		__u8 dest[6], source[6];
		__be16 proto;
		__u8 head[sizeof(pkt->head)];
	} __attribute__((packed)) out;

	__builtin_memcpy(out.dest, pod->macs, sizeof(out.dest));
	__builtin_memcpy(out.source, template->inner_eth.h_dest, sizeof(out.source));
	out.proto = bpf_htons(ETH_P_IP);
	__builtin_memcpy(out.head, &pkt->head, sizeof(out.head));
	return bpf_skb_store_bytes(skb, 0, &out, sizeof(out), 0);
}

/*
 * Delivers an encapsulated packet to a pod: outer header off, inner one on.
 * The state of checksums that the NIC verified goes one level down, as
 * udp_tunnel and vxlan do. `bridged`: not routed, but bridged from `host`. (One
 * argument, or NULL, would be less to say, but Linux 6.1 loses sight of such a
 * pointer when the compiler asks for the condition again.)
 */
static __always_inline enum change decapsulate(struct __sk_buff *skb, struct packet *pkt, const struct pod *pod,
					       const struct host *host, int bridged)
{
	int failed;

	if (bpf_skb_adjust_room(skb, -ENCAP_LEN, BPF_ADJ_ROOM_MAC, DECAP_FLAGS))
		return CHANGE_REFUSED;
	bpf_csum_level(skb, BPF_CSUM_LEVEL_DEC);
	failed = bridged ? readdress_bridged(skb, pkt, pod, host) : readdress(skb, pkt, pod);
	return failed ? CHANGE_BROKEN : CHANGE_DONE;
}

#endif
