/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * The miss mark, from the program that missed to the init program.
 *
 * metadata mode: one bit of skb->mark. It never leaves the host.
 *
 * dscp mode: TOS_MISS in the inner TOS byte; a rule in the fallback adds
 * TOS_ESTABLISHED to established packets that carry it; the init program takes
 * both off again. Since the bits could be anybody's, `pending` records per
 * flow whose they are. Nothing is marked that might reach the init program
 * under another key (translated addresses) or not at all, because nobody could
 * take the mark off there: on egress only what the routing table sends into
 * the tunnel as it stands, on ingress only flows whose egress direction was
 * learned, and never what could be fragmented.
 */
#ifndef ONCACHE_MARK_H
#define ONCACHE_MARK_H

#include "csum.h"
#include "maps.h"
#include "parse.h"

#ifndef AF_INET
#define AF_INET 2
#endif

static __always_inline int tos_write(struct __sk_buff *skb, __u32 offset, const struct packet *pkt, __u8 tos)
{
	__u16 check = csum_replace(pkt->head.check, bpf_htons(0x4500 | pkt->head.tos), bpf_htons(0x4500 | tos));

	return bpf_skb_store_bytes(skb, offset + __builtin_offsetof(struct iphdr, check), &check, sizeof(check), 0) ||
	       bpf_skb_store_bytes(skb, offset + __builtin_offsetof(struct iphdr, tos), &tos, sizeof(tos), 0);
}

static __always_inline void pending_set(const struct flow_key *key, __u32 foreign, __u8 tos, jiffies_t now)
{
	struct pending entry = { .at = now, .foreign = foreign, .tos = tos };

	bpf_map_update_elem(&pending, key, &entry, BPF_ANY);
}

/* dscp mode: the packet's own DSCP uses the bits. It is to arrive as it is, and to teach nothing. */
static __always_inline int mark_is_foreign(const struct packet *pkt, jiffies_t now)
{
	if (settings.mark_mode != MARK_DSCP || !(pkt->head.tos & TOS_MARKS))
		return 0;
	pending_set(&pkt->key, 1, pkt->head.tos, now);
	return 1;
}

static __always_inline int routed_into_tunnel(struct __sk_buff *skb, const struct control *ctl,
					      const struct packet *pkt)
{
	__u32 i;

	for (i = 0; i < TUNNELS_MAX && i < ctl->tunnel_count; i++) {
		const struct tunnel *tunnel = &ctl->tunnels[i & (TUNNELS_MAX - 1)];
		struct bpf_fib_lookup fib = {
			.family = AF_INET,
			.ifindex = tunnel->ifindex,
			.ipv4_src = pkt->key.local_ip,
			.ipv4_dst = pkt->key.remote_ip,
		};
		long found = bpf_fib_lookup(skb, &fib, sizeof(fib), 0);

		if ((found != BPF_FIB_LKUP_RET_SUCCESS && found != BPF_FIB_LKUP_RET_NO_NEIGH) || pkt->size > tunnel->mtu)
			continue;
		if (fib.ifindex == tunnel->ifindex)
			return 1;
		/*
		 * A switch has the host send to it, by a remote gateway, what goes into its tunnel. Pods of this host
		 * have no gateway, Services a link-local one (169.254.0.0/16).
		 */
		if (tunnel->flags & TUNNEL_FLOW_BASED && fib.ifindex == tunnel->gateway &&
		    fib.ipv4_dst != pkt->key.remote_ip && (fib.ipv4_dst & bpf_htonl(0xffff0000)) != bpf_htonl(0xa9fe0000))
			return 1;
	}
	return 0;
}

/* Asks the fallback about this packet. `offset` is that of its IPv4 header. */
static __always_inline void mark_set(struct __sk_buff *skb, const struct control *ctl, const struct packet *pkt,
				     enum direction direction, __u32 offset, int egress_known, jiffies_t now)
{
	struct pending *entry;

	if (settings.mark_mode == MARK_METADATA) {
		skb->mark |= settings.mark;
		return;
	}
	entry = bpf_map_lookup_elem(&pending, &pkt->key);
	if (entry && entry->foreign && now - entry->at < settings.rest)
		return;
	if (direction == DIRECTION_EGRESS ? !routed_into_tunnel(skb, ctl, pkt) : !egress_known)
		return;
	pending_set(&pkt->key, 0, 0, now);
	tos_write(skb, offset, pkt, pkt->head.tos | TOS_MISS);
}

/* What the init program finds on a packet. */
enum marked {
	MARKED_NOT,		/* nothing to learn */
	MARKED,			/* ONCache's mark, now taken off */
	MARKED_DECLINED,	/* dscp mode: likewise, but the fallback did not say "established" */
	MARKED_FORGED,		/* dscp mode: not ONCache's mark */
};

/* dscp mode: reads the mark, takes it off, restores what the fallback's rule did to a foreign one. */
static __always_inline enum marked mark_take_dscp(struct __sk_buff *skb, struct packet *pkt, __u32 offset, jiffies_t now)
{
	struct pending *entry;
	__u8 tos = pkt->head.tos;

	if (!(tos & TOS_MISS))
		return MARKED_NOT;
	entry = bpf_map_lookup_elem(&pending, &pkt->key);
	if (!entry || now - entry->at > settings.rest)
		return MARKED_FORGED;
	if (entry->foreign) {
		__u8 own = (tos & ~TOS_MARKS) | (entry->tos & TOS_MARKS);

		if (own != tos)
			tos_write(skb, offset, pkt, own);
		return MARKED_FORGED;
	}
	tos_write(skb, offset, pkt, tos & ~TOS_MARKS);
	return tos & TOS_ESTABLISHED ? MARKED : MARKED_DECLINED;
}

#endif
