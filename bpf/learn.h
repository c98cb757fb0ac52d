/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Entering what the fallback decided into the caches. Only the init programs come here: off the fast path. */
#ifndef ONCACHE_LEARN_H
#define ONCACHE_LEARN_H

#include "csum.h"
#include "hash.h"
#include "maps.h"
#include "overload.h"
#include "parse.h"
#include "question.h"

/*
 * A slot is never rewritten while a reader may hold it: new content gets
 * another slot, the old one is retired (every reference to it dies with its
 * generation) and rests for a second before it is used again.
 */
static __always_inline void slot_retire(struct slot *slot, jiffies_t now)
{
	__sync_fetch_and_add(&slot->generation, 1);
	slot->retired_at = now;
	__sync_val_compare_and_swap(&slot->state, SLOT_LIVE, SLOT_RETIRED);
}

static __always_inline int slot_is_free(const struct slot *slot, jiffies_t now)
{
	return slot->state == SLOT_EMPTY || (slot->state == SLOT_RETIRED && now - slot->retired_at > settings.rest);
}

static __always_inline int slot_claim(struct slot *slot)
{
	__u32 state = slot->state;

	if (state != SLOT_EMPTY && state != SLOT_RETIRED)
		return 0;
	return __sync_val_compare_and_swap(&slot->state, state, SLOT_BUSY) == state;
}

/* Makes a filled slot visible. A reference is never 0: generation 0 is skipped. */
static __always_inline ref_t slot_publish(struct slot *slot, __u32 index)
{
	__u32 generation = __sync_fetch_and_add(&slot->generation, 1) + 1;

	if (!generation)
		generation = __sync_fetch_and_add(&slot->generation, 1) + 1;
	__sync_val_compare_and_swap(&slot->state, SLOT_BUSY, SLOT_LIVE);
	return ref_make(index, generation);
}

static __always_inline void words_copy(void *to, const void *from, __u32 bytes)
{
	__u64 *x = to;
	const __u64 *y = from;
	__u32 i;

#pragma unroll
	for (i = 0; i < bytes / 8; i++)
		x[i] = y[i];
}

static __always_inline int words_equal(const void *a, const void *b, __u32 bytes)
{
	const __u32 *x = a, *y = b;
	__u32 i;

#pragma unroll
	for (i = 0; i < bytes / 4; i++)
		if (x[i] != y[i])
			return 0;
	return 1;
}

static __always_inline int mac_equal(const void *a, const void *b)
{
	return *(const __u32 *)a == *(const __u32 *)b && *(const __u16 *)(a + 4) == *(const __u16 *)(b + 4);
}

static __always_inline int ip6_equal(const ipv6_t *a, const ipv6_t *b)
{
	return !((a->w[0] ^ b->w[0]) | (a->w[1] ^ b->w[1]) | (a->w[2] ^ b->w[2]) | (a->w[3] ^ b->w[3]));
}

/* An IPv4 address as the ingress cache has it. */
static __always_inline void ip6_of(ipv6_t *to, ipv4_t ip)
{
	to->w[0] = 0;
	to->w[1] = 0;
	to->w[2] = bpf_htonl(0xffff);
	to->w[3] = ip;
}

static __always_inline int is_opted_out(const ipv6_t *a, const ipv6_t *b)
{
	return bpf_map_lookup_elem(&opted_out, a) || bpf_map_lookup_elem(&opted_out, b);
}

/* Whether a pod at either end is left to the fallback. */
static __noinline int flow_is_opted_out(const struct flow_key *key)
{
	ipv6_t local, remote;

	ip6_of(&local, key->local_ip);
	ip6_of(&remote, key->remote_ip);
	return is_opted_out(&local, &remote);
}

static __always_inline int template_equal(const struct host *a, const struct host *b)
{
	__u32 i;

#pragma unroll
	for (i = 0; i < OUTER_LEN / 8; i++)
		if (a->template[i] != b->template[i])
			return 0;
	return 1;
}

/* Of hosts with the same flags. Behind its end a header is zero. */
static __noinline int header_equal(const struct host *a, const struct host *b)
{
	__u32 i;

	if (!(a->tunnel_flags & TUNNEL_LONG))
		return 1;
	for (i = 0; i < LONG_MAX / 8; i++)
		if (a->header[i] != b->header[i])
			return 0;
	return 1;
}

