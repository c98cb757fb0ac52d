/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* What the fallback's connection tracking knows of a flow, through the kfunc of net/netfilter/nf_conntrack_bpf.c. */
#ifndef ONCACHE_CONNTRACK_H
#define ONCACHE_CONNTRACK_H

#include "oncache.h"
#include "parse.h"
#include "question.h"
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>

#define IPS_SEEN_REPLY (1 << 1)		/* include/uapi/linux/netfilter/nf_conntrack_common.h */
#define IPS_SEQ_ADJUST (1 << 6)
#define IPS_DYING (1 << 9)		/* set before the entry's end is announced (forget.h) */
#define IPS_HELPER (1 << 13)
#define IPS_NAT (1 << 4 | 1 << 5)	/* IPS_SRC_NAT, IPS_DST_NAT */
#define TCP_CONNTRACK_SYN_RECV 2
#define TCP_CONNTRACK_ESTABLISHED 3	/* include/uapi/linux/netfilter/nf_conntrack_tcp.h */
#define NETNS_OF_PACKET (-1)		/* BPF_F_CURRENT_NETNS */
#define AF_INET 2
#define AF_INET6 10

/* The parts of the kernel's structs that are read, relocated at load time. */
struct ip_ct_tcp {
	__u8 state;
} __attribute__((preserve_access_index));

union nf_conntrack_proto {
	struct ip_ct_tcp tcp;
} __attribute__((preserve_access_index));

union nf_inet_addr {
	__be32 ip;
	__be32 ip6[4];
} __attribute__((preserve_access_index));

union nf_conntrack_man_proto {
	__be16 all;
} __attribute__((preserve_access_index));

struct nf_conntrack_man {
	union nf_inet_addr u3;
	union nf_conntrack_man_proto u;
	__u16 l3num;
} __attribute__((preserve_access_index));

struct nf_conntrack_tuple {
	struct nf_conntrack_man src;
	struct {
		union nf_inet_addr u3;
		union {
			__be16 all;
		} u;
		__u8 protonum;
	} dst;
} __attribute__((preserve_access_index));

struct nf_conntrack_tuple_hash {
	struct nf_conntrack_tuple tuple;
} __attribute__((preserve_access_index));

struct nf_conn {
	unsigned long status;
	struct nf_conntrack_tuple_hash tuplehash[2];
	union nf_conntrack_proto proto;
} __attribute__((preserve_access_index));

/*
 * The first 12 bytes, which every kernel >= 5.18 takes; the 16 bytes with a
 * zone (6.11) are refused by older ones.
 */
struct bpf_ct_opts___v2 {
	__s32 netns_id;
	__s32 error;
	__u8 l4proto;
	__u8 dir;
	__u16 ct_zone_id;
	__u8 ct_zone_dir;
	__u8 reserved[3];
};
#define CT_OPTS_V1_SIZE 12
#define CT_ZONE_DIR_BOTH 3	/* NF_CT_DEFAULT_ZONE_DIR */

/* The kernel's own, only to ask whether it has the field. */
struct bpf_ct_opts {
	__u16 ct_zone_id;
} __attribute__((preserve_access_index));

static __always_inline int conntrack_has_zones(void)
{
	return bpf_core_field_exists(struct bpf_ct_opts, ct_zone_id);
}

/*
 * Called in metadata mode only, and without asking whether they are there:
 * libbpf before 1.3 gets the address of a module's function wrong, and then no
 * program with the question loads. Weak, since dscp mode does without them.
 */
struct nf_conn *bpf_skb_ct_lookup(struct __sk_buff *skb, struct bpf_sock_tuple *tuple, __u32 tuple_size,
				  struct bpf_ct_opts___v2 *opts, __u32 opts_size) __weak __ksym;
void bpf_ct_release(struct nf_conn *ct) __weak __ksym;

