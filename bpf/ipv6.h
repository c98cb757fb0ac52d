/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * The four programs for inner IPv6. Each does what its IPv4 sibling in
 * oncache.bpf.c does, in the same order; comments are where they differ. What
 * does not depend on the version is shared: hosts, pods, verdicts, epoch,
 * reasons, lessons, backoff. dscp mode knows IPv4 only.
 */
#ifndef ONCACHE_IPV6_H
#define ONCACHE_IPV6_H

/* As the drafts of maps.h. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__type(key, __u32);
	__type(value, struct packet6);
	__uint(max_entries, 1);
} draft_packet6 SEC(".maps");

static __always_inline struct packet6 *draft_packet6_get(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&draft_packet6, &zero);
}

/* As miss_ask(). */
static __always_inline enum reason miss_ask6(struct __sk_buff *skb, const struct control *ctl, const struct packet6 *pkt,
					     const struct found *found, enum direction direction, enum reason reason)
{
	reason = ask(&pressure6, flow_hash6(&pkt->key), found, direction, reason);
	if (asks(ctl, found, direction, reason))
		skb->mark |= settings.mark;
	return reason;
}

/* As miss(). */
static __always_inline int miss6(struct __sk_buff *skb, const struct control *ctl, const struct packet6 *pkt,
				 const struct found *found, enum direction direction, enum reason reason)
{
	if (direction == DIRECTION_EGRESS)
		note_sender(skb);
	return pass(skb, direction, miss_ask6(skb, ctl, pkt, found, direction, reason));
}

static __always_inline int is_syn_ack6(const struct packet6 *pkt)
{
	return (pkt->tcp_flags & (TCP_FIN | TCP_SYN | TCP_RST | TCP_ACK)) == (TCP_SYN | TCP_ACK);
}

static __always_inline int is_teacher6(enum reason reason, const struct packet6 *pkt)
{
	return !reason || (reason == REASON_TCP_FLAGS && is_syn_ack6(pkt));
}

/* As tcp_control_ask(). */
static __always_inline void tcp_control_ask6(struct __sk_buff *skb, const struct control *ctl, const struct packet6 *pkt)
{
	if (is_syn_ack6(pkt)) {
		if (ctl->learning)
			skb->mark |= settings.mark;
	} else {
		filter_cache6_forget(&pkt->key);
		backoff_reset(flow_hash6(&pkt->key), pkt->tcp_flags & (TCP_FIN | TCP_RST), bpf_jiffies64());
	}
}

/* As tcp_control(). */
static __always_inline int tcp_control6(struct __sk_buff *skb, const struct control *ctl, const struct packet6 *pkt,
					enum direction direction)
{
	if (direction == DIRECTION_EGRESS && pkt->tcp_flags & TCP_SYN)
		note_sender(skb);
	tcp_control_ask6(skb, ctl, pkt);
	return pass(skb, direction, REASON_TCP_FLAGS);
}

/* As is_bridged_to(). */
static __always_inline int is_bridged_to6(const struct packet6 *pkt, const struct flow6 *flow)
{
	return flow->egress.flags & VERDICT_TRANSLATED &&
	       !ip6_equal(&flow->other.local_ip, &pkt->key.remote_ip);
}

/* As egress_local(). */
static __noinline int egress_local6(struct __sk_buff *skb, struct packet6 *pkt, const struct found *found,
					 struct flow6 *flow)
{
	const struct pod *target = found->target;
	enum change change = CHANGE_DONE;
	__u32 bytes = skb->len;

	if (!(found->flags & VERDICT_BRIDGED))
		change = readdress6(skb, pkt, target, flow, found->flags);
	else if (found->flags & VERDICT_TRANSLATED)
		change = readdress_bridged6(skb, pkt, target, found->pod->macs, flow, found->flags);
	if (change == CHANGE_REFUSED)
		return pass(skb, DIRECTION_EGRESS, REASON_REFUSED);
	if (change == CHANGE_BROKEN) {
		count(DIRECTION_EGRESS, REASON_DROP, bytes);
		return DROP;
	}
	if (skb->pkt_type != PACKET_HOST)
		bpf_skb_change_type(skb, PACKET_HOST);
	count_hit(skb, found->flow, DIRECTION_EGRESS, bytes);
	return deliver(skb, target);
}

static __noinline int egress_long6(struct __sk_buff *skb, struct packet6 *pkt, struct flow6 *flow, struct host *host,
				   const struct pod *pod);