static __always_inline int host_same_key(const struct host *a, const struct host *b)
{
	const __u16 *x = (const void *)((const struct outer *)a->template)->inner_eth.h_dest;
	const __u16 *y = (const void *)((const struct outer *)b->template)->inner_eth.h_dest;

	if (!ip6_equal(&a->remote_ip, &b->remote_ip) || a->tunnel != b->tunnel || a->tunnel_flags != b->tunnel_flags)
		return 0;
	/* What else the outer header says may differ from flow to flow: VNI, DSCP, TTL, options. */
	if (a->tunnel_flags & TUNNEL_FLOW_BASED)
		return template_equal(a, b) && header_equal(a, b);
	/* Bridged frames go to one of its pods. */
	return !(a->tunnel_flags & TUNNEL_BRIDGED) || (x[0] == y[0] && x[1] == y[1] && x[2] == y[2]);
}

static __always_inline int host_same_content(const struct host *a, const struct host *b)
{
	return template_equal(a, b) && a->uplink == b->uplink && a->mtu == b->mtu &&
	       header_equal(a, b);
}

/* Where a host's slot is looked for first. */
static __always_inline __u32 host_home(const ipv6_t *remote_ip, ifindex_t tunnel)
{
	return hash32(ip6_hash(remote_ip) ^ tunnel);
}

/*
 * The slot for this host, found or filled; 0 when there is no room among the
 * slots its key may use. A global function, as the others here that loop: the
 * verifier goes through them once, not once for each state of their callers
 * (which took it 740 000 instructions of its million, and a load 3 s).
 */
__noinline ref_t egress_cache_learn(struct host *want, jiffies_t now)
{
	struct host *free = NULL, *host;
	__u32 home, slot, free_slot = 0, i;

	if (!want)
		return 0;
	home = host_home(&want->remote_ip, want->tunnel);
	if (want->tunnel_flags & TUNNEL_BRIDGED)
		home = hash32(home ^ *(const __u32 *)(((const struct outer *)want->template)->inner_eth.h_dest + 2));
	for (i = 0; i < SLOT_PROBES; i++) {
		slot = (home + i) & (settings.egress_slots - 1);
		host = bpf_map_lookup_elem(&egress_cache, &slot);
		if (!host)
			return 0;
		if (host->slot.state == SLOT_LIVE && host_same_key(host, want)) {
			if (host_same_content(host, want))
				return ref_make(slot, host->slot.generation);
			slot_retire(&host->slot, now);
		} else if (!free && slot_is_free(&host->slot, now)) {
			free = host;
			free_slot = slot;
		}
	}
	if (!free || !slot_claim(&free->slot))
		return 0;
	__builtin_memcpy(free->template, want->template, sizeof(*want) - __builtin_offsetof(struct host, template));
	return slot_publish(&free->slot, free_slot);
}

static __always_inline int pod_same_content(const struct pod *a, const struct pod *b, int macs_known)
{
	const __u32 *x = (const void *)a->macs, *y = (const void *)b->macs;

	return a->veth == b->veth && a->veth_flags == b->veth_flags && a->mtu == b->mtu &&
	       mac_equal(x, y) && (!macs_known || (x[1] == y[1] && x[2] == y[2]));
}

/*
 * Likewise for a pod. `macs_known`: the gateway's MAC address is what the
 * fallback used; else it is a guess, and another one that is known stays.
 */
__noinline ref_t ingress_cache_learn(struct pod *want, int macs_known, jiffies_t now)
{
	struct pod *free = NULL, *pod;
	__u32 home, slot, free_slot = 0, i;

	if (!want)
		return 0;
	home = ip6_hash(&want->ip);
	for (i = 0; i < SLOT_PROBES; i++) {
		slot = (home + i) & (settings.ingress_slots - 1);
		pod = bpf_map_lookup_elem(&ingress_cache, &slot);
		if (!pod)
			return 0;
		if (pod->slot.state == SLOT_LIVE && ip6_equal(&pod->ip, &want->ip)) {
			if (pod_same_content(pod, want, macs_known))
				return ref_make(slot, pod->slot.generation);
			slot_retire(&pod->slot, now);
		} else if (!free && slot_is_free(&pod->slot, now)) {
			free = pod;
			free_slot = slot;
		}
	}
	if (!free || !slot_claim(&free->slot))
		return 0;
	words_copy(free->macs, want->macs, sizeof(*want) - __builtin_offsetof(struct pod, macs));
	return slot_publish(&free->slot, free_slot);
}

