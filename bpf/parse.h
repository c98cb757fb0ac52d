/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* From packet bytes to what the programs decide on. Reads only. */
#ifndef ONCACHE_PARSE_H
#define ONCACHE_PARSE_H

#include "csum.h"
#include "oncache.h"
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/tcp.h>
#include <linux/udp.h>

/* linux/icmp.h would need a C library for the target. */
#define ICMP_ECHOREPLY 0
#define ICMP_ECHO 8
#define ICMP_HEADER_LEN 8
#define IP_DF 0x4000
#define IP_MF 0x2000
#define IP_OFFSET 0x1fff
#define TCP_FLAGS_WORD 12	/* data offset and flags, two bytes */
#define TCP_FIN 0x01
#define TCP_SYN 0x02
#define TCP_RST 0x04
#define TCP_ACK 0x10
#define ECN_MASK 0x03
#define bpf_htole32(x) (__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__ ? (__u32)(x) : __builtin_bswap32(x))
#ifndef unlikely	/* libbpf 1.6 has them */
#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)
#endif
#define INNER_OFFSET OUTER_LEN	/* of the inner IPv4 header in an encapsulated frame */

/* VXLAN (RFC 7348) and Geneve without options (RFC 8926) have the same shape. */
struct tunnelhdr {
	tunnel_word_t first;
	vni_t vni;
};

/*
 * The outer header as the tunnel device writes it. In the packet it is not
 * aligned at all; the attribute lets the compiler use whole words, which every
 * architecture with a BPF JIT that matters loads from anywhere.
 */
struct outer {
	struct ethhdr eth;
	struct iphdr ip;
	struct udphdr udp;
	struct tunnelhdr tunnel;
	struct ethhdr inner_eth;
} __attribute__((packed, aligned(8)));

_Static_assert(sizeof(struct outer) == OUTER_LEN, "outer header");

/* An inner packet. `head` is the part of its IPv4 header that the fast path rewrites. */
struct packet {
	struct flow_key key;
	struct {
		__u8 version_ihl, tos;
		__be16 tot_len, id, frag_off;
		__u8 ttl, protocol;
		__u16 check;
	} head;
	__u8 tcp_flags;
	__u32 size;	/* of the largest IPv4 packet on the wire, bytes: a GSO packet's segments */
};

/*
 * Makes the first `len` bytes (or all, if there are fewer) readable directly.
 * Not for GSO packets: pulling into a fraglist crashed kernels before 6.16;
 * their headers are linear in practice, and if not they take the fallback.
 */
static __always_inline void pull(struct __sk_buff *skb, __u32 len)
{
	if (likely((void *)(long)skb->data + len <= (void *)(long)skb->data_end || skb->gso_size))
		return;
	if (len > skb->len)
		len = skb->len;
	if ((void *)(long)skb->data + len > (void *)(long)skb->data_end)
		bpf_skb_pull_data(skb, len);
}

/*
 * The IPv4 packet at `offset`, with the key as seen in `direction`. On
 * REASON_TCP_FLAGS the key is valid too. Leaves the TTL to the caller: at an
 * init hook the fallback has decremented it already.
 */
static __always_inline enum reason parse_ipv4(struct __sk_buff *skb, __u32 offset, enum direction direction,
					      struct packet *pkt)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	struct iphdr *ip = data + offset;
	__u8 *l4 = (__u8 *)(ip + 1);
	enum reason reason = REASON_FAST;
	port_t source, dest;
	__u32 l4_len;

	if (unlikely((void *)(l4 + 8) > end))
		return REASON_TRUNCATED;
	if (unlikely(ip->version != 4))
		return REASON_NOT_IPV4;
	if (unlikely(ip->ihl != 5))
		return REASON_IP_OPTIONS;
	if (unlikely(ip->frag_off & bpf_htons(IP_MF | IP_OFFSET)))
		return REASON_FRAGMENT;
	if (unlikely(bpf_ntohs(ip->tot_len) + offset != skb->len))
		return REASON_TRUNCATED;
	if (unlikely(!csum_ipv4_ok(ip)))
		return REASON_CHECKSUM;

	if (ip->protocol == IPPROTO_TCP) {
		__u8 flags;

		if (unlikely((void *)(l4 + sizeof(struct tcphdr)) > end))
			return REASON_TRUNCATED;
		flags = pkt->tcp_flags = l4[TCP_FLAGS_WORD + 1];
		l4_len = (l4[TCP_FLAGS_WORD] >> 4) * 4;
		if (unlikely(l4_len < sizeof(struct tcphdr) || sizeof(*ip) + l4_len > bpf_ntohs(ip->tot_len)))
			return REASON_TRUNCATED;
		if ((flags & (TCP_FIN | TCP_SYN | TCP_RST | TCP_ACK)) != TCP_ACK)
			reason = REASON_TCP_FLAGS;
		source = *(port_t *)l4;
		dest = *(port_t *)(l4 + 2);
	} else if (ip->protocol == IPPROTO_UDP) {
		l4_len = sizeof(struct udphdr);
		if (unlikely(bpf_ntohs(*(__be16 *)(l4 + 4)) + sizeof(*ip) != bpf_ntohs(ip->tot_len)))
			return REASON_TRUNCATED;
		source = *(port_t *)l4;
		dest = *(port_t *)(l4 + 2);
	} else if (ip->protocol == IPPROTO_ICMP) {
		__be16 id = *(__be16 *)(l4 + 4);

		l4_len = ICMP_HEADER_LEN;
		if (unlikely(l4[1] || (l4[0] != ICMP_ECHO && l4[0] != ICMP_ECHOREPLY)))
			return REASON_PROTOCOL;
		source = l4[0] == ICMP_ECHO ? id : 0;
		dest = l4[0] == ICMP_ECHO ? 0 : id;
	} else {
		return REASON_PROTOCOL;
	}

	pkt->key.local_ip = direction == DIRECTION_EGRESS ? ip->saddr : ip->daddr;
	pkt->key.remote_ip = direction == DIRECTION_EGRESS ? ip->daddr : ip->saddr;
	pkt->key.local_port = direction == DIRECTION_EGRESS ? source : dest;
	pkt->key.remote_port = direction == DIRECTION_EGRESS ? dest : source;
	*(__u32 *)&pkt->key.proto = bpf_htole32(ip->protocol);	/* and the padding */
	__builtin_memcpy(&pkt->head, ip, sizeof(pkt->head));
	pkt->size = skb->gso_size ? sizeof(*ip) + l4_len + skb->gso_size : bpf_ntohs(ip->tot_len);
	return reason;
}

