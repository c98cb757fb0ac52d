/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* The maps, and the only functions that touch them. */
#ifndef ONCACHE_MAPS_H
#define ONCACHE_MAPS_H

#include "oncache.h"
#include <bpf/bpf_helpers.h>

const volatile struct settings settings = {};

/* Never read: brings the enums into the object's BTF, from which layout.ts is generated. */
const volatile struct {
	enum direction direction;
	enum reason reason;
	enum lesson lesson;
	enum slot_state slot_state;
	enum mark_mode mark_mode;
} vocabulary = {};

/* Filter cache. LRU: under pressure the flow that was not used longest goes back to the fallback. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__type(key, struct flow_key);
	__type(value, struct flow);
	__uint(max_entries, 65536);
} filter_cache SEC(".maps");

/* Likewise over IPv6: apart, so that the keys of IPv4 stay short. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__type(key, struct flow_key6);
	__type(value, struct flow6);
	__uint(max_entries, 65536);
} filter_cache6 SEC(".maps");

/*
 * Egress and ingress caches: arrays of slots. A flow names its slots, so that
 * a hit needs no second hash look-up; a generation in each slot tells whether
 * the reference still holds. Not LRU: a host or pod in use is never evicted
 * for another.
 */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, struct host);
	__uint(max_entries, 4096);
} egress_cache SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, struct pod);
	__uint(max_entries, 1024);
} ingress_cache SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, __u32);
	__type(value, struct veth);
	__uint(max_entries, 8192);
} veths SEC(".maps");

/* Not in `veths`: an array costs a packet less, and the agent never writes here. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, __u32);
	__type(value, sender_t);
	__uint(max_entries, SENDERS);
} senders SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, struct control);
	__uint(max_entries, 1);
} control SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__type(key, __u32);
	__type(value, struct counts);
	__uint(max_entries, 1);
} counters SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, __u32);
	__type(value, struct backoff);
	__uint(max_entries, 16384);
} backoffs SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__type(key, struct flow_key);
	__type(value, struct pending);
	__uint(max_entries, 65536);
} pending SEC(".maps");

/*
 * Addresses of pods that are left to the fallback, whichever end of a flow they
 * are; IPv4 as in the ingress cache. Written by the agent. Only lessons look
 * here: what is not learned needs no check on a hit.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, ipv6_t);
	__type(value, __u32);
	__uint(max_entries, OPTED_OUT_MAX);
} opted_out SEC(".maps");

/* Of Geneve tunnels only. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__type(key, struct carried_key);
	__type(value, struct carried);
	__uint(max_entries, 4096);
} carried SEC(".maps");

/* What the outer headers of a tunnel's packet say (envelope.h). */
struct envelope {
	ipv6_t source, destination;	/* or IPv4 */
	mac_t inner_dest, inner_source;
	__u32 len;		/* as drawn above */
	__u32 options;		/* digest of the Geneve header; 0: one without options */
	__u32 reason;		/* why it is not replayed, enum reason */
	vni_t vni;
	port_t source_port;
	__be16 proto;		/* EtherType of the inner frame */
	__be16 id;		/* of IPv4 */
	__u8 tos;		/* or traffic class */
	__u8 is_ipv6;
	__u32 is_geneve;
};

/* Room for what the stack has no room for. Nothing is kept there. */
struct scratch {
	struct envelope envelope;
	struct host host;
	struct flow6 flow6;
	__u64 header[LONG_MAX / 8 + 8];	/* a long outer header, with what comes behind it; a hit needs it */
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__type(key, __u32);
	__type(value, struct scratch);
	__uint(max_entries, 1);
} scratch SEC(".maps");

static __always_inline struct scratch *scratch_get(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&scratch, &zero);
}

static __always_inline struct host *draft_get(void)
{
	struct scratch *room = scratch_get();

	return room ? &room->host : NULL;
}

static __always_inline struct flow6 *draft_flow6_get(void)
{
	struct scratch *room = scratch_get();

	return room ? &room->flow6 : NULL;
}