/* The entry that knows this tuple; `found`: as which of its two. To be released. */
static __always_inline struct nf_conn *conntrack_find(struct __sk_buff *skb, struct bpf_sock_tuple *tuple,
						      __u32 tuple_size, __u8 proto, __u32 zone, __u8 *found)
{
	struct bpf_ct_opts___v2 opts = { .netns_id = NETNS_OF_PACKET, .l4proto = proto };
	struct nf_conn *ct;

	if (likely(!zone)) {
		ct = bpf_skb_ct_lookup(skb, tuple, tuple_size, &opts, CT_OPTS_V1_SIZE);
	} else if (conntrack_has_zones()) {
		opts.ct_zone_id = zone;
		opts.ct_zone_dir = CT_ZONE_DIR_BOTH;
		ct = bpf_skb_ct_lookup(skb, tuple, tuple_size, &opts, sizeof(opts));
	} else {
		return NULL;
	}
	*found = opts.dir;
	return ct;
}

/*
 * Both tuples of a translated connection: that of the packets which take this
 * packet's way, as they come into the host, is what the flow was asked about.
 */
static __always_inline enum lesson conntrack_asked(const struct nf_conn *ct, __u8 found, int from_pod,
						    struct flow_key *asked)
{
	const struct nf_conntrack_tuple *tuple = found ? &ct->tuplehash[0].tuple : &ct->tuplehash[1].tuple;
	ipv4_t source_ip = tuple->src.u3.ip, destination_ip = tuple->dst.u3.ip;
	port_t source_port = tuple->src.u.all, destination_port = tuple->dst.u.all;

	if (tuple->src.l3num != AF_INET || tuple->dst.protonum != asked->proto)
		return LESSON_NAT;
	asked->local_ip = from_pod ? source_ip : destination_ip;
	asked->remote_ip = from_pod ? destination_ip : source_ip;
	asked->local_port = from_pod ? source_port : destination_port;
	asked->remote_port = from_pod ? destination_port : source_port;
	return LESSON_LEARNED;
}

/* Whether an entry's packets may be taken away from connection tracking. */
static __always_inline enum lesson conntrack_judge(const struct nf_conn *ct, unsigned long status, __u8 proto)
{
	__u8 state;

	if (!(status & IPS_SEEN_REPLY) || status & IPS_DYING)
		return LESSON_NOT_ESTABLISHED;
	if (proto == IPPROTO_TCP) {
		state = ct->proto.tcp.state;
		if (state != TCP_CONNTRACK_SYN_RECV && state != TCP_CONNTRACK_ESTABLISHED)
			return LESSON_NOT_ESTABLISHED;
	}
	return status & (IPS_HELPER | IPS_SEQ_ADJUST) ? LESSON_HELPER : LESSON_LEARNED;
}

/*
 * Whether connection tracking has seen both directions of the packet's flow.
 * A TCP connection counts from its SYN-ACK until it begins to close: after
 * that it stays with the fallback. `asked` becomes the key that the packet had
 * where it was marked, when its addresses or ports are translated in between.
 *
 * Looked up is the answer to the packet: connection tracking knows each
 * direction as it comes into the host, and here the packet is on its way out.
 *
 * The kfunc knows TCP and UDP only. For ICMP echo the two init hooks are the
 * evidence: each direction is learned when the fallback carried it, and
 * neither is used before the other one was.
 */
static __always_inline enum lesson conntrack_established(struct __sk_buff *skb, const struct packet *pkt,
							  enum direction direction, const struct question *question,
							  struct flow_key *asked)
{
	const struct flow_key *key = &pkt->key;
	int egress = direction == DIRECTION_EGRESS;
	struct bpf_sock_tuple tuple = {
		.ipv4 = {
			.saddr = egress ? key->remote_ip : key->local_ip,
			.daddr = egress ? key->local_ip : key->remote_ip,
			.sport = egress ? key->remote_port : key->local_port,
			.dport = egress ? key->local_port : key->remote_port,
		},
	};
	enum lesson lesson = LESSON_LEARNED, refusal;
	unsigned long status;
	struct nf_conn *ct;
	__u8 found;

	if (unlikely(key->proto == IPPROTO_ICMP))
		return LESSON_LEARNED;
	ct = conntrack_find(skb, &tuple, sizeof(tuple.ipv4), key->proto, question->zone, &found);
	if (!ct)
		return LESSON_NOT_ESTABLISHED;
	status = ct->status;
	if (unlikely(status & IPS_NAT))
		lesson = conntrack_asked(ct, found, question->from_pod, asked);
	refusal = conntrack_judge(ct, status, key->proto);
	bpf_ct_release(ct);
	return refusal ? refusal : lesson;
}

#endif
