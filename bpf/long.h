/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * The fast path for long outer headers: IPv6 underlay, and Geneve options over
 * either. Apart, so that the header of 64 bytes pays nothing: egress comes here
 * where a host says TUNNEL_LONG, ingress where a packet is not IPv4 or its
 * tunnel header is not the device's plain one. Otherwise as oncache.bpf.c and
 * ipv6.h, in the same order. dscp mode knows the short header only.
 */
#ifndef ONCACHE_LONG_H
#define ONCACHE_LONG_H

#include "encap.h"
#include "encap6.h"
#include "envelope.h"

#define LONG_FLAGS(l3) (BPF_F_ADJ_ROOM_FIXED_GSO | BPF_F_ADJ_ROOM_ENCAP_L3_##l3 | BPF_F_ADJ_ROOM_ENCAP_L4_UDP | \
			BPF_F_ADJ_ROOM_ENCAP_L2(ETH_HLEN) | BPF_F_ADJ_ROOM_ENCAP_L2_ETH)
/* Of a later linux/bpf.h than may be installed; Linux 6.3. */
#define ADJ_ROOM_DECAP_L3_IPV4 (1ULL << 7)

/* What of an inner packet shows in its outer header. */
struct contents {
	__u16 len;		/* without Ethernet */
	port_t outer_port;
	__be16 df;		/* IP_DF or 0 */
	__be16 proto;		/* EtherType */
	__u8 tos, ttl;		/* ttl: as it will be outside if that is inherited */
	__be32 label;		/* flow label */
};

/* Fills what is left open in a host's header. */
static __always_inline void header_fill(struct host *host, const struct contents *contents, __u32 len, __u32 segments,
					void *out)
{
	__u32 flags = host->tunnel_flags;
	__u8 tos = ecn_encapsulate(contents->tos);

	if (flags & TUNNEL_TOS_INHERIT)
		tos |= contents->tos & ~ECN_MASK;
	if (flags & TUNNEL_IPV6) {
		struct outer6 *outer = out;
		struct ip6 *ip = &outer->ip;
		__u16 payload_len = len - sizeof(*outer) + sizeof(outer->udp) + sizeof(outer->tunnel) + ETH_HLEN +
				    contents->len;

		ip->first |= bpf_htonl((__u32)tos << TCLASS_SHIFT);
		if (flags & TUNNEL_LABEL_INHERIT)
			ip->first |= contents->label;
		if (flags & TUNNEL_TTL_INHERIT)
			ip->hop_limit = contents->ttl;
		ip->payload_len = bpf_htons(payload_len);
		outer->udp.len = bpf_htons(payload_len);
		outer->udp.source = contents->outer_port;
	} else {
		struct outer *outer = out;
		struct iphdr *ip = &outer->ip;
		__u16 tot_len = len + contents->len;	/* of what is added, the inner Ethernet header makes up for the outer one */
		__u32 sum = host->checksum;

		if (flags & TUNNEL_TTL_INHERIT) {
			ip->ttl = contents->ttl;
			sum += bpf_htons((__u16)ip->ttl << 8);
		}
		if (flags & TUNNEL_DF_INHERIT) {
			ip->frag_off = contents->df;
			sum += ip->frag_off;
		}
		ip->tos |= tos;
		ip->tot_len = bpf_htons(tot_len);
		ip->id = bpf_htons(__sync_fetch_and_add(&host->ip_id, segments ? segments : 1));
		ip->check = ~csum_fold((__u64)sum + bpf_htons(tos) + ip->tot_len + ip->id);
		outer->udp.len = bpf_htons(tot_len - sizeof(*ip));
		outer->udp.source = contents->outer_port;
	}
}

/*
 * Makes room for `len` bytes of outer header and puts it and the inner Ethernet
 * header into `out`, to be written together with what changes behind them (the
 * callers have used up the stack, so that is a map's). CHANGE_REFUSED or
 * CHANGE_DONE.
 */