/*
 * What was written before is visible to every CPU, and what is read after it
 * is read then: an atomic operation is the full barrier that BPF has. It is on
 * something of our own, since it takes what it is on away from the other CPUs.
 */
static __always_inline void full_barrier(void)
{
	__u64 own = 0, was;

	barrier_var(own);
	was = __sync_fetch_and_add(&own, 1);
	barrier_var(was);
}

/* At the beginning of a lesson: before anything is asked. */
static __always_inline __u32 evictions_now(const struct control *ctl)
{
	__u32 evictions = *(const volatile __u32 *)&ctl->evictions;

	if (settings.loads_in_order)
		barrier();
	else
		full_barrier();
	return evictions;
}

/* At its end: after everything is written. */
static __always_inline int is_evicted_since(const struct control *ctl, __u32 evictions)
{
	full_barrier();
	return *(const volatile __u32 *)&ctl->evictions != evictions;
}

static __always_inline int key_equal(const struct flow_key *a, const struct flow_key *b)
{
	return words_equal(a, b, sizeof(*a));
}

/* The same packets, seen from their other end. */
static __always_inline void key_swap(struct flow_key *to, const struct flow_key *from)
{
	struct flow_key key = *from;

	to->local_ip = key.remote_ip;
	to->remote_ip = key.local_ip;
	to->local_port = key.remote_port;
	to->remote_port = key.local_port;
}

/* Whether a key is another one than the packets' own, seen from their other end if `swapped`. */
static __always_inline int is_translated(const struct flow_key *asked, const struct flow_key *key, int swapped)
{
	if (!swapped)
		return !key_equal(asked, key);
	return asked->local_ip != key->remote_ip || asked->remote_ip != key->local_ip ||
	       asked->local_port != key->remote_port || asked->remote_port != key->local_port;
}

static __always_inline void flow_set_other(struct flow *flow, const struct flow_key *key, const struct flow_key *other)
{
	flow->other = *other;
	flow->address_sum = csum_fold((__u64)other->local_ip + other->remote_ip + (__u32)~key->local_ip +
				      (__u32)~key->remote_ip);
	flow->port_sum = csum_fold((__u64)other->local_port + other->remote_port + (__u16)~key->local_port +
				   (__u16)~key->remote_port);
	/* Nothing to add; minus zero would not be wrong, but work. */
	if (flow->address_sum == 0xffff)
		flow->address_sum = 0;
	if (flow->port_sum == 0xffff)
		flow->port_sum = 0;
}

/* Confirms a verdict, or makes it another one. */
static __always_inline enum lesson verdict_renew(struct control *ctl, struct verdict *known,
						 const struct verdict *verdict, const struct question *question)
{
	enum lesson lesson = known->ref == verdict->ref && known->flags == verdict->flags &&
			     known->epoch == question->epoch ? LESSON_CONFIRMED : LESSON_LEARNED;

	known->ref = verdict->ref;
	known->outer_port = verdict->outer_port;
	known->flags = verdict->flags;
	known->epoch = question->epoch;
	barrier();
	known->confirmed_at = question->now;
	if (!is_evicted_since(ctl, question->evictions))
		return lesson;
	known->epoch = 0;
	return LESSON_PAUSED;
}

/* Both directions are known, and what comes in was confirmed lately. */
static __always_inline int is_in_use(const struct verdict *egress, const struct verdict *ingress,
				     const struct question *question)
{
	return egress->epoch == question->epoch && ingress->epoch == question->epoch &&
	       question->now - ingress->confirmed_at <= settings.max_staleness;
}

/*
 * Whether connection tracking was asked about the flow a moment ago, from its
 * other direction, and has said that nothing is translated. Then it is not
 * asked again for the first lesson of this one; for all later ones it is. (An
 * entry of it that ends takes the flow along, see forget.h.)
 */
