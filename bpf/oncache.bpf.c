// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/*
 * The four programs. Each reads top-down: parse, check, act, verdict. Every
 * check comes before the packet is changed; what is not ours, or not fully
 * understood, goes on to whoever is next on the hook.
 *
 *   pod --[veth]-- egress ........ fallback ........ egress_init --[uplink]-- wire
 *   pod --[veth]-- ingress_init .. fallback ........ ingress ------[uplink]-- wire
 *
 * Inner IPv6 has functions of its own for each, in ipv6.h: where a program has
 * found that a packet is not IPv4, so that IPv4 pays nothing for it; likewise
 * outer headers other than the usual one, in long.h. What most lessons are, the
 * init programs do in usual.h, all others here. A fifth program, in forget.h,
 * hears of connection tracking entries that end.
 */
#include "oncache.h"
#include "parse.h"
#include "csum.h"
#include "maps.h"
#include "backoff.h"
#include "conntrack.h"
#include "conntrack6.h"
#include "encap.h"
#include "encap6.h"
#include "envelope.h"
#include "forget.h"
#include "learn.h"
#include "learn6.h"
#include "mark.h"
#include "translate.h"
#include "translate6.h"

#define NEXT (-1)	/* TCX_NEXT, TC_ACT_UNSPEC */
#define DROP 2		/* TC_ACT_SHOT */
#define PACKET_HOST 0	/* linux/if_packet.h */

/*
 * The programs' functions for IPv6, in ipv6.h. Not static: the verifier goes
 * through such a function once, not for each way to its call.
 */
__noinline int egress6(struct __sk_buff *skb, struct control *ctl);
__noinline int egress_init6(struct __sk_buff *skb, struct control *ctl, const struct tunnel *tunnel,
			    const struct envelope *env);
__noinline int ingress6(struct __sk_buff *skb, struct control *ctl, const struct tunnel *tunnel);
__noinline int ingress_init6(struct __sk_buff *skb, struct control *ctl, const struct tunnel *tunnel);
/* Likewise for long outer headers, in long.h. */
__noinline int ingress_long(struct __sk_buff *skb);
__noinline int ingress_long4(struct __sk_buff *skb);
__noinline int ingress_long6(struct __sk_buff *skb);

/* What most lessons are, in usual.h. */
#define NOT_USUAL LESSON_MAX
__noinline int egress_init_usual(struct __sk_buff *skb, struct control *ctl);
__noinline int ingress_init_usual(struct __sk_buff *skb, struct control *ctl, const struct tunnel *tunnel);

/* What a hit needs, and what else the miss path wants to know. */
struct found {
	struct flow *flow;
	struct host *host;
	struct pod *pod;
	struct pod *target;	/* egress: another pod of this host, instead of a remote host */
	jiffies_t now;
	__u32 flags;		/* VERDICT_* of the direction that is used */
};

/* To the fallback, without a question. `bytes`: of the inner frame. */
static __always_inline int pass_bytes(enum direction direction, enum reason reason, __u32 bytes)
{
	count(direction, reason, bytes);
	return NEXT;
}

static __always_inline int pass(struct __sk_buff *skb, enum direction direction, enum reason reason)
{
	return pass_bytes(direction, reason, direction == DIRECTION_EGRESS ? skb->len : skb->len - ENCAP_LEN);
}

/*
 * One direction is confirmed, the other one has never been seen, or its only
 * packet fell into a pause: asking about every packet would not help.
 */
static __always_inline int waits_for_reverse(const struct found *found, enum direction direction)
{
	const struct flow *flow = found->flow;

	return flow && found->now - (direction == DIRECTION_EGRESS ? flow->egress : flow->ingress).confirmed_at <=
			       settings.retry;
}

/* The reason why this packet misses, unless its flow is to be left in peace. */
static __always_inline enum reason ask(const struct pressure *on, __u32 hash, const struct found *found,
				       enum direction direction, enum reason reason)
{
	if (reason != REASON_FLOW_MISS && reason != REASON_OPTIONS)
		return reason;
	if (backoff_waits(hash, direction, found->now))
		return REASON_BACKOFF;
	return backoff_overload(on, hash, direction, found->now) ? REASON_OVERLOAD : reason;
}

/* Whether the fallback is to be asked about a packet that misses for this reason. */
static __always_inline int asks(const struct control *ctl, const struct found *found, enum direction direction,
				enum reason reason)
{
	return ctl->learning && reason != REASON_DSCP && reason != REASON_BACKOFF && reason != REASON_OVERLOAD &&
	       reason != REASON_MTU && reason != REASON_OUTER &&
	       !(reason == REASON_REVERSE && waits_for_reverse(found, direction));
}

/* Asks the fallback what it does with a packet. */
static __always_inline enum reason miss_ask(struct __sk_buff *skb, const struct control *ctl, const struct packet *pkt,
					    const struct found *found, enum direction direction, enum reason reason)
{
	__u32 offset = direction == DIRECTION_EGRESS ? ETH_HLEN : INNER_OFFSET;

	if (mark_is_foreign(pkt, found->now))
		reason = REASON_DSCP;
	else
		reason = ask(&pressure, flow_hash(&pkt->key), found, direction, reason);
	if (asks(ctl, found, direction, reason))
		mark_set(skb, ctl, pkt, direction, offset, found->flow && found->flow->egress.epoch == ctl->epoch,
			 found->now);
	return reason;
}

