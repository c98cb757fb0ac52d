// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/*
 * The four programs. Each reads top-down: parse, check, act, verdict. Every
 * check comes before the packet is changed; what is not ours, or not fully
 * understood, goes on to whoever is next on the hook.
 *
 *   pod --[veth]-- egress ........ fallback ........ egress_init --[uplink]-- wire
 *   pod --[veth]-- ingress_init .. fallback ........ ingress ------[uplink]-- wire
 */
#include "oncache.h"
#include "parse.h"
#include "csum.h"
#include "maps.h"
#include "backoff.h"
#include "conntrack.h"
#include "encap.h"
#include "learn.h"
#include "mark.h"

#define NEXT (-1)	/* TCX_NEXT, TC_ACT_UNSPEC */
#define DROP 2		/* TC_ACT_SHOT */

/* What a hit needs, and what else the miss path wants to know. */
struct found {
	struct flow *flow;
	struct host *host;
	struct pod *pod;
	jiffies_t now;
};

/* To the fallback, without a question. */
static __always_inline int pass(struct __sk_buff *skb, enum direction direction, enum reason reason)
{
	count(direction, reason, direction == DIRECTION_EGRESS ? skb->len : skb->len - ENCAP_LEN);
	return NEXT;
}

/* To the fallback, asking it what it does. */
static __always_inline int miss(struct __sk_buff *skb, const struct control *ctl, const struct packet *pkt,
				const struct found *found, enum direction direction, enum reason reason)
{
	__u32 offset = direction == DIRECTION_EGRESS ? ETH_HLEN : INNER_OFFSET;

	if (mark_is_foreign(pkt, found->now))
		reason = REASON_DSCP;
	else if (reason == REASON_FLOW_MISS && backoff_waits(&pkt->key, direction, found->now))
		reason = REASON_BACKOFF;
	else if (ctl->learning && reason != REASON_MTU && reason != REASON_OUTER)
		mark_set(skb, ctl, pkt, direction, offset, found->flow && found->flow->egress.epoch == ctl->epoch,
			 found->now);
	return pass(skb, direction, reason);
}

/*
 * A packet that opens or closes a TCP connection: connection tracking must see
 * it. What is cached of the tuple does not hold for a new connection, and not
 * any more for one that ends. A SYN-ACK teaches its direction, so that of a
 * short connection the request and the answer are fast already.
 */
static __always_inline int tcp_control(struct __sk_buff *skb, const struct control *ctl, const struct packet *pkt,
				       enum direction direction)
{
	__u32 offset = direction == DIRECTION_EGRESS ? ETH_HLEN : INNER_OFFSET;
	jiffies_t now = bpf_jiffies64();
	int is_foreign = mark_is_foreign(pkt, now);

	if (is_syn_ack(pkt)) {
		if (ctl->learning && !is_foreign)
			mark_set(skb, ctl, pkt, direction, offset, filter_cache_get(&pkt->key) != NULL, now);
	} else {
		bpf_map_delete_elem(&filter_cache, &pkt->key);
		backoff_reset(&pkt->key, pkt->tcp_flags & (TCP_FIN | TCP_RST), now);
	}
	return pass(skb, direction, REASON_TCP_FLAGS);
}

/*
 * Whether the verdict of this direction may be replayed now. The other
 * direction must be cached too (the reverse check), so that the fallback's
 * connection tracking has seen both; but only what is used must be fresh.
 */
static __always_inline enum reason usable(struct verdict *used, const struct verdict *reverse, __u32 epoch, jiffies_t now)
{
	jiffies_t age = now - used->confirmed_at;

	if (used->epoch != epoch)
		return REASON_FLOW_MISS;
	if (reverse->epoch != epoch)
		return REASON_REVERSE;
	if (age > settings.max_staleness)
		return REASON_STALE;
	if (age > settings.max_staleness / 2 && now - used->sampled_at > settings.retry) {
		used->sampled_at = now;
		return REASON_SAMPLE;
	}
	return REASON_FAST;
}