static __always_inline enum change envelope_close(struct __sk_buff *skb, struct host *host, const struct pod *pod,
						  const struct contents *contents, __u32 len, void *out)
{
	const struct outer *template = (const void *)host->template;
	__u32 segments = skb->gso_segs;
	struct ethhdr *inner;
	long failed;

	if (host->tunnel_flags & TUNNEL_IPV6)
		failed = bpf_skb_adjust_room(skb, len, BPF_ADJ_ROOM_MAC, LONG_FLAGS(IPV6));
	else
		failed = bpf_skb_adjust_room(skb, len, BPF_ADJ_ROOM_MAC, LONG_FLAGS(IPV4));
	if (failed)
		return CHANGE_REFUSED;

	words_copy(out, host->header, LONG_MAX);
	header_fill(host, contents, len, segments, out);
	inner = out + len;
	__builtin_memcpy(inner, &template->inner_eth, sizeof(*inner));
	if (host->tunnel_flags & TUNNEL_BRIDGED)
		__builtin_memcpy(inner->h_source, pod->macs, ETH_ALEN);
	inner->h_proto = contents->proto;
	return CHANGE_DONE;
}

static __noinline int egress_long(struct __sk_buff *skb, struct packet *pkt, struct flow *flow, struct host *host,
				  const struct pod *pod)
{
	__u32 bytes = skb->len, flags = flow->egress.flags, routed = !(host->tunnel_flags & TUNNEL_BRIDGED);
	__u32 len = host->header_len, size = ETH_HLEN + sizeof(pkt->head);
	void *out = draft_header_get(), *head;
	struct contents contents = {
		.len = bpf_ntohs(pkt->head.tot_len),
		.outer_port = flow->egress.outer_port,
		.df = pkt->head.frag_off & bpf_htons(IP_DF),
		.proto = bpf_htons(ETH_P_IP),
		.tos = pkt->head.tos,
		.ttl = pkt->head.ttl - routed,
	};

	if (bytes > 65535 + ETH_HLEN - LONG_MAX)
		return pass(skb, DIRECTION_EGRESS, REASON_MTU);
	if (!out || !is_header_len(&len) || envelope_close(skb, host, pod, &contents, len, out))
		return pass(skb, DIRECTION_EGRESS, REASON_REFUSED);
	if (flags & VERDICT_TRANSLATED)
		translate_head(pkt, flow);
	if (routed)
		decrease_ttl(pkt);
	head = out + len + ETH_HLEN;
	__builtin_memcpy(head, &pkt->head, sizeof(pkt->head));
	if (flags & VERDICT_TRANSLATED) {
		translate_ends(head + sizeof(pkt->head), flow, 0);
		size += sizeof(struct ends);
	}
	if (bpf_skb_store_bytes(skb, 0, out, len + size, 0) ||
	    (flags & VERDICT_TRANSLATED &&
	     translate_checksum(skb, len + ETH_HLEN + sizeof(struct iphdr), pkt->key.proto, flow->address_sum,
				flow->port_sum))) {
		count(DIRECTION_EGRESS, REASON_DROP, bytes);
		return DROP;
	}
	count_hit(skb, flow, DIRECTION_EGRESS, bytes);
	return bpf_redirect(host->uplink, 0);
}

static __noinline int egress_long6(struct __sk_buff *skb, struct packet6 *pkt, struct flow6 *flow, struct host *host,
				   const struct pod *pod)
{
	__u32 bytes = skb->len, flags = flow->egress.flags, routed = !(host->tunnel_flags & TUNNEL_BRIDGED);
	__u32 len = host->header_len, size = ETH_HLEN + sizeof(pkt->head);
	void *out = draft_header_get(), *head;
	struct contents contents = {
		.len = bpf_ntohs(pkt->head.payload_len) + sizeof(struct ipv6hdr),
		.outer_port = flow->egress.outer_port,
		.df = bpf_htons(IP_DF),		/* as encapsulate6() */
		.proto = bpf_htons(ETH_P_IPV6),
		.tos = tclass(pkt),
		.ttl = pkt->head.hop_limit - routed,
		.label = pkt->head.first & bpf_htonl(FLOW_LABEL),
	};

	if (bytes > 65535 + ETH_HLEN - LONG_MAX)
		return pass(skb, DIRECTION_EGRESS, REASON_MTU);
	if (!out || !is_header_len(&len) || envelope_close(skb, host, pod, &contents, len, out))
		return pass(skb, DIRECTION_EGRESS, REASON_REFUSED);
	pkt->head.hop_limit -= routed;
	head = out + len + ETH_HLEN;
	__builtin_memcpy(head, &pkt->head, sizeof(pkt->head));
	if (flags & VERDICT_TRANSLATED) {
		translate_ends6(head + sizeof(pkt->head), flow, 0);
		size += sizeof(struct ends6);
	}
	if (bpf_skb_store_bytes(skb, 0, out, len + size, 0) ||
	    (flags & VERDICT_TRANSLATED && translate_checksum6(skb, len + ETH_HLEN, pkt->key.proto, flow))) {
		count(DIRECTION_EGRESS, REASON_DROP, bytes);
		return DROP;
	}
	count_hit(skb, (struct flow *)flow, DIRECTION_EGRESS, bytes);
	return bpf_redirect(host->uplink, 0);
}

