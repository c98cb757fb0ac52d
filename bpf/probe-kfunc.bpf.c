// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/* Loads where the kernel has the conntrack kfunc. Never attached. */
#include "conntrack.h"

SEC("tc")
int probe(struct __sk_buff *skb)
{
	struct packet pkt = { .key.proto = IPPROTO_UDP };
	struct question question = { .from_pod = 1 };
	struct flow_key asked = {};

	return conntrack_established(skb, &pkt, DIRECTION_EGRESS, &question, &asked);
}

char _license[] SEC("license") = "Dual BSD/GPL";
