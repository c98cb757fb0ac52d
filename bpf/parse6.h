/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Likewise as parse.h for inner IPv6. Reads only. */
#ifndef ONCACHE_PARSE6_H
#define ONCACHE_PARSE6_H

#include "parse.h"
#include <linux/ipv6.h>

#define ICMPV6_ECHO_REQUEST 128
#define ICMPV6_ECHO_REPLY 129
#define TCLASS_SHIFT 20		/* of the traffic class in the header's first word */

/* Extension headers (RFC 8200 and the IANA registry) but for ESP and "no next header", which carry no known packet. */
#define NEXTHDR_HOP 0
#define NEXTHDR_ROUTING 43
#define NEXTHDR_FRAGMENT 44
#define NEXTHDR_AUTH 51
#define NEXTHDR_DEST 60
#define NEXTHDR_MOBILITY 135
#define NEXTHDR_HIP 139
#define NEXTHDR_SHIM6 140

/* An inner packet. `head` is the part of its IPv6 header that the fast path rewrites: all but the addresses. */
struct packet6 {
	struct flow_key6 key;
	struct {
		__be32 first;	/* version, traffic class, flow label */
		__be16 payload_len;
		__u8 nexthdr, hop_limit;
	} head;
	__u16 sum;	/* one's complement sum of `head` as it came */
	__u8 tcp_flags;
	__u32 size;	/* of the largest IPv6 packet on the wire, bytes: a GSO packet's segments */
};

static __always_inline __u8 tclass(const struct packet6 *pkt)
{
	return bpf_ntohl(pkt->head.first) >> TCLASS_SHIFT;
}

static __always_inline int is_extension(__u8 nexthdr)
{
	return nexthdr == NEXTHDR_HOP || nexthdr == NEXTHDR_ROUTING || nexthdr == NEXTHDR_AUTH ||
	       nexthdr == NEXTHDR_DEST || nexthdr == NEXTHDR_MOBILITY || nexthdr == NEXTHDR_HIP ||
	       nexthdr == NEXTHDR_SHIM6;
}

/*
 * Not the address of one host, whoever asks: fe80::/10 is another one on each
 * link, ff00::/8 is many. ::ffff:0:0/96 must not be on the wire at all, and is
 * what the ingress cache calls IPv4 pods.
 */
static __always_inline int is_scoped(const struct in6_addr *ip)
{
	const __be32 *w = ip->s6_addr32;

	return (w[0] & bpf_htonl(0xff000000)) == bpf_htonl(0xff000000) ||
	       (w[0] & bpf_htonl(0xffc00000)) == bpf_htonl(0xfe800000) ||
	       (!w[0] && !w[1] && w[2] == bpf_htonl(0xffff));
}

static __always_inline void ip6_copy(ipv6_t *to, const struct in6_addr *from)
{
	const __be32 *w = from->s6_addr32;

	to->w[0] = w[0];
	to->w[1] = w[1];
	to->w[2] = w[2];
	to->w[3] = w[3];
}

