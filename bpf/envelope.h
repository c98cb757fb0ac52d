/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * The outer header of a tunnel packet, whatever its family and length:
 *
 *   | Ethernet 14 | IPv4 20 or IPv6 40 | UDP 8 | VXLAN or Geneve 8 | Geneve options 0..76 | Ethernet 14 | IP ...
 *    <------------------------------- envelope.len ------------------------------------->
 *
 * egress_init goes by it for what is not usual (usual.h). The fast path does
 * only for what is not the 64 bytes of parse.h, in long.h. Reads only.
 */
#ifndef ONCACHE_ENVELOPE_H
#define ONCACHE_ENVELOPE_H

#include "hash.h"
#include "learn.h"
#include "maps.h"
#include "parse6.h"

#define GENEVE_ETHERNET 0x00006558	/* the first word without options: version 0, no flags, Ethernet inside (RFC 8926) */
#define GENEVE_OPTIONS 0x3f400000	/* in it the options' length, and that one of them is critical */
#define GENEVE_LENGTH 0x3f		/* in its first byte, in words */
#define ENVELOPE_MIN (OUTER_LEN - ETH_HLEN)
#define FLOW_LABEL 0x000fffff	/* in the first word of an IPv6 header */

/* struct ipv6hdr with its first word as one. */
struct ip6 {
	__be32 first;	/* version, traffic class, flow label */
	__be16 payload_len;
	__u8 nexthdr, hop_limit;
	ipv6_t saddr, daddr;
};

/* As struct outer, over IPv6; without the inner Ethernet header. */
struct outer6 {
	struct ethhdr eth;
	struct ip6 ip;
	struct udphdr udp;
	struct tunnelhdr tunnel;
} __attribute__((packed, aligned(2)));	/* with 8 it would be padded */

_Static_assert(sizeof(struct outer6) == OUTER_LEN - ETH_HLEN + 20, "outer IPv6 header");

static __always_inline struct envelope *envelope_get(void)
{
	struct scratch *room = scratch_get();

	return room ? &room->envelope : NULL;
}

static __always_inline int is_geneve(const struct tunnel *tunnel)
{
	return tunnel->header == bpf_htonl(GENEVE_ETHERNET);
}

/* Whether a header of 64 bytes has something behind it, or a Geneve option would have to be understood. */
static __always_inline int has_options(const struct outer *outer, const struct tunnel *tunnel)
{
	return is_geneve(tunnel) && outer->tunnel.first != tunnel->header;
}

/*
 * Whether a header can be so long. The compiler would make one comparison of
 * the two, of which a verifier understands nothing (Linux 6.1, 6.12).
 */
static __always_inline int is_header_len(__u32 *len)
{
	if (*len < ENVELOPE_MIN)
		return 0;
	barrier_var(*len);
	return *len <= LONG_MAX;
}

/* Of the inner IP header. A length that is no header's never is, but the verifier cannot know. */
static __always_inline __u32 inner_offset(__u32 header_len)
{
	return header_len > LONG_MAX ? 0 : header_len + ETH_HLEN;
}

/* Whether it is not the header of 64 bytes. */
static __always_inline int is_long(const struct envelope *env)
{
	return env->is_ipv6 || env->options;
}

/* Seen without pulling anything: certainly not a tunnel's packet over IPv6. */
static __always_inline int is_not_udp6(struct __sk_buff *skb)
{
	const struct ethhdr *eth = (void *)(long)skb->data;
	const struct ip6 *ip = (void *)(eth + 1);

	if ((void *)(eth + 1) > (void *)(long)skb->data_end)
		return 0;
	if (ethertype(eth) != bpf_htons(ETH_P_IPV6))
		return 1;
	return (void *)(ip + 1) <= (void *)(long)skb->data_end && ip->nexthdr != IPPROTO_UDP;
}

/*
 * As tunnel_of(), which finds one over IPv4: those are the first. The number
 * of the tunnel, or one of these. A global function: the verifier need not go
 * on with each of eight.
 */
