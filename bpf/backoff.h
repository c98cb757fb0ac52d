/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Not asking again and again: a flow that the fallback declines (one-way UDP,
 * untracked traffic) is marked only now and then, so that traffic which can
 * never be accelerated costs one array look-up and no conntrack look-up.
 */
#ifndef ONCACHE_BACKOFF_H
#define ONCACHE_BACKOFF_H

#include "learn.h"
#include "hash.h"
#include "maps.h"

/* `hash` is that of the flow. 0 is an empty slot's tag. */
static __always_inline __u32 backoff_tag(__u32 hash)
{
	return hash | 1;
}

/* Both directions stand side by side: mostly in one cache line. */
static __always_inline struct backoff *backoff_get(__u32 tag, enum direction direction)
{
	__u32 slot = ((tag & ~1) | direction) & (settings.backoff_slots - 1);

	return bpf_map_lookup_elem(&backoffs, &slot);
}

/* Whether this flow was declined lately. */
static __always_inline int backoff_waits(__u32 hash, enum direction direction, jiffies_t now)
{
	__u32 tag = backoff_tag(hash);
	struct backoff *backoff = backoff_get(tag, direction);

	return backoff && backoff->tag == tag && backoff->declined >= BACKOFF_FREE &&
	       now - backoff->at < settings.backoff;
}

static __always_inline void backoff_declined(__u32 hash, enum direction direction, jiffies_t now)
{
	__u32 tag = backoff_tag(hash);
	struct backoff *backoff = backoff_get(tag, direction);

	if (!backoff)
		return;
	backoff->declined = backoff->tag == tag ? backoff->declined + 1 : 1;
	backoff->tag = tag;
	backoff->at = now;
}

/*
 * With more flows than room, whether this one is not worth a lesson: one that
 * has no second packet soon would be thrown out before its next one.
 */
static __always_inline int backoff_overload(const struct pressure *on, __u32 hash, enum direction direction,
					    jiffies_t now)
{
	struct backoff *backoff;
	int is_second;
	__u32 tag;

	if (!overload_is_on(on, now) || overload_admits(hash))
		return 0;
	tag = backoff_tag(hash);
	backoff = backoff_get(tag, direction);
	if (!backoff)
		return 0;
	is_second = backoff->tag == tag && now - backoff->at <= settings.retry;
	if (backoff->tag != tag)
		backoff->declined = 0;
	backoff->tag = tag;
	backoff->at = now;
	return !is_second;
}

/* Nobody asks about a flow that is over, and at once about one that begins. */
static __always_inline void backoff_reset(__u32 hash, int is_over, jiffies_t now)
{
	__u32 tag = backoff_tag(hash);
	enum direction direction;

#pragma unroll
	for (direction = 0; direction < DIRECTION_MAX; direction++) {
		struct backoff *backoff = backoff_get(tag, direction);

		if (!backoff || (!is_over && backoff->tag != tag))
			continue;
		backoff->tag = tag;
		backoff->declined = is_over ? BACKOFF_FREE : 0;
		backoff->at = now;
	}
}

#endif