/*
 * A bridge that does not know where a MAC address is sends its frames to every
 * port. That teaches nothing, so ingress_init has to know the pod's own one,
 * from what the pod sends before its first lesson.
 */
static __always_inline void note_sender(struct __sk_buff *skb)
{
	sender_t *known = sender_get(skb->ifindex), sender;
	const struct ethhdr *eth = (void *)(long)skb->data;

	if (!known || (void *)(eth + 1) > (void *)(long)skb->data_end)
		return;
	sender = sender_of(skb->ifindex, eth->h_source);
	if (unlikely(*known != sender))
		*known = sender;
}

/* To the fallback, asking it what it does. */
static __always_inline int miss(struct __sk_buff *skb, const struct control *ctl, const struct packet *pkt,
				const struct found *found, enum direction direction, enum reason reason)
{
	if (direction == DIRECTION_EGRESS)
		note_sender(skb);
	return pass(skb, direction, miss_ask(skb, ctl, pkt, found, direction, reason));
}

/*
 * A packet that opens or closes a TCP connection: connection tracking must see
 * it. What is cached of the tuple does not hold for a new connection, and not
 * any more for one that ends. A SYN-ACK teaches its direction, so that of a
 * short connection the request and the answer are fast already.
 */
static __always_inline void tcp_control_ask(struct __sk_buff *skb, const struct control *ctl, const struct packet *pkt,
					    enum direction direction)
{
	__u32 offset = direction == DIRECTION_EGRESS ? ETH_HLEN : INNER_OFFSET;
	jiffies_t now = bpf_jiffies64();
	int is_foreign = mark_is_foreign(pkt, now);

	if (is_syn_ack(pkt)) {
		if (ctl->learning && !is_foreign)
			mark_set(skb, ctl, pkt, direction, offset,
				 settings.mark_mode == MARK_DSCP && filter_cache_get(&pkt->key), now);
	} else {
		filter_cache_forget(&pkt->key);
		backoff_reset(flow_hash(&pkt->key), pkt->tcp_flags & (TCP_FIN | TCP_RST), now);
	}
}

static __always_inline int tcp_control(struct __sk_buff *skb, const struct control *ctl, const struct packet *pkt,
				       enum direction direction)
{
	if (direction == DIRECTION_EGRESS && pkt->tcp_flags & TCP_SYN)
		note_sender(skb);
	tcp_control_ask(skb, ctl, pkt, direction);
	return pass(skb, direction, REASON_TCP_FLAGS);
}

static __noinline int carried_arrived(const struct flow_key *key, __u32 options)
{
	struct carried_key as;

	carried_key4(&as, key, DIRECTION_INGRESS);
	carried_note(&as, options, bpf_jiffies64());
	return NEXT;
}

static __noinline int carried_arrived6(const struct flow_key6 *key, __u32 options)
{
	struct carried_key as;

	carried_key6(&as, key, DIRECTION_INGRESS);
	carried_note(&as, options, bpf_jiffies64());
	return NEXT;
}

/* What ingress_init has to know of an arriving packet that was marked, and does not see: the options that it came with. */
static __always_inline int note_arrival(struct __sk_buff *skb, const struct flow_key *key, __u32 is_geneve, __u32 options)
{
	return unlikely(is_geneve) && settings.mark_mode == MARK_METADATA && skb->mark & settings.mark ?
	       carried_arrived(key, options) : NEXT;
}

