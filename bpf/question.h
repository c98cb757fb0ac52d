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
	__u32 from_pod;		/* asked by egress; else by ingress */
	__u32 zone;		/* of connection tracking, where the fallback knows the flow; 0: none of its own */
	__u32 bridged;		/* the packet was not routed by this host */
	__u32 translated;	/* it has other addresses or ports here than there */
	__u32 options;		/* ingress: digest of the Geneve header that it arrived with; 0: one without options */
};

#endif
