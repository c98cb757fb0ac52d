// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/* Returns 1 where the conntrack kfunc knows zones. Only test-run, never attached. */
#include "conntrack.h"

SEC("tc")
int probe(struct __sk_buff *skb)
{
	return conntrack_has_zones();
}

char _license[] SEC("license") = "Dual BSD/GPL";
