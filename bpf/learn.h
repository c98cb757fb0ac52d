/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Entering what the fallback decided into the caches. Only the init programs come here: off the fast path. */
#ifndef ONCACHE_LEARN_H
#define ONCACHE_LEARN_H

#include "maps.h"
#include "parse.h"

static __always_inline __u32 hash32(__u32 value)
{
	value ^= value >> 16;
	value *= 0x85ebca6b;
	value ^= value >> 13;
	value *= 0xc2b2ae35;
	return value ^ value >> 16;
}

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

static __always_inline int host_same_key(const struct host *a, const struct host *b)
{
	return a->remote_ip == b->remote_ip && a->tunnel == b->tunnel;
}

static __always_inline int host_same_content(const struct host *a, const struct host *b)
{
	return words_equal(a->template, b->template, OUTER_LEN) && a->uplink == b->uplink && a->mtu == b->mtu &&
	       a->tunnel_flags == b->tunnel_flags;
}

/* The slot for this host, found or filled; 0 when there is no room among the slots its key may use. */
static __noinline ref_t egress_cache_learn(struct host *want, jiffies_t now)
{
	struct host *free = NULL, *host;
	__u32 home, slot, free_slot = 0, i;

	if (!want)
		return 0;
	home = hash32(want->remote_ip ^ want->tunnel);
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

/* Likewise for a pod. */
static __noinline ref_t ingress_cache_learn(struct pod *want, jiffies_t now)
{
	struct pod *free = NULL, *pod;
	__u32 home, slot, free_slot = 0, i;

	if (!want)
		return 0;
	home = hash32(want->ip);
	for (i = 0; i < SLOT_PROBES; i++) {
		slot = (home + i) & (settings.ingress_slots - 1);
		pod = bpf_map_lookup_elem(&ingress_cache, &slot);
		if (!pod)
			return 0;
		if (pod->slot.state == SLOT_LIVE && pod->ip == want->ip) {
			if (pod->veth == want->veth && pod->veth_flags == want->veth_flags && pod->mtu == want->mtu &&
			    words_equal(pod->macs, want->macs, sizeof(pod->macs)))
				return ref_make(slot, pod->slot.generation);
			slot_retire(&pod->slot, now);
		} else if (!free && slot_is_free(&pod->slot, now)) {
			free = pod;
			free_slot = slot;
		}
	}
	if (!free || !slot_claim(&free->slot))
		return 0;
	free->ip = want->ip;
	free->veth = want->veth;
	free->veth_flags = want->veth_flags;
	free->mtu = want->mtu;
	__builtin_memcpy(free->macs, want->macs, sizeof(free->macs));
	__builtin_memcpy(free->from_pod, want->from_pod, sizeof(free->from_pod));
	return slot_publish(&free->slot, free_slot);
}

/* One direction's verdict. The other direction's is left alone: another CPU may be writing it. */
static __always_inline enum lesson filter_cache_learn(const struct flow_key *key, enum direction direction,
						      const struct verdict *verdict)
{
	struct flow *flow = filter_cache_get(key);
	struct verdict *known;
	enum lesson lesson;

	if (!flow) {
		struct flow fresh = {};

		if (direction == DIRECTION_EGRESS)
			fresh.egress = *verdict;
		else
			fresh.ingress = *verdict;
		if (!bpf_map_update_elem(&filter_cache, key, &fresh, BPF_NOEXIST))
			return LESSON_LEARNED;
		flow = filter_cache_get(key);	/* the other init program was faster */
		if (!flow)
			return LESSON_FULL;
	}
	known = direction == DIRECTION_EGRESS ? &flow->egress : &flow->ingress;
	lesson = known->ref == verdict->ref && known->epoch == verdict->epoch ? LESSON_CONFIRMED : LESSON_LEARNED;
	known->ref = verdict->ref;
	known->outer_port = verdict->outer_port;
	known->epoch = verdict->epoch;
	barrier();
	known->confirmed_at = verdict->confirmed_at;
	return lesson;
}

#endif
