/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* What an init program wants to know about a marked packet. */
#ifndef ONCACHE_QUESTION_H
#define ONCACHE_QUESTION_H

#include "oncache.h"

/* What the fallback was asked, as the init program found it when the lesson began. */
struct question {
	jiffies_t now;
	__u32 evictions;
	__u32 epoch;
	__u32 options;		/* ingress: digest of the Geneve header that it arrived with; 0: one without options */
	__u16 zone;		/* of connection tracking, where the fallback knows the flow; 0: none of its own */
	__u8 from_pod;		/* asked by egress; else by ingress */
	__u8 bridged;		/* the packet was not routed by this host */
	__u8 consent;		/* of all pods: nobody has to be looked up */
	__u8 is_new;		/* nothing was cached of it a moment ago */
	__u8 translated;	/* it has other addresses or ports here than there */
};

#endif
