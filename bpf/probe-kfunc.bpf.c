// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/* Returns 1 where the kernel has the conntrack kfunc. Only test-run, never attached. */
#include "conntrack.h"

SEC("tc")
int probe(struct __sk_buff *skb)
{
	struct packet pkt = { .key.proto = IPPROTO_UDP };

	if (!bpf_ksym_exists(bpf_skb_ct_lookup))
		return 0;
	conntrack_established(skb, &pkt, DIRECTION_EGRESS);
	return 1;
}

char _license[] SEC("license") = "Dual BSD/GPL";