#define TUNNEL_NONE (-1)
#define TUNNEL_OTHER_VNI (-2)	/* but the port is a tunnel's */
__noinline int tunnel_around(const struct control *ctl, const struct envelope *env, ifindex_t uplink, __u32 port)
{
	int found = TUNNEL_NONE;
	__u32 i, family;

	if (!ctl || !env)
		return TUNNEL_NONE;
	family = env->is_ipv6 ? TUNNEL_IPV6 : 0;
	for (i = 0; i < TUNNELS_MAX; i++) {
		const struct tunnel *tunnel = &ctl->tunnels[i];

		if (i >= ctl->tunnel_count)
			break;
		if (tunnel->port != port || tunnel->uplink != uplink)
			continue;
		if (tunnel->flags & TUNNEL_FLOW_BASED)
			return i;
		if ((tunnel->flags & TUNNEL_IPV6) != family)
			continue;
		if (tunnel->vni == env->vni)
			return i;
		found = TUNNEL_OTHER_VNI;
	}
	return found;
}

/*
 * Of a Geneve header with options, `len` bytes at `offset`; never 0. It tells
 * apart what the fallback carried from what it did not; it is no proof of who
 * sent a packet, which the addresses around it are not either.
 */
__noinline __u32 options_digest(struct __sk_buff *skb, __u32 offset, __u32 len)
{
	__u32 words[(LONG_MAX - ETH_HLEN - sizeof(struct iphdr) - sizeof(struct udphdr)) / 4 + 1] = {};
	__u32 digest = 0, i;

	if (!skb || len < sizeof(struct tunnelhdr))
		return 1;
	barrier_var(len);	/* as in is_header_len() */
	if (len > sizeof(words) || bpf_skb_load_bytes(skb, offset, words, len))
		return 1;
	for (i = 0; i < sizeof(words) / 4; i++)
		digest = hash32(digest * 31 + words[i] + 1);
	return digest ? digest : 1;
}

/* What the outer headers themselves say; 0 where they are not those of UDP. `udp` and `tunnel` are found. */
static __always_inline int envelope_read(struct __sk_buff *skb, struct envelope *env, struct udphdr **udp,
					 struct tunnelhdr **tunnel)
{
	struct outer6 *outer6 = (void *)(long)skb->data;
	struct outer *outer = (void *)(long)skb->data;
	__u16 udp_len;

	/* No tunnel packet is shorter, over IPv4 neither. */
	if ((void *)(outer6 + 1) > (void *)(long)skb->data_end)
		return 0;
	if (ethertype(&outer->eth) == bpf_htons(ETH_P_IP) && outer->ip.protocol == IPPROTO_UDP) {
		const struct iphdr *ip = &outer->ip;

		*udp = &outer->udp;
		*tunnel = &outer->tunnel;
		udp_len = bpf_ntohs(ip->tot_len) - sizeof(*ip);
		env->len = ETH_HLEN + sizeof(*ip) + sizeof(struct udphdr) + sizeof(struct tunnelhdr);
		env->tos = ip->tos;
		env->id = ip->id;
		ip6_of(&env->source, ip->saddr);
		ip6_of(&env->destination, ip->daddr);
		if (ip->version != 4 || ip->ihl != 5 || ip->frag_off & bpf_htons(IP_MF | IP_OFFSET))
			env->reason = REASON_OUTER;
		else if (bpf_ntohs(ip->tot_len) + ETH_HLEN != skb->len)
			env->reason = REASON_TRUNCATED;
		else if (!csum_ipv4_ok(ip))
			env->reason = REASON_CHECKSUM;
	} else if (ethertype(&outer6->eth) == bpf_htons(ETH_P_IPV6) && outer6->ip.nexthdr == IPPROTO_UDP) {
		const struct ip6 *ip = &outer6->ip;

		*udp = &outer6->udp;
		*tunnel = &outer6->tunnel;
		udp_len = bpf_ntohs(ip->payload_len);
		env->len = sizeof(*outer6);
		env->tos = bpf_ntohl(ip->first) >> TCLASS_SHIFT;
		env->is_ipv6 = 1;
		env->source = ip->saddr;
		env->destination = ip->daddr;
		if (bpf_ntohl(ip->first) >> 28 != 6)
			env->reason = REASON_OUTER;
		else if (udp_len + ETH_HLEN + sizeof(*ip) != skb->len)
			env->reason = REASON_TRUNCATED;
	} else {
		return 0;
	}
	if (!env->reason && bpf_ntohs((*udp)->len) != udp_len)
		env->reason = REASON_TRUNCATED;
	return 1;
}