static __always_inline enum reason look_up(const struct control *ctl, const struct packet *pkt,
					   enum direction direction, struct found *found)
{
	struct flow *flow = filter_cache_get(&pkt->key);
	enum reason reason;

	found->flow = flow;
	found->now = bpf_jiffies64();
	if (!flow)
		return REASON_FLOW_MISS;
	if (direction == DIRECTION_EGRESS)
		reason = usable(&flow->egress, &flow->ingress, ctl->epoch, found->now);
	else
		reason = usable(&flow->ingress, &flow->egress, ctl->epoch, found->now);
	if (reason)
		return reason;
	found->host = egress_cache_get(flow->egress.ref);
	if (!found->host)
		return REASON_HOST_MISS;
	found->pod = ingress_cache_get(flow->ingress.ref);
	if (!found->pod)
		return REASON_POD_MISS;
	return REASON_FAST;
}

static __always_inline void count_hit(struct __sk_buff *skb, struct flow *flow, enum direction direction, __u32 bytes)
{
	count(direction, REASON_FAST, bytes);
	if (settings.count_flows)
		__sync_fetch_and_add(&flow->packets[direction], 1);
}

/* Whether this packet is one of the pod that the flow belongs to, and may be sent as the others were. */
static __always_inline enum reason egress_check(struct __sk_buff *skb, const struct packet *pkt,
						const struct found *found)
{
	const void *frame = (void *)(long)skb->data;

	if (found->pod->veth != skb->ifindex)
		return REASON_VETH;
	if (frame + ETH_HLEN > (void *)(long)skb->data_end ||
	    !words_equal(frame, found->pod->from_pod, sizeof(found->pod->from_pod)))
		return REASON_MAC;
	if (pkt->size > found->host->mtu || skb->len > 65535 + ETH_HLEN - ENCAP_LEN)
		return REASON_MTU;
	return REASON_FAST;
}

/* A packet leaves a pod: host-side veth, tc ingress. */
SEC("tc")
int egress(struct __sk_buff *skb)
{
	const enum direction direction = DIRECTION_EGRESS;
	struct control *ctl = control_get();
	struct found found = {};
	struct packet pkt;
	enum reason reason;
	__u32 bytes = skb->len;

	if (!ctl)
		return NEXT;
	if (!ctl->using)
		return pass(skb, direction, REASON_PAUSED);
	reason = parse_frame(skb, direction, &pkt);
	if (reason == REASON_TCP_FLAGS)
		return tcp_control(skb, ctl, &pkt, direction);
	if (!reason && pkt.head.ttl <= 1)
		reason = REASON_TTL;
	if (reason)
		return pass(skb, direction, reason);

	reason = look_up(ctl, &pkt, direction, &found);
	if (!reason)
		reason = egress_check(skb, &pkt, &found);
	if (reason)
		return miss(skb, ctl, &pkt, &found, direction, reason);

	switch (encapsulate(skb, &pkt, found.host, found.flow->egress.outer_port)) {
	case CHANGE_REFUSED:
		return pass(skb, direction, REASON_REFUSED);
	case CHANGE_BROKEN:
		count(direction, REASON_DROP, bytes);
		return DROP;
	case CHANGE_DONE:
		break;
	}
	count_hit(skb, found.flow, direction, bytes);
	return bpf_redirect(found.host->uplink, 0);
}

/* Teaches from a packet that the fallback has encapsulated. */
static __noinline int egress_lesson(struct __sk_buff *skb, struct packet *pkt, struct control *ctl,
				    struct tunnel *tunnel, jiffies_t now)
{
	struct verdict verdict = { .confirmed_at = now };
	struct host host = {};
	struct outer *outer;
	struct outer *template = (void *)host.template;

	if (!skb || !pkt || !ctl || !tunnel)
		return LESSON_UNFIT;
	outer = outer_get(skb);
	if (!outer)
		return LESSON_UNFIT;
	/* Routed by this host through the tunnel device: its MAC is the inner source. */
	if (!mac_equal(outer->inner_eth.h_source, tunnel->mac.b) || outer->inner_eth.h_dest[0] & 1)
		return LESSON_UNFIT;