static __always_inline int is_half_learned(const struct verdict *egress, const struct verdict *ingress,
					   enum direction direction, const struct question *question)
{
	const struct verdict *this = direction == DIRECTION_EGRESS ? egress : ingress;
	const struct verdict *other = direction == DIRECTION_EGRESS ? ingress : egress;

	return other->epoch == question->epoch && this->epoch != question->epoch && !is_entered_twice(this, other) &&
	       question->now - other->confirmed_at <= settings.retry;
}

/* Whether an entry is of two pods of this host that call each other by their own addresses. */
static __always_inline int is_within_host(const struct flow_key *key, const struct flow_key *other)
{
	return other && other->proto && other->local_ip == key->remote_ip;
}

/* Whether an entry is that of a flow which was entered otherwise: once instead of twice, or twice with another key. */
static __always_inline int is_of_another(const struct flow *flow, const struct flow_key *other)
{
	if (!is_entered_twice(&flow->egress, &flow->ingress))
		return other != NULL;
	return !other || !key_equal(&flow->other, other);
}

/*
 * One direction's verdict. The other direction's is left alone: another CPU
 * may be writing it. When an eviction came since the lesson began, what was
 * written may be what was just evicted.
 */
__noinline int entry_learn(const struct flow_key *of, const struct flow_key *other,
				  const struct verdict *verdict, const struct question *question, int egress)
{
	struct control *ctl = control_get();
	struct verdict *known;
	struct flow_key copy, *key = &copy;
	struct flow *flow;

	if (!ctl || !of || !verdict || !question)
		return LESSON_FULL;
	copy = *of;	/* before Linux 6.2, a global function's argument cannot be a map's key */
	flow = question->is_new && !other ? NULL : filter_cache_get(key);
	if (unlikely(flow && is_of_another(flow, other))) {
		if (is_within_host(key, other) != is_within_host(key, &flow->other) &&
		    is_in_use(&flow->egress, &flow->ingress, question))
			return LESSON_CONFLICT;
		/* Of an earlier connection: readers must never see half of each. */
		bpf_map_delete_elem(&filter_cache, key);
		flow = NULL;
	}
	if (!flow) {
		struct flow fresh = {};

		known = egress ? &fresh.egress : &fresh.ingress;
		*known = *verdict;
		known->epoch = question->epoch;
		known->confirmed_at = question->now;
		fresh.options = egress ? 0 : question->options;
		if (unlikely(other))
			flow_set_other(&fresh, key, other);
		if (!bpf_map_update_elem(&filter_cache, key, &fresh, BPF_NOEXIST)) {
			overload_count(&pressure, question->now);
			if (!is_evicted_since(ctl, question->evictions))
				return LESSON_LEARNED;
			bpf_map_delete_elem(&filter_cache, key);
			return LESSON_PAUSED;
		}
		flow = filter_cache_get(key);	/* the other init program was faster */
		if (!flow || is_of_another(flow, other))
			return LESSON_FULL;
	}
	if (!egress && question->options)
		flow->options = question->options;
	return verdict_renew(ctl, egress ? &flow->egress : &flow->ingress, verdict, question);
}

/*
 * Enters a verdict for the packets that were asked about. `key` is theirs at
 * the init hook: another one than `asked`, where they were asked about, when
 * they are translated, or go to another pod of this host.
 */
static __always_inline enum lesson flow_learn(const struct flow_key *key, const struct flow_key *asked,
					      enum direction direction, struct verdict *verdict,
					      const struct question *question)
{
	enum lesson lesson;

	if (likely(key_equal(asked, key)))
		return entry_learn(key, NULL, verdict, question, direction == DIRECTION_EGRESS);
	verdict->flags |= VERDICT_TWICE | VERDICT_REVERSE;
	lesson = entry_learn(key, asked, verdict, question, direction == DIRECTION_EGRESS);
	if (lesson != LESSON_LEARNED && lesson != LESSON_CONFIRMED)
		return lesson;
	verdict->flags &= ~VERDICT_REVERSE;
	if (question->from_pod && direction == DIRECTION_INGRESS)
		verdict->ref |= REF_POD;
	return entry_learn(asked, key, verdict, question, question->from_pod);
}

#endif
