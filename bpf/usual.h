/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * The lessons that most packets are: IPv4, routed by this host, in VXLAN's 64
 * bytes over IPv4, between a host and a pod that the caches have already, while
 * no pod opts out. What a lesson costs is mostly the cache lines of code that
 * it runs through, so these have their own way, in which nothing else stands.
 *
 * Either all of that holds, or NOT_USUAL, and then nothing was done: the
 * general functions, egress_init4() and ingress_init4(), begin anew. So what is
 * decided here they would decide alike.
 */
#ifndef ONCACHE_USUAL_H
#define ONCACHE_USUAL_H

/*
 * The slot of the host that this header goes to, if it is known like that, and
 * where it is looked for first; else 0. The generation is read before the rest:
 * a slot that is retired meanwhile has another one.
 */
static __always_inline ref_t host_known(const struct __sk_buff *skb, const struct tunnel *tunnel,
					const struct outer *outer)
{
	const __u64 *header = (const void *)outer;
	const struct host *host;
	__u32 slot, generation, i;
	ipv6_t remote_ip;

	ip6_of(&remote_ip, outer->ip.daddr);
	slot = host_home(&remote_ip, tunnel->ifindex) & (settings.egress_slots - 1);
	host = bpf_map_lookup_elem(&egress_cache, &slot);
	if (!host)
		return 0;
	generation = host->slot.generation;
	barrier();
	if (host->slot.state != SLOT_LIVE || host->tunnel_flags != (tunnel->flags & TUNNEL_INHERIT) ||
	    host->tunnel != tunnel->ifindex || host->uplink != skb->ifindex || host->mtu != tunnel->mtu)
		return 0;
#pragma unroll
	for (i = 0; i < OUTER_LEN / 8; i++)
		if (host->template[i] != template_word(header, i, tunnel->flags))
			return 0;
	return ref_make(slot, generation);
}

/* Likewise of the pod that this frame is delivered to. */
static __always_inline ref_t pod_known(const struct __sk_buff *skb, const struct veth *veth, ipv4_t local_ip)
{
	const void *frame = (void *)(long)skb->data;
	const struct pod *pod;
	__u32 slot, generation;
	ipv6_t ip;

	if (frame + ETH_HLEN > (void *)(long)skb->data_end)
		return 0;
	ip6_of(&ip, local_ip);
	slot = ip6_hash(&ip) & (settings.ingress_slots - 1);
	pod = bpf_map_lookup_elem(&ingress_cache, &slot);
	if (!pod)
		return 0;
	generation = pod->slot.generation;
	barrier();
	if (pod->slot.state != SLOT_LIVE || !ip6_equal(&pod->ip, &ip) || pod->veth != skb->ifindex ||
	    pod->veth_flags != veth->flags || pod->mtu != veth->mtu || !words_equal(frame, pod->macs, sizeof(pod->macs)))
		return 0;
	return ref_make(slot, generation);
}

/* Asks, and enters what the caches know already into the flow. */
static __always_inline enum lesson usual_learn(struct __sk_buff *skb, const struct packet *pkt,
					       enum direction direction, struct verdict *verdict,
					       struct question *question)
{
	struct flow_key asked = pkt->key;
	enum lesson lesson = established(skb, pkt, direction, MARKED, question, &asked);

	if (unlikely(lesson))
		return lesson;
	if (unlikely(is_translated(&asked, &pkt->key, 0))) {
		question->translated = 1;
		verdict->flags = VERDICT_TRANSLATED;
	}
	return flow_learn(&pkt->key, &asked, direction, verdict, question);
}

__noinline int egress_init_usual(struct __sk_buff *skb, struct control *ctl)
{
	const enum direction direction = DIRECTION_EGRESS;
	struct question question = {};
	struct verdict verdict = {};
	const struct outer *outer;
	struct tunnel *tunnel;
	struct packet pkt;
	int port_known;

	if (!skb || !ctl)
		return NOT_USUAL;
	outer = outer_get(skb);
	if (!outer || ethertype(&outer->eth) != bpf_htons(ETH_P_IP) || outer->ip.protocol != IPPROTO_UDP)
		return NOT_USUAL;
	tunnel = tunnel_of(ctl, skb->ifindex, outer->udp.dest, outer->tunnel.vni, &port_known);
	if (!tunnel || is_geneve(tunnel) || tunnel->flags & (TUNNEL_IPV6 | TUNNEL_FLOW_BASED) ||
	    outer_check(skb, outer, tunnel) || outer->inner_eth.h_dest[0] & 1 ||
	    !mac_equal(outer->inner_eth.h_source, tunnel->mac.b))
		return NOT_USUAL;
	if (!is_teacher(parse_ipv4(skb, INNER_OFFSET, direction, &pkt), &pkt))
		return NOT_USUAL;
	if (question_open(ctl, 1, tunnel->zone, &question) || !question.consent)
		return NOT_USUAL;
	verdict.ref = host_known(skb, tunnel, outer);
	if (!verdict.ref)
		return NOT_USUAL;
	verdict.outer_port = outer->udp.source;
	return usual_learn(skb, &pkt, direction, &verdict, &question);
}

__noinline int ingress_init_usual(struct __sk_buff *skb, struct control *ctl, const struct tunnel *tunnel)
{
	const enum direction direction = DIRECTION_INGRESS;
	struct question question = {};
	struct verdict verdict = {};
	const struct veth *veth;
	struct packet pkt;

	if (!skb || !ctl || !tunnel || is_geneve(tunnel) || tunnel->flags & TUNNEL_FLOW_BASED)
		return NOT_USUAL;
	if (!is_teacher(parse_frame(skb, direction, &pkt), &pkt))
		return NOT_USUAL;
	veth = veth_get(skb->ifindex);
	if (!veth || is_bridged(skb, veth) || is_flooded(skb))
		return NOT_USUAL;
	if (question_open(ctl, 0, tunnel->zone, &question) || !question.consent)
		return NOT_USUAL;
	verdict.ref = pod_known(skb, veth, pkt.key.local_ip);
	if (!verdict.ref)
		return NOT_USUAL;
	return usual_learn(skb, &pkt, direction, &verdict, &question);
}

#endif
