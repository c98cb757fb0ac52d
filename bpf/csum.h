/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* One's complement arithmetic on IPv4 headers (RFC 1071, RFC 1624), on values as they lie in the packet. */
#ifndef ONCACHE_CSUM_H
#define ONCACHE_CSUM_H

#include <linux/types.h>

static __always_inline __u16 csum_fold(__u64 sum)
{
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return sum;
}

/* Sum of a 20-byte IPv4 header, at most 35 bits. */
static __always_inline __u64 csum_ipv4(const void *header)
{
	const __u32 *word = header;

	return (__u64)word[0] + word[1] + word[2] + word[3] + word[4];
}

/* Whether a header's own checksum is right: the sum folds to 0xffff. Three steps do for 35 bits. */
static __always_inline int csum_ipv4_ok(const void *header)
{
	__u64 sum = csum_ipv4(header);

	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return sum == 0xffff;
}

/* The sum again, on the stack, where only aligned access is allowed. */
static __always_inline __u64 csum_ipv4_stack(const void *header)
{
	const __u16 *word = header;
	__u64 sum = 0;
	__u32 i;

#pragma unroll
	for (i = 0; i < 10; i++)
		sum += word[i];
	return sum;
}

/* RFC 1624, equation 3: the checksum after a 16-bit word changed from old to new. */
static __always_inline __u16 csum_replace(__u16 check, __u16 old, __u16 new)
{
	return ~csum_fold((__u64)(__u16)~check + (__u16)~old + new);
}

#endif