static __always_inline int note_arrival6(struct __sk_buff *skb, const struct flow_key6 *key, __u32 is_geneve,
					 __u32 options)
{
	return is_geneve && skb->mark & settings.mark ? carried_arrived6(key, options) : NEXT;
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

/* Of `flow`, only what a flow6 has too is looked at. */
static __always_inline enum reason look_up(const struct control *ctl, struct flow *flow, enum direction direction,
					   struct found *found)
{
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
	found->flags = direction == DIRECTION_EGRESS ? flow->egress.flags : flow->ingress.flags;
	if (unlikely(found->flags & VERDICT_REVERSE))
		return REASON_FLOW_MISS;
	found->host = egress_cache_get(flow->egress.ref);	/* none has the number of a REF_POD */
	if (unlikely(!found->host)) {
		if (direction == DIRECTION_INGRESS || !(flow->egress.ref & REF_POD))
			return REASON_HOST_MISS;
		found->target = ingress_cache_get(flow->egress.ref & ~(ref_t)REF_POD);
		if (!found->target)
			return REASON_POD_MISS;
	}
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
static __always_inline enum reason egress_check(struct __sk_buff *skb, __u32 size, const struct found *found)
{
	const struct outer *template = (const void *)found->host->template;
	const void *frame = (void *)(long)skb->data;

	if (found->pod->veth != skb->ifindex)
		return REASON_VETH;
	if (frame + ETH_HLEN > (void *)(long)skb->data_end)
		return REASON_MAC;
	if (unlikely(!words_equal(frame, found->pod->from_pod, sizeof(found->pod->from_pod))) &&
	    !(found->flags & VERDICT_BRIDGED && mac_equal(frame, template->inner_eth.h_dest) &&
	      mac_equal(frame + ETH_ALEN, found->pod->macs)))
		return REASON_MAC;
	if (size > found->host->mtu || skb->len > 65535 + ETH_HLEN - ENCAP_LEN)
		return REASON_MTU;
	return REASON_FAST;
}

/*
 * A bridge that calls iptables gives a frame whose destination is translated
 * to another of its pods that pod's MAC address, and goes on bridging
 * (br_nf_pre_routing_finish_bridge() of net/bridge/br_netfilter_hooks.c).
 */
static __always_inline int is_bridged_to(const struct packet *pkt, const struct flow *flow)
{
	return flow->egress.flags & VERDICT_TRANSLATED && flow->other.local_ip != pkt->key.remote_ip;
}

/* Likewise for a packet to another pod of this host: sent to the router, or bridged to that pod's MAC address. */
static __always_inline enum reason local_check(struct __sk_buff *skb, __u32 size, int bridged_to,
					       const struct found *found)
{
	const void *frame = (void *)(long)skb->data;
	const struct pod *pod = found->pod, *target = found->target;
	int to_pod = found->flags & VERDICT_BRIDGED && !bridged_to;

	if (pod->veth != skb->ifindex)
		return REASON_VETH;
	if (frame + ETH_HLEN > (void *)(long)skb->data_end ||
	    !mac_equal(frame, to_pod ? target->macs : pod->from_pod) ||
	    !mac_equal(frame + ETH_ALEN, pod->macs))
		return REASON_MAC;
	return size > target->mtu ? REASON_MTU : REASON_FAST;
}

/* Into a pod. */
static __always_inline int deliver(struct __sk_buff *skb, const struct pod *pod)
{
	/*
	 * bpf_redirect_peer() is the short way, straight into the pod's
	 * namespace, but it passes by the veth's egress qdisc.
	 */
	if (unlikely(pod->veth_flags & VETH_SHAPED))
		return bpf_redirect(pod->veth, 0);
	return bpf_redirect_peer(pod->veth, 0);
}

/* From one pod of this host to another. */
static __noinline int egress_local(struct __sk_buff *skb, struct packet *pkt, struct flow *flow, const struct pod *pod,
				   const struct pod *target)
{
	enum change change = CHANGE_DONE;
	__u32 bytes, flags;

	if (!skb || !pkt || !flow || !pod || !target)
		return NEXT;
	bytes = skb->len;
	flags = flow->egress.flags;
	if (flags & VERDICT_TRANSLATED)
		translate_head(pkt, flow);
	if (!(flags & VERDICT_BRIDGED))
		change = readdress(skb, pkt, target, flow, flags);
	else if (flags & VERDICT_TRANSLATED)
		change = readdress_bridged(skb, pkt, target, pod->macs, flow, flags);
	if (change == CHANGE_REFUSED)
		return pass(skb, DIRECTION_EGRESS, REASON_REFUSED);
	if (change == CHANGE_BROKEN) {
		count(DIRECTION_EGRESS, REASON_DROP, bytes);
		return DROP;
	}
	/* The frame was addressed to the router or to the other pod, not to the veth. */
	if (skb->pkt_type != PACKET_HOST)
		bpf_skb_change_type(skb, PACKET_HOST);
	count_hit(skb, flow, DIRECTION_EGRESS, bytes);
	return deliver(skb, target);
}

static __noinline int egress_long(struct __sk_buff *skb, struct packet *pkt, struct flow *flow, struct host *host,
				  const struct pod *pod);

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
	if (unlikely(!ctl->using))
		return pass(skb, direction, REASON_PAUSED);
	reason = parse_frame(skb, direction, &pkt);
	if (reason == REASON_TCP_FLAGS)
		return tcp_control(skb, ctl, &pkt, direction);
	if (unlikely(!reason && pkt.head.ttl <= 1))
		reason = REASON_TTL;
	if (unlikely(reason))
		return reason == REASON_NOT_IPV4 && frame_is_ipv6(skb) ? egress6(skb, ctl) : pass(skb, direction, reason);

	reason = look_up(ctl, filter_cache_get(&pkt.key), direction, &found);
	if (!reason)
		reason = found.target ? local_check(skb, pkt.size, is_bridged_to(&pkt, found.flow), &found) :
					egress_check(skb, pkt.size, &found);
	if (reason)
		return miss(skb, ctl, &pkt, &found, direction, reason);
	if (unlikely(found.target))
		return egress_local(skb, &pkt, found.flow, found.pod, found.target);
	if (unlikely(found.host->tunnel_flags & TUNNEL_LONG))
		return egress_long(skb, &pkt, found.flow, found.host, found.pod);

	if (unlikely(found.flags & VERDICT_TRANSLATED))
		translate_head(&pkt, found.flow);
	switch (encapsulate(skb, &pkt, found.host, found.pod, found.flow, found.flags)) {
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

/*
 * An outer header in words: what is written in smaller pieces, a CPU cannot
 * read in larger ones for some time. All of this is computed by the compiler.
 */
static __always_inline __u64 bytes_in_word(__u32 word, __u32 offset, __u32 size)
{
	__u64 bytes = 0;
	__u32 i;

#pragma unroll
	for (i = 0; i < 8; i++)
		if (word * 8 + i >= offset && word * 8 + i < offset + size)
			bytes |= 0xffULL << i * 8;
	return bytes;
}

#define IN_WORD(word, field) \
	bytes_in_word(word, __builtin_offsetof(struct outer, field), sizeof(((struct outer *)0)->field))
#define EACH_BYTE(value) ((value) * 0x0101010101010101ULL)

/* A word of a template: what differs from packet to packet, or is inherited, is zero; the inner EtherType is that of IPv4. */
static __always_inline __u64 template_word(const __u64 *header, __u32 word, __u32 flags)
{
	__u64 ethertype = IN_WORD(word, inner_eth.h_proto);
	__u64 blank = IN_WORD(word, ip.tot_len) | IN_WORD(word, ip.id) | IN_WORD(word, ip.check) |
		      IN_WORD(word, udp.source) | IN_WORD(word, udp.len) |
		      (IN_WORD(word, ip.tos) & EACH_BYTE(ECN_MASK)) | ethertype;

	if (flags & TUNNEL_TOS_INHERIT)
		blank |= IN_WORD(word, ip.tos);
	if (flags & TUNNEL_TTL_INHERIT)
		blank |= IN_WORD(word, ip.ttl);
	if (flags & TUNNEL_DF_INHERIT)
		blank |= IN_WORD(word, ip.frag_off);
	return (header[word] & ~blank) | (ethertype & (__u64)bpf_htons(ETH_P_IP) << 48);
}

/* All but the EtherType is in the first words: of a long header no more are the same. */
#define VARYING_WORDS (__builtin_offsetof(struct outer, udp.check) / 8)

/* A template from the first words of such a header. */
static __always_inline void template_make(__u64 *to, const __u64 *header, __u32 words, __u32 flags)
{
	__u32 i;

#pragma unroll
	for (i = 0; i < words; i++)
		to[i] = template_word(header, i, flags);
}

static __always_inline void template_blank6(struct outer6 *template, __u32 flags)
{
	template->ip.first &= ~bpf_htonl(ECN_MASK << TCLASS_SHIFT);
	if (flags & TUNNEL_TOS_INHERIT)
		template->ip.first &= ~bpf_htonl(0xff << TCLASS_SHIFT);
	if (flags & TUNNEL_LABEL_INHERIT)
		template->ip.first &= ~bpf_htonl(FLOW_LABEL);
	if (flags & TUNNEL_TTL_INHERIT)
		template->ip.hop_limit = 0;
	template->ip.payload_len = 0;
	template->udp.source = 0;
	template->udp.len = 0;
}

/* Teaches from a packet that the fallback has encapsulated. */
__noinline int egress_lesson(struct __sk_buff *skb, const struct tunnel *tunnel, const struct envelope *env,
			     const struct question *question, struct verdict *verdict)
{
	const struct outer *outer;
	struct outer *template;
	__u32 overhead, len, flags;
	struct host *host;

	if (!skb || !tunnel || !env || !question || !verdict)
		return LESSON_UNFIT;
	verdict->flags = question->translated ? VERDICT_TRANSLATED : 0;
	if ((!question->bridged && !mac_equal(env->inner_source.b, tunnel->mac.b)) || env->inner_dest.b[0] & 1)
		return LESSON_UNFIT;
	if (question->bridged)
		verdict->flags |= VERDICT_BRIDGED;

	verdict->outer_port = env->source_port;
	outer = outer_get(skb);
	if (!outer)
		return LESSON_UNFIT;
	flags = tunnel->flags & (TUNNEL_INHERIT | TUNNEL_FLOW_BASED);

	host = draft_get();
	if (!host)
		return LESSON_UNFIT;
	host->uplink = skb->ifindex;
	host->remote_ip = env->destination;
	host->local_ip = env->source;
	host->vni = env->vni;
	overhead = tunnel->flags & TUNNEL_IPV6 ? sizeof(struct outer6) : ENVELOPE_MIN;
	len = env->len;
	host->mtu = tunnel->mtu - (len - overhead);
	host->tunnel_flags = flags | (question->bridged ? TUNNEL_BRIDGED : 0);
	if (env->is_ipv6)
		host->tunnel_flags |= TUNNEL_IPV6 | (tunnel->flags & TUNNEL_LABEL_INHERIT);
	host->tunnel = tunnel->ifindex;
	/* Away from the IDs that the tunnel device itself is using. */
	host->ip_id = bpf_ntohs(env->id) + 0x8000;
	host->header_len = 0;

	template = (void *)host->template;
	if (is_long(env)) {
		host->tunnel_flags |= TUNNEL_LONG;
		host->header_len = len;
		__builtin_memset(host->template, 0, sizeof(host->template));
		__builtin_memset(host->header, 0, sizeof(host->header));
		if (!is_header_len(&len) || bpf_skb_load_bytes(skb, 0, host->header, len) ||
		    bpf_skb_load_bytes(skb, len, &template->inner_eth, sizeof(template->inner_eth)) ||
		    bpf_skb_load_bytes(skb, 0, &template->eth, sizeof(template->eth)))
			return LESSON_UNFIT;
		template->inner_eth.h_proto = bpf_htons(ETH_P_IP);
		template->tunnel.vni = env->vni;
		if (env->is_ipv6)
			template_blank6((void *)host->header, tunnel->flags);
		else
			template_make(host->header, host->header, VARYING_WORDS, tunnel->flags);
	} else {
		template_make(host->template, (const void *)outer, OUTER_LEN / 8, tunnel->flags);
	}
	if (question->bridged)
		__builtin_memset(template->inner_eth.h_source, 0, ETH_ALEN);
	if (!env->is_ipv6) {
		if (is_long(env))
			template = (void *)host->header;
		host->checksum = csum_fold(csum_ipv4_stack(&template->ip));
	}

	verdict->ref = egress_cache_learn(host, question->now);
	return verdict->ref ? LESSON_LEARNED : LESSON_FULL;
}

/*
 * Whether something may be learned now. What comes first is read before
 * anything is asked: an eviction from then on makes the lesson void.
 */
static __always_inline enum lesson question_open(struct control *ctl, int from_pod, __u32 zone,
						 struct question *question)
{
	question->evictions = evictions_now(ctl);
	question->consent = !ctl->opting_out;
	question->epoch = ctl->epoch;
	question->now = bpf_jiffies64();
	question->from_pod = from_pod;
	question->zone = zone;
	return ctl->learning && question->now >= ctl->learn_after ? LESSON_LEARNED : LESSON_PAUSED;
}

/* What connection tracking, or in dscp mode the fallback's rule, says of the flow; a refusal is remembered. */
static __always_inline enum lesson established(struct __sk_buff *skb, const struct packet *pkt,
					       enum direction direction, enum marked marked,
					       struct question *question, struct flow_key *asked)
{
	const struct flow *flow;
	enum lesson lesson;

	if (settings.mark_mode == MARK_DSCP) {
		lesson = marked == MARKED ? LESSON_LEARNED : LESSON_NOT_ESTABLISHED;
	} else {
		flow = filter_cache_get(asked);
		question->is_new = !flow;
		if (flow && is_half_learned(&flow->egress, &flow->ingress, direction, question))
			return LESSON_LEARNED;
		lesson = conntrack_established(skb, pkt, direction, question, asked);
	}
	if (lesson)
		backoff_declined(flow_hash(asked), question->from_pod ? DIRECTION_EGRESS : DIRECTION_INGRESS,
				 question->now);
	return lesson;
}

/* Whether all pods that the packets are of may be accelerated; a refusal is remembered likewise. */
static __always_inline enum lesson consent(const struct flow_key *key, const struct flow_key *asked,
					   const struct question *question)
{
	if (question->consent || (!flow_is_opted_out(key) && !flow_is_opted_out(asked)))
		return LESSON_LEARNED;
	backoff_declined(flow_hash(asked), question->from_pod ? DIRECTION_EGRESS : DIRECTION_INGRESS, question->now);
	return LESSON_OPTED_OUT;
}

/* Routed by this host into the tunnel, its MAC address is the inner source. */
static __always_inline int is_bridged_into(const struct envelope *env, const struct tunnel *tunnel)
{
	return tunnel->flags & TUNNEL_PORT && !mac_equal(env->inner_source.b, tunnel->mac.b);
}

/*
 * Geneve options are the flow's own when they do not vary. Where they do, what
 * is cached of it does not hold: the next packet may need others.
 */
static __always_inline enum lesson steady(enum steadiness found, __u32 hash, enum direction direction, jiffies_t now)
{
	if (found == STEADY_NOT)
		backoff_declined(hash, direction, now);
	return found == STEADY ? LESSON_LEARNED : LESSON_UNFIT;
}

static __noinline int options_leave(const struct flow_key *asked, __u32 options, jiffies_t now)
{
	struct carried_key as;
	enum steadiness found;
	__u32 known;

	carried_key4(&as, asked, DIRECTION_EGRESS);
	carried_note(&as, options, now);
	found = carried_judge(&as, now, &known);
	if (found == STEADY_NOT)
		filter_cache_forget(asked);
	return steady(found, flow_hash(asked), DIRECTION_EGRESS, now);
}

/* `options`: what note_arrival() noted. */
static __noinline int options_arrived(const struct flow_key *asked, jiffies_t now, __u32 *options)
{
	struct carried_key as;

	carried_key4(&as, asked, DIRECTION_INGRESS);
	return steady(carried_judge(&as, now, options), flow_hash(asked), DIRECTION_INGRESS, now);
}

/* A marked packet of the tunnel leaves the host. */
__noinline int egress_init4(struct __sk_buff *skb, struct control *ctl, const struct tunnel *tunnel,
			    const struct envelope *env)
{
	const enum direction direction = DIRECTION_EGRESS;
	enum marked marked = MARKED;
	enum lesson lesson = LESSON_UNFIT;
	struct question question = {};
	struct verdict verdict = {};
	struct flow_key asked;
	struct packet pkt = {};
	enum reason reason;
	__u32 offset;

	if (!skb || !ctl || !tunnel || !env)
		return NEXT;
	offset = inner_offset(env->len);
	reason = env->reason;
	if (!reason) {
		pull(skb, offset + sizeof(struct iphdr) + sizeof(struct tcphdr));
		reason = parse_ipv4(skb, offset, direction, &pkt);
	}
	if (settings.mark_mode == MARK_DSCP) {
		if (reason && reason != REASON_TCP_FLAGS)
			return NEXT;
		marked = mark_take_dscp(skb, &pkt, offset, bpf_jiffies64());
		if (marked == MARKED_NOT)
			return NEXT;
	}
	if (marked == MARKED_FORGED) {
		lesson = LESSON_FORGED;
	} else if (is_teacher(reason, &pkt)) {
		lesson = question_open(ctl, 1, tunnel->zone, &question);
		asked = pkt.key;
		question.bridged = is_bridged_into(env, tunnel);
		if (!lesson && !(question.bridged && tunnel->flags & TUNNEL_UNTRACKED))
			lesson = established(skb, &pkt, direction, marked, &question, &asked);
		if (!lesson)
			lesson = consent(&pkt.key, &asked, &question);
		question.translated = is_translated(&asked, &pkt.key, 0);
		if (!lesson && env->is_geneve)
			lesson = options_leave(&asked, env->options, question.now);
		if (!lesson)
			lesson = egress_lesson(skb, tunnel, env, &question, &verdict);
		if (!lesson)
			lesson = flow_learn(&pkt.key, &asked, direction, &verdict, &question);
	}
	count_lesson(direction, lesson);
	return NEXT;
}

/* A packet leaves the host: uplink, tc egress. */
SEC("tc")
int egress_init(struct __sk_buff *skb)
{
	struct envelope *env;
	struct tunnel *tunnel;
	struct control *ctl;
	enum lesson lesson;

	if (settings.mark_mode == MARK_METADATA) {
		if (!(skb->mark & settings.mark))
			return NEXT;
		skb->mark &= ~settings.mark;
	}
	ctl = control_get();
	if (!ctl)
		return NEXT;
	if (settings.mark_mode == MARK_METADATA) {
		lesson = egress_init_usual(skb, ctl);
		if (likely(lesson != NOT_USUAL)) {
			count_lesson(DIRECTION_EGRESS, lesson);
			return NEXT;
		}
	}
	if (is_not_udp(skb) && is_not_udp6(skb))
		return NEXT;	/* a pod's packet that is not for the tunnel */
	env = envelope_get();
	tunnel = env ? envelope_open(skb, ctl, env) : NULL;
	if (!tunnel)
		return NEXT;
	return env->proto == bpf_htons(ETH_P_IPV6) ? egress_init6(skb, ctl, tunnel, env) :
						     egress_init4(skb, ctl, tunnel, env);
}

/* Whether an encapsulated packet comes from where the fallback sends this flow, and the way back it takes. */
static __always_inline enum reason ingress_check(struct __sk_buff *skb, const struct outer *outer, __u32 size,
						 const struct found *found)
{
	const struct outer *template = (const void *)found->host->template;
	const struct host *host = found->host;
	const struct iphdr *ip = &outer->ip;

	if (ip->saddr != host->remote_ip.w[3] || ip->daddr != host->local_ip.w[3] || outer->tunnel.vni != host->vni ||
	    skb->ifindex != host->uplink || skb->pkt_type != PACKET_HOST || host->tunnel_flags & TUNNEL_IPV6)
		return REASON_PEER;
	if (found->flags & VERDICT_OPTIONS)
		return REASON_OPTIONS;
	/* All gateways of a switch have one address for each other: their own one says nothing. */
	if (unlikely(host->tunnel_flags & TUNNEL_FLOW_BASED)) {
		if (!mac_equal(outer->inner_eth.h_dest, template->inner_eth.h_dest))
			return REASON_MAC;
	} else if (!mac_equal(outer->inner_eth.h_source, template->inner_eth.h_dest) ||
	    !mac_equal(outer->inner_eth.h_dest,
		       found->flags & VERDICT_BRIDGED ? found->pod->macs : template->inner_eth.h_source))
		return REASON_MAC;
	return size > found->pod->mtu ? REASON_MTU : REASON_FAST;
}

static __always_inline int ingress_other(struct __sk_buff *skb)
{
	int version = ingress_long(skb);

	if (!version)
		return NEXT;
	return version == 6 ? ingress_long6(skb) : ingress_long4(skb);
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

	if (unlikely(is_not_udp(skb)))
		return is_not_udp6(skb) ? NEXT : ingress_other(skb);	/* the host's own traffic is neither touched nor counted */
	pull(skb, INNER_OFFSET + sizeof(struct iphdr) + sizeof(struct tcphdr));
	outer = outer_get(skb);
	if (unlikely(!outer || ethertype(&outer->eth) != bpf_htons(ETH_P_IP) || outer->ip.protocol != IPPROTO_UDP))
		return is_not_udp6(skb) ? NEXT : ingress_other(skb);
	ctl = control_get();
	if (!ctl)
		return NEXT;
	tunnel = tunnel_of(ctl, skb->ifindex, outer->udp.dest, outer->tunnel.vni, &port_known);
	if (unlikely(!tunnel && !port_known))
		return NEXT;
	bytes = skb->len - ENCAP_LEN;
	if (unlikely(!ctl->using))
		return pass(skb, direction, REASON_PAUSED);
	if (unlikely(skb->vlan_present))
		return pass(skb, direction, REASON_VLAN);
	reason = tunnel ? outer_check(skb, outer, tunnel) : REASON_VNI;
	if (unlikely(reason == REASON_OUTER && has_options(outer, tunnel)))
		return ingress_other(skb);
	if (unlikely(reason))
		return reason == REASON_NOT_IPV4 ? ingress6(skb, ctl, tunnel) : pass(skb, direction, reason);
	reason = parse_ipv4(skb, INNER_OFFSET, direction, &pkt);
	if (reason == REASON_TCP_FLAGS) {
		tcp_control(skb, ctl, &pkt, direction);
		return note_arrival(skb, &pkt.key, is_geneve(tunnel), 0);
	}
	if (unlikely(!reason && pkt.head.ttl <= 1))
		reason = REASON_TTL;
	if (unlikely(reason))
		return pass(skb, direction, reason);

	reason = look_up(ctl, filter_cache_get(&pkt.key), direction, &found);
	if (!reason)
		reason = ingress_check(skb, outer, pkt.size, &found);
	if (!reason && !ecn_decapsulate(&pkt, outer->ip.tos))
		reason = REASON_OUTER;
	if (reason) {
		miss(skb, ctl, &pkt, &found, direction, reason);
		return note_arrival(skb, &pkt.key, is_geneve(tunnel), 0);
	}

	if (unlikely(found.flags & VERDICT_TRANSLATED))
		translate_head(&pkt, found.flow);
	switch (decapsulate(skb, &pkt, found.pod, found.host, found.flow, found.flags)) {
	case CHANGE_REFUSED:
		return pass(skb, direction, REASON_REFUSED);
	case CHANGE_BROKEN:
		count(direction, REASON_DROP, bytes);
		return DROP;
	case CHANGE_DONE:
		break;
	}
	count_hit(skb, found.flow, direction, bytes);
	return deliver(skb, found.pod);
}

/* Teaches from a packet that the fallback delivers: from a remote host, or from another pod of this one. */
__noinline int ingress_lesson(struct __sk_buff *skb, const ipv6_t *ip, const struct veth *veth,
			      const struct question *question, struct verdict *verdict)
{
	const __u8 *routed_by;
	struct pod pod = {};
	struct ethhdr *eth;

	if (!skb || !ip || !veth || !question || !verdict)
		return LESSON_UNFIT;
	eth = (void *)(long)skb->data;
	if ((void *)(eth + 1) > (void *)(long)skb->data_end)
		return LESSON_UNFIT;
	pod.ip = *ip;
	pod.veth = skb->ifindex;
	pod.veth_flags = veth->flags;
	pod.mtu = veth->mtu < 65535 ? veth->mtu : 65535;
	__builtin_memcpy(pod.macs, eth->h_dest, ETH_ALEN);
	routed_by = question->from_pod || question->bridged ? veth->router.b : eth->h_source;
	__builtin_memcpy(pod.macs + ETH_ALEN, routed_by, ETH_ALEN);
	__builtin_memcpy(pod.from_pod, pod.macs + ETH_ALEN, ETH_ALEN);
	__builtin_memcpy(pod.from_pod + ETH_ALEN, pod.macs, ETH_ALEN);

	verdict->ref = ingress_cache_learn(&pod, routed_by == eth->h_source, question->now);
	verdict->flags = (question->translated ? VERDICT_TRANSLATED : 0) | (question->bridged ? VERDICT_BRIDGED : 0) |
			 (question->options ? VERDICT_OPTIONS : 0);
	return verdict->ref ? LESSON_LEARNED : LESSON_FULL;
}

/* The tunnel device through which a packet came in; none: it is from another pod of this host. */
static __always_inline const struct tunnel *tunnel_behind(const struct control *ctl, ifindex_t ifindex)
{
	__u32 i;

	for (i = 0; i < TUNNELS_MAX; i++) {
		if (i >= ctl->tunnel_count)
			break;
		if (ctl->tunnels[i].ifindex == ifindex)
			return &ctl->tunnels[i];
	}
	return NULL;
}

/* What is routed to a pod has its router's MAC address, what is bridged has its sender's. */
static __always_inline int is_bridged(struct __sk_buff *skb, const struct veth *veth)
{
	const struct ethhdr *eth = (void *)(long)skb->data;

	return (void *)(eth + 1) <= (void *)(long)skb->data_end && !mac_equal(eth->h_source, veth->router.b);
}

/* To several pods, or to one that is not this: a bridge does not know where the address is. */
static __always_inline int is_flooded(struct __sk_buff *skb)
{
	const struct ethhdr *eth = (void *)(long)skb->data;
	const sender_t *sender = sender_get(skb->ifindex);

	return !sender || (void *)(eth + 1) > (void *)(long)skb->data_end || eth->h_dest[0] & 1 ||
	       *sender != sender_of(skb->ifindex, eth->h_dest);
}

/* By a switch, past its gateway: what else it did with the packet is not known. */
static __always_inline int is_switched(struct __sk_buff *skb, const struct tunnel *tunnel, const struct veth *veth)
{
	return tunnel && tunnel->flags & TUNNEL_FLOW_BASED && is_bridged(skb, veth);
}

/* A marked packet enters a pod; without `tunnel` it is from another one of this host. */
__noinline int ingress_init4(struct __sk_buff *skb, struct control *ctl, const struct tunnel *tunnel)
{
	const enum direction direction = DIRECTION_INGRESS;
	enum marked marked = MARKED;
	enum lesson lesson = LESSON_UNFIT;
	struct question question = {};
	struct verdict verdict = {};
	struct flow_key asked;
	struct packet pkt = {};
	struct veth *veth;
	enum reason reason;
	ipv6_t ip;

	if (!skb || !ctl)
		return NEXT;
	reason = parse_frame(skb, direction, &pkt);
	if (settings.mark_mode == MARK_DSCP) {
		if (reason && reason != REASON_TCP_FLAGS)
			return NEXT;
		marked = mark_take_dscp(skb, &pkt, ETH_HLEN, bpf_jiffies64());
		if (marked == MARKED_NOT)
			return NEXT;
	}
	if (!tunnel && settings.mark_mode == MARK_DSCP)
		return NEXT;
	veth = veth_get(skb->ifindex);
	if (marked == MARKED_FORGED) {
		lesson = LESSON_FORGED;
	} else if (!veth) {
		lesson = LESSON_DEVICE;
	} else if (is_teacher(reason, &pkt)) {
		lesson = question_open(ctl, !tunnel, tunnel ? tunnel->zone : veth->zone, &question);
		asked = pkt.key;
		if (!tunnel)
			key_swap(&asked, &pkt.key);
		question.bridged = (!tunnel || tunnel->flags & TUNNEL_PORT) && is_bridged(skb, veth);
		if (!lesson && !(question.bridged && veth->flags & VETH_UNTRACKED))
			lesson = established(skb, &pkt, direction, marked, &question, &asked);
		if (!lesson)
			lesson = consent(&pkt.key, &asked, &question);
		question.translated = is_translated(&asked, &pkt.key, !tunnel);
		if (!lesson && settings.mark_mode == MARK_METADATA && tunnel && is_geneve(tunnel))
			lesson = options_arrived(&asked, question.now, &question.options);
		if (!lesson && (is_switched(skb, tunnel, veth) || is_flooded(skb)))
			lesson = LESSON_UNFIT;
		ip6_of(&ip, pkt.key.local_ip);
		if (!lesson)
			lesson = ingress_lesson(skb, &ip, veth, &question, &verdict);
		if (!lesson)
			lesson = flow_learn(&pkt.key, &asked, direction, &verdict, &question);
	}
	count_lesson(direction, lesson);
	return NEXT;
}

/* A packet enters a pod: host-side veth, tc egress. */
SEC("tc")
int ingress_init(struct __sk_buff *skb)
{
	const struct tunnel *tunnel;
	struct control *ctl;
	enum lesson lesson;

	if (settings.mark_mode == MARK_METADATA) {
		if (!(skb->mark & settings.mark))
			return NEXT;
		skb->mark &= ~settings.mark;
	}
	ctl = control_get();
	if (!ctl)
		return NEXT;
	tunnel = tunnel_behind(ctl, skb->ingress_ifindex);
	/* The host's own packet; in dscp mode, which asks about tunnels only, it may be one that a switch's daemon has handled. */
	if (!tunnel && (settings.mark_mode == MARK_DSCP ? skb->ingress_ifindex : !skb->ingress_ifindex))
		return NEXT;
	if (settings.mark_mode == MARK_METADATA) {
		lesson = ingress_init_usual(skb, ctl, tunnel);
		if (likely(lesson != NOT_USUAL)) {
			count_lesson(DIRECTION_INGRESS, lesson);
			return NEXT;
		}
	}
	return frame_is_ipv6(skb) ? ingress_init6(skb, ctl, tunnel) : ingress_init4(skb, ctl, tunnel);
}

#include "usual.h"
#include "ipv6.h"
#include "long.h"

char _license[] SEC("license") = "Dual BSD/GPL";
