/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Not asking again and again: a flow that the fallback declines (one-way UDP,
 * untracked traffic) is marked only now and then, so that traffic which can
 * never be accelerated costs one array look-up and no conntrack look-up.
 */
#ifndef ONCACHE_BACKOFF_H
#define ONCACHE_BACKOFF_H

#include "learn.h"
#include "maps.h"

static __always_inline __u32 backoff_tag(const struct flow_key *key, enum direction direction)
{
	__u32 ports = (__u32)key->local_port << 16 | key->remote_port;

	/* 0 is an empty slot's tag. */
	return hash32(key->local_ip * 31 + hash32(key->remote_ip + ports * 2654435761u + key->proto) + direction) | 1;
}

static __always_inline struct backoff *backoff_get(__u32 tag)
{
	__u32 slot = (tag >> 1) & (settings.backoff_slots - 1);

	return bpf_map_lookup_elem(&backoffs, &slot);
}

/* Whether this flow was declined lately. */
static __always_inline int backoff_waits(const struct flow_key *key, enum direction direction, jiffies_t now)
{
	__u32 tag = backoff_tag(key, direction);
	struct backoff *backoff = backoff_get(tag);

	return backoff && backoff->tag == tag && backoff->declined >= BACKOFF_FREE &&
	       now - backoff->at < settings.backoff;
}

static __always_inline void backoff_declined(const struct flow_key *key, enum direction direction, jiffies_t now)
{
	__u32 tag = backoff_tag(key, direction);
	struct backoff *backoff = backoff_get(tag);

	if (!backoff)
		return;
	backoff->declined = backoff->tag == tag ? backoff->declined + 1 : 1;
	backoff->tag = tag;
	backoff->at = now;
}

/* Nobody asks about a flow that is over, and at once about one that begins. */
static __always_inline void backoff_reset(const struct flow_key *key, int is_over, jiffies_t now)
{
	enum direction direction;

#pragma unroll
	for (direction = 0; direction < DIRECTION_MAX; direction++) {
		__u32 tag = backoff_tag(key, direction);
		struct backoff *backoff = backoff_get(tag);

		if (!backoff || (!is_over && backoff->tag != tag))
			continue;
		backoff->tag = tag;
		backoff->declined = is_over ? BACKOFF_FREE : 0;
		backoff->at = now;
	}
}

#endif
