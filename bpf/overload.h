/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Not learning in vain: with many more flows than entries, each would be
 * thrown out before its next packet, and every packet would pay for a lesson.
 * Then only some flows are asked about, always the same ones, which stay.
 */
#ifndef ONCACHE_OVERLOAD_H
#define ONCACHE_OVERLOAD_H

#include "maps.h"

#define ADMIT_ONE_IN 16
#define COUNTED_TOGETHER 8	/* new flows of a CPU */

/* On one filter cache. Estimates: two CPUs that count at the same time may lose one. */
struct pressure {
	jiffies_t since;	/* the window's begin */
	__u32 learned;		/* new flows in this window */
	__u32 is_high;
} pressure = {}, pressure6 = {};

/* Of new flows in a window. */
static __always_inline __u32 overload_quota(const struct pressure *on)
{
	return (on == &pressure6 ? settings.filter6_entries : settings.filter_entries) / 4;
}

/*
 * A new flow was entered. Each CPU has its own count, and adds to the common
 * one only now and then: that is on a cache line which all of them read.
 */
static __always_inline void overload_count(struct pressure *on, jiffies_t now)
{
	struct counts *counts = counts_get();
	__u64 flows;

	if (!counts)
		return;
	flows = on == &pressure6 ? ++counts->flows6 : ++counts->flows;
	if (flows % COUNTED_TOGETHER)
		return;
	if (now - on->since > settings.window) {
		/* While few are admitted, each stands for many. */
		on->is_high = now - on->since < 2 * settings.window &&
				    on->learned * (on->is_high ? ADMIT_ONE_IN : 1) > overload_quota(on);
		on->learned = 0;
		on->since = now;
	}
	on->learned += COUNTED_TOGETHER;
}

static __always_inline int overload_is_on(const struct pressure *on, jiffies_t now)
{
	return (on->is_high || on->learned > overload_quota(on)) &&
	       now - on->since < 2 * settings.window;
}

/* Some flows are learned in any case, the same at every hook: both directions are needed. `hash` is that of the flow. */
static __always_inline int overload_admits(__u32 hash)
{
	return hash % ADMIT_ONE_IN == 0;
}

#endif