/* struct ethhdr is packed: read through it, the compiler would load bytes. */
static __always_inline __be16 ethertype(const struct ethhdr *eth)
{
	return *(const __be16 *)((const void *)eth + 2 * ETH_ALEN);
}

/* An IPv4 frame of a pod. */
static __always_inline enum reason parse_frame(struct __sk_buff *skb, enum direction direction, struct packet *pkt)
{
	struct ethhdr *eth;

	pull(skb, sizeof(*eth) + sizeof(struct iphdr) + sizeof(struct tcphdr));
	eth = (void *)(long)skb->data;
	if (unlikely((void *)(eth + 1) > (void *)(long)skb->data_end))
		return REASON_TRUNCATED;
	if (unlikely(skb->vlan_present))
		return REASON_VLAN;
	if (ethertype(eth) != bpf_htons(ETH_P_IP))
		return ethertype(eth) == bpf_htons(ETH_P_8021Q) || ethertype(eth) == bpf_htons(ETH_P_8021AD) ?
		       REASON_VLAN : REASON_NOT_IPV4;
	return parse_ipv4(skb, sizeof(*eth), direction, pkt);
}

/* The answer to a connection request: the first packet of a connection that connection tracking calls established. */
static __always_inline int is_syn_ack(const struct packet *pkt)
{
	return (pkt->tcp_flags & (TCP_FIN | TCP_SYN | TCP_RST | TCP_ACK)) == (TCP_SYN | TCP_ACK);
}

/* A packet that may teach: not one that connection tracking has to see, but for a SYN-ACK. */
static __always_inline int is_teacher(enum reason reason, const struct packet *pkt)
{
	return !reason || (reason == REASON_TCP_FLAGS && is_syn_ack(pkt));
}

/* Seen without pulling anything: certainly not a tunnel's packet. */
static __always_inline int is_not_udp(struct __sk_buff *skb)
{
	const struct ethhdr *eth = (void *)(long)skb->data;
	const struct iphdr *ip = (void *)(eth + 1);

	if ((void *)(ip + 1) > (void *)(long)skb->data_end)
		return 0;
	return ethertype(eth) != bpf_htons(ETH_P_IP) || ip->protocol != IPPROTO_UDP;
}

/* The outer header if it is there in full, whatever it says. */
static __always_inline struct outer *outer_get(struct __sk_buff *skb)
{
	struct outer *outer = (void *)(long)skb->data;

	return (void *)(outer + 1) <= (void *)(long)skb->data_end ? outer : NULL;
}

/* The tunnel that a UDP packet to this port on this device may belong to; the VNI decides between several. */
static __always_inline struct tunnel *tunnel_of(struct control *ctl, ifindex_t uplink, port_t port, vni_t vni,
						int *port_known)
{
	__u32 i;

	for (i = 0; i < TUNNELS_MAX; i++) {
		struct tunnel *tunnel = &ctl->tunnels[i];

		if (i >= ctl->tunnel_count)
			break;
		if (tunnel->port != port || tunnel->uplink != uplink)
			continue;
		*port_known = 1;
		if (tunnel->vni == vni || tunnel->flags & TUNNEL_FLOW_BASED)
			return tunnel;
	}
	return NULL;
}

/* Whether the outer header, but for its addresses, is one that the fast path replays. */
static __always_inline enum reason outer_check(struct __sk_buff *skb, const struct outer *outer,
						const struct tunnel *tunnel)
{
	const struct iphdr *ip = &outer->ip;

	if (unlikely(ip->version != 4 || ip->ihl != 5 || ip->frag_off & bpf_htons(IP_MF | IP_OFFSET) ||
		     outer->udp.check || outer->tunnel.first != tunnel->header ||
		     *(__u8 *)((void *)&outer->tunnel.vni + 3)))
		return REASON_OUTER;
	if (unlikely(bpf_ntohs(ip->tot_len) + sizeof(struct ethhdr) != skb->len ||
		     bpf_ntohs(outer->udp.len) + sizeof(*ip) != bpf_ntohs(ip->tot_len)))
		return REASON_TRUNCATED;
	if (unlikely(!csum_ipv4_ok(ip)))
		return REASON_CHECKSUM;
	if (unlikely(ethertype(&outer->inner_eth) != bpf_htons(ETH_P_IP)))
		return REASON_NOT_IPV4;
	return REASON_FAST;
}

#endif
