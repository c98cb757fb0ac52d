/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* As learn.h for flows over IPv6: hosts and pods are learned there, flows here. */
#ifndef ONCACHE_LEARN6_H
#define ONCACHE_LEARN6_H

#include "learn.h"

_Static_assert(__builtin_offsetof(struct flow6, other) == __builtin_offsetof(struct flow, other), "flow6 begins as flow");

static __always_inline int key6_equal(const struct flow_key6 *a, const struct flow_key6 *b)
{
	return ip6_equal(&a->local_ip, &b->local_ip) && ip6_equal(&a->remote_ip, &b->remote_ip) &&
	       a->local_port == b->local_port && a->remote_port == b->remote_port && a->proto == b->proto;
}

/* The same packets, seen from their other end. */
static __always_inline void key6_swap(struct flow_key6 *to, const struct flow_key6 *from)
{
	to->local_ip = from->remote_ip;
	to->remote_ip = from->local_ip;
	to->local_port = from->remote_port;
	to->remote_port = from->local_port;
	*(__u32 *)&to->proto = *(const __u32 *)&from->proto;
}

/* As is_translated(). */
static __always_inline int is_translated6(const struct flow_key6 *asked, const struct flow_key6 *key, int swapped)
{
	if (!swapped)
		return !key6_equal(asked, key);
	return !ip6_equal(&asked->local_ip, &key->remote_ip) ||
	       !ip6_equal(&asked->remote_ip, &key->local_ip) ||
	       asked->local_port != key->remote_port || asked->remote_port != key->local_port;
}

static __always_inline void flow6_set_other(struct flow6 *flow, const struct flow_key6 *key,
					    const struct flow_key6 *other)
{
	__u64 sum = 0;
	__u32 i;

	flow->other = *other;
#pragma unroll
	for (i = 0; i < 4; i++)
		sum += (__u64)other->local_ip.w[i] + other->remote_ip.w[i] + (__u32)~key->local_ip.w[i] +
		       (__u32)~key->remote_ip.w[i];
	flow->address_sum = csum_fold(sum);
	flow->port_sum = csum_fold((__u64)other->local_port + other->remote_port + (__u16)~key->local_port +
				   (__u16)~key->remote_port);
	if (flow->address_sum == 0xffff)
		flow->address_sum = 0;
	if (flow->port_sum == 0xffff)
		flow->port_sum = 0;
}

static __always_inline int is_within_host6(const struct flow_key6 *key, const struct flow_key6 *other)
{
	return other && other->proto && ip6_equal(&other->local_ip, &key->remote_ip);
}

/* As is_of_another(). */
static __always_inline int is_of_another6(const struct flow6 *flow, const struct flow_key6 *other)
{
	if (!is_entered_twice(&flow->egress, &flow->ingress))
		return other != NULL;
	return !other || !key6_equal(&flow->other, other);
}

/* As entry_learn(). */
__noinline int entry6_learn(const struct flow_key6 *of, const struct flow_key6 *other, const struct verdict *verdict,
			    const struct question *question, int egress)
{
	struct control *ctl = control_get();
	struct verdict *known;
	struct flow_key6 copy, *key = &copy;
	struct flow6 *flow;

	if (!ctl || !of || !verdict || !question)
		return LESSON_FULL;
	copy = *of;
	flow = question->is_new && !other ? NULL : filter_cache6_get(key);
	if (flow && is_of_another6(flow, other)) {
		if (is_within_host6(key, other) != is_within_host6(key, &flow->other) &&
		    is_in_use(&flow->egress, &flow->ingress, question))
			return LESSON_CONFLICT;
		bpf_map_delete_elem(&filter_cache6, key);
		flow = NULL;
	}
	if (!flow) {
		struct flow6 *fresh = draft_flow6_get();

		if (!fresh)
			return LESSON_FULL;
		__builtin_memset(fresh, 0, sizeof(*fresh));
		known = egress ? &fresh->egress : &fresh->ingress;
		*known = *verdict;
		known->epoch = question->epoch;
		known->confirmed_at = question->now;
		fresh->options = egress ? 0 : question->options;
		if (other)
			flow6_set_other(fresh, key, other);
		if (!bpf_map_update_elem(&filter_cache6, key, fresh, BPF_NOEXIST)) {
			overload_count(&pressure6, question->now);
			if (!is_evicted_since(ctl, question->evictions))
				return LESSON_LEARNED;
			bpf_map_delete_elem(&filter_cache6, key);
			return LESSON_PAUSED;
		}
		flow = filter_cache6_get(key);
		if (!flow || is_of_another6(flow, other))
			return LESSON_FULL;
	}
	if (!egress && question->options)
		flow->options = question->options;
	return verdict_renew(ctl, egress ? &flow->egress : &flow->ingress, verdict, question);
}

/* As flow_learn(). */
static __always_inline enum lesson flow6_learn(const struct flow_key6 *key, const struct flow_key6 *asked,
					       enum direction direction, struct verdict *verdict,
					       const struct question *question)
{
	enum lesson lesson;

	if (key6_equal(asked, key))
		return entry6_learn(key, NULL, verdict, question, direction == DIRECTION_EGRESS);
	verdict->flags |= VERDICT_TWICE | VERDICT_REVERSE;
	lesson = entry6_learn(key, asked, verdict, question, direction == DIRECTION_EGRESS);
	if (lesson != LESSON_LEARNED && lesson != LESSON_CONFIRMED)
		return lesson;
	verdict->flags &= ~VERDICT_REVERSE;
	if (question->from_pod && direction == DIRECTION_INGRESS)
		verdict->ref |= REF_POD;
	return entry6_learn(asked, key, verdict, question, question->from_pod);
}

#endif