	verdict.epoch = ctl->epoch;
	verdict.outer_port = outer->udp.source;
	host.uplink = skb->ifindex;
	host.remote_ip = outer->ip.daddr;
	host.local_ip = outer->ip.saddr;
	host.vni = tunnel->vni;
	host.mtu = tunnel->mtu;
	host.tunnel_flags = tunnel->flags;
	host.tunnel = tunnel->ifindex;
	/* Away from the IDs that the tunnel device itself is using. */
	host.ip_id = bpf_ntohs(outer->ip.id) + 0x8000;

	words_copy(template, outer, OUTER_LEN);
	template->ip.tot_len = 0;
	template->ip.id = 0;
	template->ip.check = 0;
	template->ip.tos &= ~ECN_MASK;
	if (tunnel->flags & TUNNEL_TOS_INHERIT)
		template->ip.tos = 0;
	if (tunnel->flags & TUNNEL_TTL_INHERIT)
		template->ip.ttl = 0;
	if (tunnel->flags & TUNNEL_DF_INHERIT)
		template->ip.frag_off = 0;
	template->udp.source = 0;
	template->udp.len = 0;
	host.checksum = csum_fold(csum_ipv4_stack(&template->ip));

	verdict.ref = egress_cache_learn(&host, now);
	if (!verdict.ref)
		return LESSON_FULL;
	return filter_cache_learn(&pkt->key, DIRECTION_EGRESS, &verdict);
}

static __always_inline enum lesson lesson_allowed(const struct control *ctl, jiffies_t now)
{
	return ctl->learning && now >= ctl->learn_after ? LESSON_LEARNED : LESSON_PAUSED;
}

/* What connection tracking, or in dscp mode the fallback's rule, says of the flow; a refusal is remembered. */
static __always_inline enum lesson established(struct __sk_buff *skb, const struct packet *pkt,
					       enum direction direction, enum marked marked, jiffies_t now)
{
	enum lesson lesson;

	if (settings.mark_mode == MARK_DSCP)
		lesson = marked == MARKED ? LESSON_LEARNED : LESSON_NOT_ESTABLISHED;
	else
		lesson = conntrack_established(skb, pkt, direction);
	if (lesson)
		backoff_declined(&pkt->key, direction, now);
	return lesson;
}

/* A packet leaves the host: uplink, tc egress. */
SEC("tc")
int egress_init(struct __sk_buff *skb)
{
	const enum direction direction = DIRECTION_EGRESS;
	enum marked marked = MARKED;
	enum lesson lesson = LESSON_UNFIT;
	struct tunnel *tunnel;
	struct control *ctl;
	struct outer *outer;
	struct packet pkt = {};
	enum reason reason;
	int port_known = 0;
	jiffies_t now;

	if (settings.mark_mode == MARK_METADATA) {
		if (!(skb->mark & settings.mark))
			return NEXT;
		skb->mark &= ~settings.mark;
	}
	ctl = control_get();
	if (!ctl)
		return NEXT;
	if (is_not_udp(skb))
		return NEXT;	/* a pod's packet that is not for the tunnel */
	pull(skb, INNER_OFFSET + sizeof(struct iphdr) + sizeof(struct tcphdr));
	outer = outer_get(skb);
	if (!outer || ethertype(&outer->eth) != bpf_htons(ETH_P_IP) || outer->ip.protocol != IPPROTO_UDP)
		return NEXT;
	tunnel = tunnel_of(ctl, skb->ifindex, outer->udp.dest, outer->vxlan.vni, &port_known);
	if (!tunnel)
		return NEXT;
	reason = outer_check(skb, outer);
	if (!reason)
		reason = parse_ipv4(skb, INNER_OFFSET, direction, &pkt);
	now = bpf_jiffies64();
	if (settings.mark_mode == MARK_DSCP) {
		if (reason && reason != REASON_TCP_FLAGS)
			return NEXT;
		marked = mark_take_dscp(skb, &pkt, INNER_OFFSET, now);
		if (marked == MARKED_NOT)
			return NEXT;
	}
	if (marked == MARKED_FORGED) {
		lesson = LESSON_FORGED;
	} else if (!reason || (reason == REASON_TCP_FLAGS && is_syn_ack(&pkt))) {
		lesson = lesson_allowed(ctl, now);
		if (!lesson)
			lesson = established(skb, &pkt, direction, marked, now);
		if (!lesson)
			lesson = egress_lesson(skb, &pkt, ctl, tunnel, now);
	}
	count_lesson(direction, lesson);
	return NEXT;
}

