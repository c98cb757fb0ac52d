// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/* Loads only where the kernel has bpf_redirect_peer() (Linux 5.10). Only test-run, never attached. */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

SEC("tc")
int probe(struct __sk_buff *skb)
{
	return bpf_redirect_peer(1, 0);
}

char _license[] SEC("license") = "Dual BSD/GPL";
