// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/* Writes jiffies behind the Ethernet header of a test packet. Only test-run, never attached. */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <linux/if_ether.h>

SEC("tc")
int clock(struct __sk_buff *skb)
{
	__u64 jiffies = bpf_jiffies64();

	return bpf_skb_store_bytes(skb, ETH_HLEN, &jiffies, sizeof(jiffies), 0);
}

char _license[] SEC("license") = "Dual BSD/GPL";
