/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* From addresses and flows to the slots where they are looked for. */
#ifndef ONCACHE_HASH_H
#define ONCACHE_HASH_H

#include "oncache.h"

static __always_inline __u32 hash32(__u32 value)
{
	value ^= value >> 16;
	value *= 0x85ebca6b;
	value ^= value >> 13;
	value *= 0xc2b2ae35;
	return value ^ value >> 16;
}

static __always_inline __u32 ip6_hash(const ipv6_t *ip)
{
	return hash32(ip->w[3] + ip->w[2] * 0x9e3779b1 + ip->w[1] * 0x85ebca77 + ip->w[0] * 0xc2b2ae3d);
}

static __always_inline __u32 flow_hash(const struct flow_key *key)
{
	__u32 ports = (__u32)key->local_port << 16 | key->remote_port;

	return hash32(key->local_ip * 31 + hash32(key->remote_ip + ports * 2654435761u + key->proto));
}

static __always_inline __u32 flow_hash6(const struct flow_key6 *key)
{
	__u32 ports = (__u32)key->local_port << 16 | key->remote_port;

	return hash32(ip6_hash(&key->local_ip) * 31 +
		      hash32(ip6_hash(&key->remote_ip) + ports * 2654435761u + key->proto));
}

#endif