/*
 * The tunnel whose packet this is, with `env` filled; NULL: none of ours, or
 * with REASON_VNI, not one of this host's. Addresses are not judged. A UDP
 * checksum (IPv6 has it unless RFC 6935 is made use of) is the fallback's to
 * verify.
 */
static __always_inline struct tunnel *envelope_open(struct __sk_buff *skb, struct control *ctl, struct envelope *env)
{
	struct tunnelhdr *header;
	struct tunnel *tunnel;
	struct udphdr *udp;
	struct ethhdr inner;
	tunnel_word_t first;
	__u32 at, options;
	int found;

	__builtin_memset(env, 0, sizeof(*env));
	pull(skb, sizeof(struct outer6));
	if (!envelope_read(skb, env, &udp, &header))
		return NULL;
	env->vni = header->vni;
	env->source_port = udp->source;
	found = tunnel_around(ctl, env, skb->ifindex, udp->dest);
	if (found < 0) {
		env->reason = found == TUNNEL_OTHER_VNI ? REASON_VNI : REASON_FAST;
		return NULL;
	}
	tunnel = &ctl->tunnels[found & (TUNNELS_MAX - 1)];
	env->is_geneve = is_geneve(tunnel);
	first = header->first;
	if (env->is_geneve)
		first &= ~bpf_htonl(GENEVE_OPTIONS);
	if (first != tunnel->header || env->vni & bpf_htonl(0xff) || udp->check)
		env->reason = REASON_OUTER;
	if (env->reason)
		return tunnel;
	at = env->len - sizeof(*header);
	if (header->first != tunnel->header) {
		options = (*(__u8 *)header & GENEVE_LENGTH) * 4;
		env->len += options;
		if (env->len > LONG_MAX) {
			env->reason = REASON_OUTER;
			return tunnel;
		}
		env->options = options_digest(skb, at, sizeof(*header) + options);
	}
	if (bpf_skb_load_bytes(skb, env->len, &inner, sizeof(inner))) {
		env->reason = REASON_TRUNCATED;
		return tunnel;
	}
	env->proto = inner.h_proto;
	__builtin_memcpy(env->inner_dest.b, inner.h_dest, ETH_ALEN);
	__builtin_memcpy(env->inner_source.b, inner.h_source, ETH_ALEN);
	if (env->proto != bpf_htons(ETH_P_IP) && env->proto != bpf_htons(ETH_P_IPV6))
		env->reason = REASON_NOT_IPV4;
	return tunnel;
}

static __always_inline void carried_key4(struct carried_key *to, const struct flow_key *key, enum direction direction)
{
	ip6_of(&to->flow.local_ip, key->local_ip);
	ip6_of(&to->flow.remote_ip, key->remote_ip);
	to->flow.local_port = key->local_port;
	to->flow.remote_port = key->remote_port;
	*(__u32 *)&to->flow.proto = bpf_htole32(key->proto);
	to->direction = direction;
}

static __always_inline void carried_key6(struct carried_key *to, const struct flow_key6 *key, enum direction direction)
{
	to->flow = *key;
	to->direction = direction;
}

/* The fallback is asked about a packet with this Geneve header. */
static __always_inline void carried_note(const struct carried_key *key, __u32 options, jiffies_t now)
{
	struct carried fresh = { .options = options, .same = 1 };
	struct carried *known = bpf_map_lookup_elem(&carried, key);

	if (!known) {
		bpf_map_update_elem(&carried, key, &fresh, BPF_ANY);
	} else if (known->options == options) {
		if (known->same < OPTIONS_SAME)
			known->same++;
	} else {
		known->changed_at = now;
		known->options = options;
		known->same = 1;
	}
}

enum steadiness {
	STEADY = 0,	/* every packet has had the same options lately */
	STEADY_SOON,	/* likewise, but too few have been seen */
	STEADY_NOT,	/* they vary */
};

/* What `options` the flow's packets have in this direction. */
static __always_inline enum steadiness carried_judge(const struct carried_key *key, jiffies_t now, __u32 *options)
{
	const struct carried *known = bpf_map_lookup_elem(&carried, key);

	if (!known)
		return STEADY_SOON;
	*options = known->options;
	if (known->changed_at && now - known->changed_at <= settings.rest)
		return STEADY_NOT;
	return known->options && known->same < OPTIONS_SAME ? STEADY_SOON : STEADY;
}

#endif