/* Whether an encapsulated packet comes from where the fallback sends this flow, and the way back it takes. */
static __always_inline enum reason ingress_check(struct __sk_buff *skb, const struct outer *outer,
						 struct packet *pkt, const struct found *found)
{
	const struct outer *template = (const void *)found->host->template;
	const struct host *host = found->host;
	const struct iphdr *ip = &outer->ip;

	if (ip->saddr != host->remote_ip || ip->daddr != host->local_ip || outer->vxlan.vni != host->vni ||
	    skb->ifindex != host->uplink || skb->pkt_type != 0 /* PACKET_HOST */)
		return REASON_PEER;
	if (!mac_equal(outer->inner_eth.h_dest, template->inner_eth.h_source) ||
	    !mac_equal(outer->inner_eth.h_source, template->inner_eth.h_dest))
		return REASON_MAC;
	if (pkt->size > found->pod->mtu)
		return REASON_MTU;
	return ecn_decapsulate(pkt, ip->tos) ? REASON_FAST : REASON_OUTER;
}

/* A packet arrives at the host: uplink, tc ingress. */
SEC("tc")
int ingress(struct __sk_buff *skb)
{
	const enum direction direction = DIRECTION_INGRESS;
	struct found found = {};
	struct tunnel *tunnel;
	struct control *ctl;
	struct outer *outer;
	struct packet pkt;
	enum reason reason;
	int port_known = 0;
	__u32 bytes;

	if (is_not_udp(skb))
		return NEXT;	/* the host's own traffic is neither touched nor counted */
	pull(skb, INNER_OFFSET + sizeof(struct iphdr) + sizeof(struct tcphdr));
	outer = outer_get(skb);
	if (!outer || ethertype(&outer->eth) != bpf_htons(ETH_P_IP) || outer->ip.protocol != IPPROTO_UDP)
		return NEXT;
	ctl = control_get();
	if (!ctl)
		return NEXT;
	tunnel = tunnel_of(ctl, skb->ifindex, outer->udp.dest, outer->vxlan.vni, &port_known);
	if (!tunnel && !port_known)
		return NEXT;
	bytes = skb->len - ENCAP_LEN;
	if (!ctl->using)
		return pass(skb, direction, REASON_PAUSED);
	if (skb->vlan_present)
		return pass(skb, direction, REASON_VLAN);
	reason = outer_check(skb, outer);
	if (!reason && !tunnel)
		reason = REASON_VNI;
	if (reason)
		return pass(skb, direction, reason);
	reason = parse_ipv4(skb, INNER_OFFSET, direction, &pkt);
	if (reason == REASON_TCP_FLAGS)
		return tcp_control(skb, ctl, &pkt, direction);
	if (!reason && pkt.head.ttl <= 1)
		reason = REASON_TTL;
	if (reason)
		return pass(skb, direction, reason);

	reason = look_up(ctl, &pkt, direction, &found);
	if (!reason)
		reason = ingress_check(skb, outer, &pkt, &found);
	if (reason)
		return miss(skb, ctl, &pkt, &found, direction, reason);

	switch (decapsulate(skb, &pkt, found.pod)) {
	case CHANGE_REFUSED:
		return pass(skb, direction, REASON_REFUSED);
	case CHANGE_BROKEN:
		count(direction, REASON_DROP, bytes);
		return DROP;
	case CHANGE_DONE:
		break;
	}
	count_hit(skb, found.flow, direction, bytes);
	/*
	 * bpf_redirect_peer() is the short way, straight into the pod's
	 * namespace, but it passes by the veth's egress qdisc.
	 */
	if (found.pod->veth_flags & VETH_SHAPED)
		return bpf_redirect(found.pod->veth, 0);
	return bpf_redirect_peer(found.pod->veth, 0);
}