__noinline int egress6(struct __sk_buff *skb, struct control *ctl)
{
	const enum direction direction = DIRECTION_EGRESS;
	struct found found = {};
	struct packet6 *pkt = draft_packet6_get();	/* on the stack it would leave the callees too little */
	struct flow6 *flow;
	enum reason reason;
	__u32 bytes;

	if (!skb || !ctl || !pkt)
		return NEXT;
	bytes = skb->len;
	if (settings.mark_mode == MARK_DSCP)
		return pass(skb, direction, REASON_IPV6);
	reason = parse_frame6(skb, direction, pkt);
	if (reason == REASON_TCP_FLAGS)
		return tcp_control6(skb, ctl, pkt, direction);
	if (reason)
		return pass(skb, direction, reason);
	if (pkt->head.hop_limit <= 1)
		return pass(skb, direction, REASON_TTL);

	flow = filter_cache6_get(&pkt->key);
	reason = look_up(ctl, (struct flow *)flow, direction, &found);
	if (!reason && flow)
		reason = found.target ? local_check(skb, pkt->size, is_bridged_to6(pkt, flow), &found) :
					egress_check(skb, pkt->size, &found);
	if (reason || !flow)
		return miss6(skb, ctl, pkt, &found, direction, reason);
	if (found.target)
		return egress_local6(skb, pkt, &found, flow);
	if (found.host->tunnel_flags & TUNNEL_LONG)
		return egress_long6(skb, pkt, flow, found.host, found.pod);

	switch (encapsulate6(skb, pkt, found.host, found.pod, flow)) {
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

__noinline int ingress6(struct __sk_buff *skb, struct control *ctl, const struct tunnel *tunnel)
{
	const enum direction direction = DIRECTION_INGRESS;
	struct found found = {};
	struct packet6 pkt;
	struct outer *outer;
	struct flow6 *flow;
	enum reason reason;
	int renamed = 0;
	__u32 bytes;

	if (!skb || !ctl || !tunnel)
		return NEXT;
	bytes = skb->len - ENCAP_LEN;
	reason = parse_tunnelled6(skb, direction, &pkt);
	if (reason != REASON_NOT_IPV4 && settings.mark_mode == MARK_DSCP)
		reason = REASON_IPV6;
	if (reason == REASON_TCP_FLAGS) {
		tcp_control6(skb, ctl, &pkt, direction);
		return note_arrival6(skb, &pkt.key, is_geneve(tunnel), 0);
	}
	if (reason)
		return pass(skb, direction, reason);
	if (pkt.head.hop_limit <= 1)
		return pass(skb, direction, REASON_TTL);

	flow = filter_cache6_get(&pkt.key);
	reason = look_up(ctl, (struct flow *)flow, direction, &found);
	outer = outer_get(skb);
	if (!outer)
		return NEXT;
	if (!reason)
		reason = ingress_check(skb, outer, pkt.size, &found);
	if (!reason && !ecn_decapsulate6(&pkt, outer->ip.tos))
		reason = REASON_OUTER;
	if (reason || !flow) {
		miss6(skb, ctl, &pkt, &found, direction, reason);
		return note_arrival6(skb, &pkt.key, is_geneve(tunnel), 0);
	}

	switch (decapsulate6(skb, &pkt, found.pod, found.host, flow, found.flags, &renamed)) {
	case CHANGE_REFUSED:
		return pass(skb, direction, REASON_REFUSED);
	case CHANGE_BROKEN:
		count(direction, REASON_DROP, bytes);
		return DROP;
	case CHANGE_DONE:
		break;
	}
	count_hit(skb, found.flow, direction, bytes);
	return renamed ? deliver(skb, found.pod) : bpf_redirect(found.pod->veth, 0);
}

/* As established(). */
static __always_inline enum lesson established6(struct __sk_buff *skb, const struct packet6 *pkt,
						enum direction direction, struct question *question, struct flow_key6 *asked)
{
	const struct flow6 *flow = filter_cache6_get(asked);
	enum lesson lesson;

	question->is_new = !flow;
	if (flow && is_half_learned(&flow->egress, &flow->ingress, direction, question))
		return LESSON_LEARNED;
	lesson = conntrack6_established(skb, &pkt->key, direction, question, asked);
	if (lesson)
		backoff_declined(flow_hash6(asked), question->from_pod ? DIRECTION_EGRESS : DIRECTION_INGRESS,
				 question->now);
	return lesson;
}

/* As consent(). */
static __always_inline enum lesson consent6(const struct flow_key6 *key, const struct flow_key6 *asked,
					    const struct question *question)
{
	if (question->consent || (!is_opted_out(&key->local_ip, &key->remote_ip) &&
				  !is_opted_out(&asked->local_ip, &asked->remote_ip)))
		return LESSON_LEARNED;
	backoff_declined(flow_hash6(asked), question->from_pod ? DIRECTION_EGRESS : DIRECTION_INGRESS, question->now);
	return LESSON_OPTED_OUT;
}

/* As options_leave(). */
static __noinline int options_leave6(const struct flow_key6 *asked, __u32 options, jiffies_t now)
{
	struct carried_key as;
	enum steadiness found;
	__u32 known;

	carried_key6(&as, asked, DIRECTION_EGRESS);
	carried_note(&as, options, now);
	found = carried_judge(&as, now, &known);
	if (found == STEADY_NOT)
		filter_cache6_forget(asked);
	return steady(found, flow_hash6(asked), DIRECTION_EGRESS, now);
}

/* As options_arrived(). */
static __noinline int options_arrived6(const struct flow_key6 *asked, jiffies_t now, __u32 *options)
{
	struct carried_key as;

	carried_key6(&as, asked, DIRECTION_INGRESS);
	return steady(carried_judge(&as, now, options), flow_hash6(asked), DIRECTION_INGRESS, now);
}

__noinline int egress_init6(struct __sk_buff *skb, struct control *ctl, const struct tunnel *tunnel,
			    const struct envelope *env)
{
	const enum direction direction = DIRECTION_EGRESS;
	enum lesson lesson = LESSON_UNFIT;
	struct question question = {};
	struct verdict verdict = {};
	struct flow_key6 asked;
	struct packet6 pkt = {};
	enum reason reason;
	__u32 offset;

	if (!skb || !ctl || !tunnel || !env || settings.mark_mode == MARK_DSCP)
		return NEXT;
	offset = inner_offset(env->len);
	reason = env->reason;
	if (!reason) {
		pull(skb, offset + sizeof(struct ipv6hdr) + sizeof(struct tcphdr));
		reason = parse_ipv6(skb, offset, direction, &pkt);
	}
	if (is_teacher6(reason, &pkt)) {
		lesson = question_open(ctl, 1, tunnel->zone6, &question);
		asked = pkt.key;
		question.bridged = is_bridged_into(env, tunnel);
		if (!lesson && !(question.bridged && tunnel->flags & TUNNEL_UNTRACKED))
			lesson = established6(skb, &pkt, direction, &question, &asked);
		if (!lesson)
			lesson = consent6(&pkt.key, &asked, &question);
		question.translated = !key6_equal(&asked, &pkt.key);
		if (!lesson && env->is_geneve)
			lesson = options_leave6(&asked, env->options, question.now);
		if (!lesson)
			lesson = egress_lesson(skb, tunnel, env, &question, &verdict);
		if (!lesson)
			lesson = flow6_learn(&pkt.key, &asked, direction, &verdict, &question);
	}
	count_lesson(direction, lesson);
	return NEXT;
}

__noinline int ingress_init6(struct __sk_buff *skb, struct control *ctl, const struct tunnel *tunnel)
{
	const enum direction direction = DIRECTION_INGRESS;
	enum lesson lesson = LESSON_UNFIT;
	struct question question = {};
	struct verdict verdict = {};
	struct flow_key6 asked;
	struct packet6 pkt = {};
	struct veth *veth;
	enum reason reason;
	__u32 zone6 = 0;

	if (!skb || !ctl || settings.mark_mode == MARK_DSCP)
		return NEXT;
	if (tunnel)
		zone6 = *(const volatile __u16 *)&tunnel->zone6;	/* else it is read after the pointers are merged, which the verifier refuses */
	reason = skb->vlan_present ? REASON_VLAN : parse_frame6(skb, direction, &pkt);
	veth = veth_get(skb->ifindex);
	if (veth && !tunnel)
		zone6 = veth->zone6;
	if (!veth) {
		lesson = LESSON_DEVICE;
	} else if (is_teacher6(reason, &pkt)) {
		lesson = question_open(ctl, !tunnel, zone6, &question);
		asked = pkt.key;
		if (!tunnel)
			key6_swap(&asked, &pkt.key);
		question.bridged = (!tunnel || tunnel->flags & TUNNEL_PORT) && is_bridged(skb, veth);
		if (!lesson && !(question.bridged && veth->flags & VETH_UNTRACKED))
			lesson = established6(skb, &pkt, direction, &question, &asked);
		if (!lesson)
			lesson = consent6(&pkt.key, &asked, &question);
		question.translated = is_translated6(&asked, &pkt.key, !tunnel);
		if (!lesson && tunnel && is_geneve(tunnel))
			lesson = options_arrived6(&asked, question.now, &question.options);
		if (!lesson && (is_switched(skb, tunnel, veth) || is_flooded(skb)))
			lesson = LESSON_UNFIT;
		if (!lesson)
			lesson = ingress_lesson(skb, &pkt.key.local_ip, veth, &question, &verdict);
		if (!lesson)
			lesson = flow6_learn(&pkt.key, &asked, direction, &verdict, &question);
	}
	count_lesson(direction, lesson);
	return NEXT;
}

#endif