/*
 * Takes the outer header off. The stack goes by skb->protocol, which was the
 * outer header's. `renamed`: it is the inner one's now; as decapsulate6().
 */
static __always_inline enum change envelope_remove(struct __sk_buff *skb, const struct envelope *env, int to_ipv6,
						   int *renamed)
{
	__u64 rename = !!env->is_ipv6 == to_ipv6 ? 0 : to_ipv6 ? ADJ_ROOM_DECAP_L3_IPV6 : ADJ_ROOM_DECAP_L3_IPV4;
	__s32 len = env->len;

	*renamed = 1;
	if (bpf_skb_adjust_room(skb, -len, BPF_ADJ_ROOM_MAC, DECAP_FLAGS | rename)) {
		*renamed = 0;
		if (!rename || bpf_skb_adjust_room(skb, -len, BPF_ADJ_ROOM_MAC, DECAP_FLAGS))
			return CHANGE_REFUSED;
	}
	bpf_csum_level(skb, BPF_CSUM_LEVEL_DEC);
	return CHANGE_DONE;
}

/* As ingress_check(). */
static __always_inline enum reason envelope_check(struct __sk_buff *skb, const struct envelope *env, __u32 size,
						  __u32 options, const struct found *found)
{
	const struct outer *template = (const void *)found->host->template;
	const struct host *host = found->host;

	/* IPv4 addresses are kept as IPv6 ones, which a packet over IPv6 could have. */
	if (env->is_ipv6 != !!(host->tunnel_flags & TUNNEL_IPV6))
		return REASON_PEER;
	if (!ip6_equal(&env->source, &host->remote_ip) || !ip6_equal(&env->destination, &host->local_ip) ||
	    env->vni != host->vni || skb->ifindex != host->uplink || skb->pkt_type != PACKET_HOST)
		return REASON_PEER;
	if (host->tunnel_flags & TUNNEL_FLOW_BASED) {
		if (!mac_equal(env->inner_dest.b, template->inner_eth.h_dest))
			return REASON_MAC;
	} else if (!mac_equal(env->inner_source.b, template->inner_eth.h_dest) ||
	    !mac_equal(env->inner_dest.b,
		       found->flags & VERDICT_BRIDGED ? found->pod->macs : template->inner_eth.h_source)) {
		return REASON_MAC;
	}
	if (env->options != options)
		return REASON_OPTIONS;
	return size > found->pod->mtu ? REASON_MTU : REASON_FAST;
}

__noinline int ingress_long4(struct __sk_buff *skb)
{
	const enum direction direction = DIRECTION_INGRESS;
	const struct envelope *env = envelope_get();
	struct control *ctl = control_get();
	const struct outer *template;
	struct found found = {};
	enum change change;
	struct packet pkt;
	enum reason reason;
	__u32 bytes, offset;
	int renamed;

	if (!skb || !ctl || !env)
		return NEXT;
	bytes = skb->len - env->len;
	offset = inner_offset(env->len);
	pull(skb, offset + sizeof(struct iphdr) + sizeof(struct tcphdr));
	reason = parse_ipv4(skb, offset, direction, &pkt);
	if (reason == REASON_TCP_FLAGS) {
		tcp_control_ask(skb, ctl, &pkt, direction);
		note_arrival(skb, &pkt.key, env->is_geneve, env->options);
	} else if (!reason && pkt.head.ttl <= 1) {
		reason = REASON_TTL;
	}
	if (reason)
		return pass_bytes(direction, reason, bytes);

	reason = look_up(ctl, filter_cache_get(&pkt.key), direction, &found);
	if (!reason)
		reason = envelope_check(skb, env, pkt.size, found.flow->options, &found);
	if (!reason && !ecn_decapsulate(&pkt, env->tos))
		reason = REASON_OUTER;
	if (reason) {
		reason = miss_ask(skb, ctl, &pkt, &found, direction, reason);
		note_arrival(skb, &pkt.key, env->is_geneve, env->options);
		return pass_bytes(direction, reason, bytes);
	}

	if (found.flags & VERDICT_TRANSLATED)
		translate_head(&pkt, found.flow);
	if (envelope_remove(skb, env, 0, &renamed))
		return pass_bytes(direction, REASON_REFUSED, bytes);
	template = (const void *)found.host->template;
	change = found.flags & VERDICT_BRIDGED ?
		 readdress_bridged(skb, &pkt, found.pod, template->inner_eth.h_dest, found.flow, found.flags) :
		 readdress(skb, &pkt, found.pod, found.flow, found.flags);
	if (change) {
		count(direction, REASON_DROP, bytes);
		return DROP;
	}
	count_hit(skb, found.flow, direction, bytes);
	return renamed ? deliver(skb, found.pod) : bpf_redirect(found.pod->veth, 0);
}

