// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/* Something to attach where nothing can be attached: the answer tells whether the kernel knows tcx. */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

SEC("tc")
int probe(struct __sk_buff *skb)
{
	return -1;
}

char _license[] SEC("license") = "Dual BSD/GPL";