/* The IPv6 packet at `offset`; otherwise as parse_ipv4(). */
static __always_inline enum reason parse_ipv6(struct __sk_buff *skb, __u32 offset, enum direction direction,
					      struct packet6 *pkt)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	struct ipv6hdr *ip = data + offset;
	__u8 *l4 = (__u8 *)(ip + 1);
	enum reason reason = REASON_FAST;
	port_t source, dest;
	__u32 l4_len, payload_len;

	if ((void *)(l4 + 8) > end)
		return REASON_TRUNCATED;
	if (*(__u8 *)ip >> 4 != 6)
		return REASON_NOT_IPV4;
	if (ip->nexthdr == NEXTHDR_FRAGMENT)
		return REASON_FRAGMENT;
	if (is_extension(ip->nexthdr))
		return REASON_EXTENSION;
	payload_len = bpf_ntohs(ip->payload_len);
	if (payload_len + sizeof(*ip) + offset != skb->len)
		return REASON_TRUNCATED;

	if (ip->nexthdr == IPPROTO_TCP) {
		__u8 flags;

		if ((void *)(l4 + sizeof(struct tcphdr)) > end)
			return REASON_TRUNCATED;
		flags = pkt->tcp_flags = l4[TCP_FLAGS_WORD + 1];
		l4_len = (l4[TCP_FLAGS_WORD] >> 4) * 4;
		if (l4_len < sizeof(struct tcphdr) || l4_len > payload_len)
			return REASON_TRUNCATED;
		if ((flags & (TCP_FIN | TCP_SYN | TCP_RST | TCP_ACK)) != TCP_ACK)
			reason = REASON_TCP_FLAGS;
		source = *(port_t *)l4;
		dest = *(port_t *)(l4 + 2);
	} else if (ip->nexthdr == IPPROTO_UDP) {
		l4_len = sizeof(struct udphdr);
		if (bpf_ntohs(*(__be16 *)(l4 + 4)) != payload_len)
			return REASON_TRUNCATED;
		source = *(port_t *)l4;
		dest = *(port_t *)(l4 + 2);
	} else if (ip->nexthdr == IPPROTO_ICMPV6) {
		__be16 id = *(__be16 *)(l4 + 4);

		/* Neighbour discovery, multicast listeners, errors: not for us to touch. */
		l4_len = ICMP_HEADER_LEN;
		if (l4[1] || (l4[0] != ICMPV6_ECHO_REQUEST && l4[0] != ICMPV6_ECHO_REPLY))
			return REASON_PROTOCOL;
		source = l4[0] == ICMPV6_ECHO_REQUEST ? id : 0;
		dest = l4[0] == ICMPV6_ECHO_REQUEST ? 0 : id;
	} else {
		return REASON_PROTOCOL;
	}
	if (is_scoped(&ip->saddr) || is_scoped(&ip->daddr))
		return REASON_SCOPE;

	ip6_copy(&pkt->key.local_ip, direction == DIRECTION_EGRESS ? &ip->saddr : &ip->daddr);
	ip6_copy(&pkt->key.remote_ip, direction == DIRECTION_EGRESS ? &ip->daddr : &ip->saddr);
	pkt->key.local_port = direction == DIRECTION_EGRESS ? source : dest;
	pkt->key.remote_port = direction == DIRECTION_EGRESS ? dest : source;
	*(__u32 *)&pkt->key.proto = bpf_htole32(ip->nexthdr);	/* and the padding */
	__builtin_memcpy(&pkt->head, ip, sizeof(pkt->head));
	pkt->sum = csum_fold((__u64)((__u32 *)ip)[0] + ((__u32 *)ip)[1]);
	pkt->size = skb->gso_size ? sizeof(*ip) + l4_len + skb->gso_size : sizeof(*ip) + payload_len;
	return reason;
}

/* Whether a pod's frame says that it carries IPv6. */
static __always_inline int frame_is_ipv6(struct __sk_buff *skb)
{
	const struct ethhdr *eth = (void *)(long)skb->data;

	return (void *)(eth + 1) <= (void *)(long)skb->data_end && ethertype(eth) == bpf_htons(ETH_P_IPV6);
}

/* An IPv6 frame of a pod; its VLAN tag has been looked for. */
static __always_inline enum reason parse_frame6(struct __sk_buff *skb, enum direction direction, struct packet6 *pkt)
{
	pull(skb, ETH_HLEN + sizeof(struct ipv6hdr) + sizeof(struct tcphdr));
	return frame_is_ipv6(skb) ? parse_ipv6(skb, ETH_HLEN, direction, pkt) : REASON_TRUNCATED;
}

/* An IPv6 packet in a tunnel packet whose outer header was checked. */
static __always_inline enum reason parse_tunnelled6(struct __sk_buff *skb, enum direction direction, struct packet6 *pkt)
{
	struct outer *outer;

	pull(skb, INNER_OFFSET + sizeof(struct ipv6hdr) + sizeof(struct tcphdr));
	outer = outer_get(skb);
	if (!outer || ethertype(&outer->inner_eth) != bpf_htons(ETH_P_IPV6))
		return REASON_NOT_IPV4;
	return parse_ipv6(skb, INNER_OFFSET, direction, pkt);
}

#endif
