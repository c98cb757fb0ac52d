/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* As conntrack.h for flows over IPv6. */
#ifndef ONCACHE_CONNTRACK6_H
#define ONCACHE_CONNTRACK6_H

#include "conntrack.h"
#include "parse6.h"

static __always_inline void address_read(ipv6_t *to, const union nf_inet_addr *from)
{
	to->w[0] = from->ip6[0];
	to->w[1] = from->ip6[1];
	to->w[2] = from->ip6[2];
	to->w[3] = from->ip6[3];
}

/* As conntrack_asked(). */
static __always_inline enum lesson conntrack6_asked(const struct nf_conn *ct, __u8 found, int from_pod,
						    struct flow_key6 *asked)
{
	const struct nf_conntrack_tuple *tuple = found ? &ct->tuplehash[0].tuple : &ct->tuplehash[1].tuple;
	port_t source_port = tuple->src.u.all, destination_port = tuple->dst.u.all;

	if (tuple->src.l3num != AF_INET6 || tuple->dst.protonum != asked->proto)
		return LESSON_NAT;
	address_read(from_pod ? &asked->local_ip : &asked->remote_ip, &tuple->src.u3);
	address_read(from_pod ? &asked->remote_ip : &asked->local_ip, &tuple->dst.u3);
	asked->local_port = from_pod ? source_port : destination_port;
	asked->remote_port = from_pod ? destination_port : source_port;
	return LESSON_LEARNED;
}

/* As conntrack_established(). `key` is the packet's, and that of its answer: the answer is looked up. */
static __always_inline enum lesson conntrack6_established(struct __sk_buff *skb, const struct flow_key6 *key,
							  enum direction direction, const struct question *question,
							  struct flow_key6 *asked)
{
	int egress = direction == DIRECTION_EGRESS;
	struct bpf_sock_tuple tuple;
	enum lesson lesson = LESSON_LEARNED, refusal;
	unsigned long status;
	struct nf_conn *ct;
	__u8 found;

	if (key->proto == IPPROTO_ICMPV6)
		return LESSON_LEARNED;
	__builtin_memcpy(tuple.ipv6.saddr, egress ? &key->remote_ip : &key->local_ip, sizeof(tuple.ipv6.saddr));
	__builtin_memcpy(tuple.ipv6.daddr, egress ? &key->local_ip : &key->remote_ip, sizeof(tuple.ipv6.daddr));
	tuple.ipv6.sport = egress ? key->remote_port : key->local_port;
	tuple.ipv6.dport = egress ? key->local_port : key->remote_port;
	ct = conntrack_find(skb, &tuple, sizeof(tuple.ipv6), key->proto, question->zone, &found);
	if (!ct)
		return LESSON_NOT_ESTABLISHED;
	status = ct->status;
	if (status & IPS_NAT)
		lesson = conntrack6_asked(ct, found, question->from_pod, asked);
	refusal = conntrack_judge(ct, status, key->proto);
	bpf_ct_release(ct);
	return refusal ? refusal : lesson;
}

#endif
