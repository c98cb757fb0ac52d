/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* What the fallback's connection tracking knows of a flow, through the kfunc of net/netfilter/nf_conntrack_bpf.c. */
#ifndef ONCACHE_CONNTRACK_H
#define ONCACHE_CONNTRACK_H

#include "oncache.h"
#include "parse.h"
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>

#define IPS_SEEN_REPLY (1 << 1)		/* include/uapi/linux/netfilter/nf_conntrack_common.h */
#define IPS_NAT (1 << 4 | 1 << 5)	/* IPS_SRC_NAT, IPS_DST_NAT */
#define TCP_CONNTRACK_SYN_RECV 2
#define TCP_CONNTRACK_ESTABLISHED 3	/* include/uapi/linux/netfilter/nf_conntrack_tcp.h */
#define NETNS_OF_PACKET (-1)		/* BPF_F_CURRENT_NETNS */

/* The parts of the kernel's structs that are read, relocated at load time. */
struct ip_ct_tcp {
	__u8 state;
} __attribute__((preserve_access_index));

union nf_conntrack_proto {
	struct ip_ct_tcp tcp;
} __attribute__((preserve_access_index));

struct nf_conn {
	unsigned long status;
	union nf_conntrack_proto proto;
} __attribute__((preserve_access_index));

/* The first 12 bytes, which every kernel >= 5.18 takes; the later 16-byte form is refused by older ones. */
struct bpf_ct_opts___v1 {
	__s32 netns_id;
	__s32 error;
	__u8 l4proto;
	__u8 dir;
	__u8 reserved[2];
};

#ifndef bpf_ksym_exists	/* libbpf < 1.2 */
#define bpf_ksym_exists(sym) (!!(sym))
#endif

struct nf_conn *bpf_skb_ct_lookup(struct __sk_buff *skb, struct bpf_sock_tuple *tuple, __u32 tuple_size,
				  struct bpf_ct_opts___v1 *opts, __u32 opts_size) __weak __ksym;
void bpf_ct_release(struct nf_conn *ct) __weak __ksym;

/*
 * Whether connection tracking has seen both directions of the packet's flow
 * and leaves its addresses alone. A TCP connection counts from its SYN-ACK
 * until it begins to close: after that it stays with the fallback.
 *
 * The kfunc knows TCP and UDP only. For ICMP echo the two init hooks are the
 * evidence: each direction is learned when the fallback carried it, and
 * neither is used before the other one was.
 */
static __always_inline enum lesson conntrack_established(struct __sk_buff *skb, const struct packet *pkt,
							  enum direction direction)
{
	const struct flow_key *key = &pkt->key;
	int egress = direction == DIRECTION_EGRESS;
	struct bpf_sock_tuple tuple = {
		.ipv4 = {
			.saddr = egress ? key->local_ip : key->remote_ip,
			.daddr = egress ? key->remote_ip : key->local_ip,
			.sport = egress ? key->local_port : key->remote_port,
			.dport = egress ? key->remote_port : key->local_port,
		},
	};
	struct bpf_ct_opts___v1 opts = { .netns_id = NETNS_OF_PACKET, .l4proto = key->proto };
	enum lesson lesson = LESSON_LEARNED;
	struct nf_conn *ct;

	if (key->proto == IPPROTO_ICMP)
		return LESSON_LEARNED;
	if (!bpf_ksym_exists(bpf_skb_ct_lookup))
		return LESSON_NOT_ESTABLISHED;
	ct = bpf_skb_ct_lookup(skb, &tuple, sizeof(tuple.ipv4), &opts, sizeof(opts));
	if (!ct)
		return LESSON_NOT_ESTABLISHED;
	if (!(ct->status & IPS_SEEN_REPLY) ||
	    (key->proto == IPPROTO_TCP && ct->proto.tcp.state != TCP_CONNTRACK_SYN_RECV &&
	     ct->proto.tcp.state != TCP_CONNTRACK_ESTABLISHED))
		lesson = LESSON_NOT_ESTABLISHED;
	else if (ct->status & IPS_NAT)
		lesson = LESSON_NAT;
	bpf_ct_release(ct);
	return lesson;
}

#endif