/* Teaches from a packet that the fallback delivers. */
static __noinline int ingress_lesson(struct __sk_buff *skb, struct packet *pkt, struct control *ctl, jiffies_t now)
{
	struct verdict verdict = { .confirmed_at = now };
	struct pod pod = {};
	struct ethhdr *eth;
	struct veth *veth;

	if (!skb || !pkt || !ctl)
		return LESSON_UNFIT;
	veth = veth_get(skb->ifindex);
	if (!veth)
		return LESSON_DEVICE;
	eth = (void *)(long)skb->data;
	if ((void *)(eth + 1) > (void *)(long)skb->data_end || eth->h_dest[0] & 1)
		return LESSON_UNFIT;
	pod.ip = pkt->key.local_ip;
	pod.veth = skb->ifindex;
	pod.veth_flags = veth->flags;
	pod.mtu = veth->mtu;
	__builtin_memcpy(pod.macs, eth, sizeof(pod.macs));
	__builtin_memcpy(pod.from_pod, eth->h_source, ETH_ALEN);
	__builtin_memcpy(pod.from_pod + ETH_ALEN, eth->h_dest, ETH_ALEN);

	verdict.epoch = ctl->epoch;
	verdict.ref = ingress_cache_learn(&pod, now);
	if (!verdict.ref)
		return LESSON_FULL;
	return filter_cache_learn(&pkt->key, DIRECTION_INGRESS, &verdict);
}

/* Whether a packet came in through a tunnel device: from there, and not from another pod of this host. */
static __always_inline int from_tunnel(const struct control *ctl, ifindex_t ifindex)
{
	__u32 i;

	for (i = 0; i < TUNNELS_MAX; i++) {
		if (i >= ctl->tunnel_count)
			break;
		if (ctl->tunnels[i].ifindex == ifindex)
			return 1;
	}
	return 0;
}

/* A packet enters a pod: host-side veth, tc egress. */
SEC("tc")
int ingress_init(struct __sk_buff *skb)
{
	const enum direction direction = DIRECTION_INGRESS;
	enum marked marked = MARKED;
	enum lesson lesson = LESSON_UNFIT;
	struct packet pkt = {};
	struct control *ctl;
	enum reason reason;
	jiffies_t now;

	if (settings.mark_mode == MARK_METADATA) {
		if (!(skb->mark & settings.mark))
			return NEXT;
		skb->mark &= ~settings.mark;
	}
	ctl = control_get();
	if (!ctl || !from_tunnel(ctl, skb->ingress_ifindex))
		return NEXT;
	reason = parse_frame(skb, direction, &pkt);
	now = bpf_jiffies64();
	if (settings.mark_mode == MARK_DSCP) {
		if (reason && reason != REASON_TCP_FLAGS)
			return NEXT;
		marked = mark_take_dscp(skb, &pkt, ETH_HLEN, now);
		if (marked == MARKED_NOT)
			return NEXT;
	}
	if (marked == MARKED_FORGED) {
		lesson = LESSON_FORGED;
	} else if (!reason || (reason == REASON_TCP_FLAGS && is_syn_ack(&pkt))) {
		lesson = lesson_allowed(ctl, now);
		if (!lesson)
			lesson = established(skb, &pkt, direction, marked, now);
		if (!lesson)
			lesson = ingress_lesson(skb, &pkt, ctl, now);
	}
	count_lesson(direction, lesson);
	return NEXT;
}

char _license[] SEC("license") = "Dual BSD/GPL";