__noinline int ingress_long6(struct __sk_buff *skb)
{
	const enum direction direction = DIRECTION_INGRESS;
	const struct envelope *env = envelope_get();
	struct control *ctl = control_get();
	const struct outer *template;
	struct found found = {};
	enum change change;
	struct packet6 pkt;
	struct flow6 *flow;
	enum reason reason;
	__u32 bytes, offset;
	int renamed;

	if (!skb || !ctl || !env)
		return NEXT;
	bytes = skb->len - env->len;
	offset = inner_offset(env->len);
	pull(skb, offset + sizeof(struct ipv6hdr) + sizeof(struct tcphdr));
	reason = parse_ipv6(skb, offset, direction, &pkt);
	if (reason == REASON_TCP_FLAGS) {
		tcp_control_ask6(skb, ctl, &pkt);
		note_arrival6(skb, &pkt.key, env->is_geneve, env->options);
	} else if (!reason && pkt.head.hop_limit <= 1) {
		reason = REASON_TTL;
	}
	if (reason)
		return pass_bytes(direction, reason, bytes);

	flow = filter_cache6_get(&pkt.key);
	reason = look_up(ctl, (struct flow *)flow, direction, &found);
	if (!reason && flow)
		reason = envelope_check(skb, env, pkt.size, flow->options, &found);
	if (!reason && !ecn_decapsulate6(&pkt, env->tos))
		reason = REASON_OUTER;
	if (reason || !flow) {
		reason = miss_ask6(skb, ctl, &pkt, &found, direction, reason);
		note_arrival6(skb, &pkt.key, env->is_geneve, env->options);
		return pass_bytes(direction, reason, bytes);
	}

	if (envelope_remove(skb, env, 1, &renamed))
		return pass_bytes(direction, REASON_REFUSED, bytes);
	template = (const void *)found.host->template;
	change = found.flags & VERDICT_BRIDGED ?
		 readdress_bridged6(skb, &pkt, found.pod, template->inner_eth.h_dest, flow, found.flags) :
		 readdress6(skb, &pkt, found.pod, flow, found.flags);
	if (change) {
		count(direction, REASON_DROP, bytes);
		return DROP;
	}
	count_hit(skb, found.flow, direction, bytes);
	return renamed ? deliver(skb, found.pod) : bpf_redirect(found.pod->veth, 0);
}

/*
 * A UDP packet arrives that may be a tunnel's, with another outer header than
 * the one of 64 bytes: 4 or 6, the version of its inner packet, is for
 * ingress_long4() or ingress_long6(), which find it in envelope_get(); 0: it
 * is not replayed. (Called from here, they would be too deep for the stack.)
 */
__noinline int ingress_long(struct __sk_buff *skb)
{
	struct envelope *env = envelope_get();
	struct control *ctl = control_get();
	enum reason reason;

	if (!skb || !ctl || !env)
		return 0;
	if (!envelope_open(skb, ctl, env) && env->reason != REASON_VNI)
		return 0;
	if (!ctl->using)
		reason = REASON_PAUSED;
	else if (skb->vlan_present)
		reason = REASON_VLAN;
	else if (env->reason)
		reason = env->reason;
	else if (settings.mark_mode == MARK_DSCP)
		reason = env->is_ipv6 ? REASON_IPV6 : REASON_OUTER;
	else
		return env->proto == bpf_htons(ETH_P_IPV6) ? 6 : 4;
	count(DIRECTION_INGRESS, reason, skb->len - env->len);
	return 0;
}

#endif