static __always_inline void *draft_header_get(void)
{
	struct scratch *room = scratch_get();

	return room ? room->header : NULL;
}

static __always_inline struct control *control_get(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&control, &zero);
}

static __always_inline struct flow *filter_cache_get(const struct flow_key *key)
{
	return bpf_map_lookup_elem(&filter_cache, key);
}

/* The verdicts are read anyway; `other` may be on another CPU's cache line. */
static __always_inline int is_entered_twice(const struct verdict *egress, const struct verdict *ingress)
{
	return (egress->flags | ingress->flags) & VERDICT_TWICE;
}

/* A flow that begins or ends: what is cached of it does not hold any more, at either of its ends. */
static __noinline int flow_forget(const struct flow_key *key, const struct flow *flow)
{
	struct flow_key other;

	if (!is_entered_twice(&flow->egress, &flow->ingress)) {
		bpf_map_delete_elem(&filter_cache, key);
		return 1;
	}
	other = flow->other;
	bpf_map_delete_elem(&filter_cache, key);
	bpf_map_delete_elem(&filter_cache, &other);
	return 1;
}

/* Mostly nothing is. */
static __always_inline int filter_cache_forget(const struct flow_key *key)
{
	const struct flow *flow = filter_cache_get(key);

	return flow ? flow_forget(key, flow) : 0;
}

static __always_inline struct flow6 *filter_cache6_get(const struct flow_key6 *key)
{
	return bpf_map_lookup_elem(&filter_cache6, key);
}

/* As filter_cache_forget(). */
static __noinline int filter_cache6_forget(const struct flow_key6 *key)
{
	struct flow_key6 other;
	struct flow6 *flow;

	flow = bpf_map_lookup_elem(&filter_cache6, key);
	if (!flow)
		return 0;
	if (!is_entered_twice(&flow->egress, &flow->ingress)) {
		bpf_map_delete_elem(&filter_cache6, key);
		return 1;
	}
	other = flow->other;
	bpf_map_delete_elem(&filter_cache6, key);
	bpf_map_delete_elem(&filter_cache6, &other);
	return 1;
}

static __always_inline ref_t ref_make(__u32 slot, __u32 generation)
{
	return (__u64)generation << 32 | slot;
}

static __always_inline struct host *egress_cache_get(ref_t ref)
{
	__u32 slot = ref;
	struct host *host = bpf_map_lookup_elem(&egress_cache, &slot);

	return host && host->slot.generation == ref >> 32 ? host : NULL;
}

static __always_inline struct pod *ingress_cache_get(ref_t ref)
{
	__u32 slot = ref;
	struct pod *pod = bpf_map_lookup_elem(&ingress_cache, &slot);

	return pod && pod->slot.generation == ref >> 32 ? pod : NULL;
}

static __always_inline struct veth *veth_get(ifindex_t ifindex)
{
	return bpf_map_lookup_elem(&veths, &ifindex);
}

static __always_inline sender_t *sender_get(ifindex_t ifindex)
{
	__u32 entry = ifindex % SENDERS;

	return bpf_map_lookup_elem(&senders, &entry);
}

static __always_inline sender_t sender_of(ifindex_t ifindex, const void *mac)
{
	return (__u64)(ifindex / SENDERS) << 48 | (__u64)*(const __u16 *)(mac + 4) << 32 | *(const __u32 *)mac;
}

static __always_inline struct counts *counts_get(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&counters, &zero);
}

/* Every packet of a pod or tunnel is counted once, here. */
static __always_inline void count(enum direction direction, enum reason reason, __u32 bytes)
{
	struct counts *counts = counts_get();
	__u32 i = direction * REASON_MAX + reason;

	if (counts && i < DIRECTION_MAX * REASON_MAX) {
		counts->packets[i].packets++;
		counts->packets[i].bytes += bytes;
	}
}

static __always_inline void count_lesson(enum direction direction, enum lesson lesson)
{
	struct counts *counts = counts_get();
	__u32 i = lesson * DIRECTION_MAX + direction;

	if (counts && i < LESSON_MAX * DIRECTION_MAX)
		counts->lessons[i]++;
}

#endif
