// Do the proofs notice? In a copy of the project one line is changed so that a promise is broken; the proof that guards it must say so.
import { cpSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { run } from "../../src/lab/command.js";
import type { Proof, ProofOptions } from "./proof.js";

interface Plant {
	bug: string;
	file: string;
	line: string;
	instead: string;
	/** Tests or a proof; below dist/. */
	noticedBy: string[];
}

const ROOT = fileURLToPath(new URL("../../..", import.meta.url));
const proof = (name: string, amount: number): string[] => ["test/proof/main.js", name, "--amount", String(amount)];

export const PLANTS: readonly Plant[] = [
	{
		bug: "the TTL stays as it is",
		file: "bpf/encap.h",
		line: "		decrease_ttl(pkt);\n	__builtin_memcpy(out.head, &pkt->head, sizeof(out.head));\n	if (likely(!(flags & VERDICT_TRANSLATED)))",
		instead:
			"		(void)pkt;\n	__builtin_memcpy(out.head, &pkt->head, sizeof(out.head));\n	if (likely(!(flags & VERDICT_TRANSLATED)))",
		noticedBy: proof("differential", 200),
	},
	{
		bug: "the inner ECN field does not reach the outer header",
		file: "bpf/encap.h",
		line: "	ip->tos |= tos;",
		instead: "	tos = 0;",
		noticedBy: proof("differential", 600),
	},
	{
		bug: "gso_size grows at decapsulation",
		file: "bpf/encap.h",
		line: "bpf_skb_adjust_room(skb, -ENCAP_LEN, BPF_ADJ_ROOM_MAC, DECAP_FLAGS)",
		instead: "bpf_skb_adjust_room(skb, -ENCAP_LEN, BPF_ADJ_ROOM_MAC, DECAP_FLAGS & ~BPF_F_ADJ_ROOM_FIXED_GSO)",
		noticedBy: proof("differential", 600),
	},
	{
		bug: "one outer source port for all flows",
		file: "bpf/encap.h",
		line: "	out.outer.udp.source = flow->egress.outer_port;",
		instead: "	out.outer.udp.source = bpf_htons(50000);",
		noticedBy: proof("differential", 200),
	},
	{
		bug: "fragments take the fast path",
		file: "bpf/parse.h",
		line: "	if (unlikely(ip->frag_off & bpf_htons(IP_MF | IP_OFFSET)))\n		return REASON_FRAGMENT;",
		instead: "",
		noticedBy: proof("fuzz", 100_000),
	},
	{
		bug: "the outer source is not looked at",
		file: "bpf/oncache.bpf.c",
		line: "ip->saddr != host->remote_ip.w[3] || ",
		instead: "",
		noticedBy: proof("fuzz", 100_000),
	},
	{
		bug: "a wrong IPv4 checksum is repaired",
		file: "bpf/parse.h",
		line: "	if (unlikely(!csum_ipv4_ok(ip)))\n		return REASON_CHECKSUM;\n\n",
		instead: "",
		noticedBy: proof("fuzz", 100_000),
	},
	{
		bug: "learning without a mark",
		file: "bpf/oncache.bpf.c",
		line: "		if (!(skb->mark & settings.mark))\n			return NEXT;\n		skb->mark &= ~settings.mark;\n	}\n	ctl = control_get();\n	if (!ctl)",
		instead: "	}\n	ctl = control_get();\n	if (!ctl)",
		noticedBy: proof("fuzz", 100_000),
	},
	{
		bug: "the bound of staleness is forgotten",
		file: "bpf/oncache.bpf.c",
		line: "	if (age > settings.max_staleness)\n		return REASON_STALE;",
		instead: "",
		noticedBy: proof("policy", 20),
	},
	{
		bug: "samples teach although the fallback dropped them: the age is never asked",
		file: "bpf/oncache.bpf.c",
		line: "	jiffies_t age = now - used->confirmed_at;",
		instead: "	jiffies_t age = 0;",
		noticedBy: proof("policy", 20),
	},
	{
		bug: "a Service's port is translated, and the checksum is not",
		file: "bpf/translate.h",
		line: "	return port_sum ? bpf_l4_csum_replace(skb, check, 0, port_sum, zero_is_none) : 0;",
		instead: "	return 0;",
		noticedBy: proof("differential", 300),
	},
	{
		bug: "more than the ends of a Service's IPv6 flow is written",
		file: "bpf/encap6.h",
		line: "&out, OUTER_LEN + sizeof(out.head) + sizeof(out.ends), 0)",
		instead: "&out, sizeof(out), 0)",
		noticedBy: ["test/kernel/ipv6-local.test.js"],
	},
	{
		bug: "Geneve options that vary are taken for the flow's",
		file: "bpf/oncache.bpf.c",
		line: "	return found == STEADY ? LESSON_LEARNED : LESSON_UNFIT;",
		instead: "	return LESSON_LEARNED;",
		noticedBy: ["test/kernel/geneve.test.js"],
	},
	{
		bug: "the outer IPv6 traffic class stays as it was learned",
		file: "bpf/long.h",
		line: "		ip->first |= bpf_htonl((__u32)tos << TCLASS_SHIFT);\n",
		instead: "",
		noticedBy: proof("differential6", 400),
	},
	{
		bug: "a packet may use the key that its Service's flow has on the wire",
		file: "bpf/oncache.bpf.c",
		line: "	if (unlikely(found->flags & VERDICT_REVERSE))\n		return REASON_FLOW_MISS;\n",
		instead: "",
		noticedBy: ["test/kernel/services.test.js"],
	},
	{
		bug: "an IPv6 packet's hop limit stays as it is",
		file: "bpf/encap6.h",
		line: "	if (!(host->tunnel_flags & TUNNEL_BRIDGED))\n		pkt->head.hop_limit--;\n",
		instead: "",
		noticedBy: proof("fuzz", 100_000),
	},
	{
		bug: "congestion that a tunnel packet met is not told to an IPv6 pod",
		file: "bpf/encap6.h",
		line: "	if (outer == ECN_CE)",
		instead: "	if (0)",
		noticedBy: proof("fuzz", 100_000),
	},
	{
		bug: "an IPv6 length that lies is believed",
		file: "bpf/parse6.h",
		line: "	if (payload_len + sizeof(*ip) + offset != skb->len)\n		return REASON_TRUNCATED;\n",
		instead: "",
		noticedBy: proof("fuzz", 100_000),
	},
	{
		bug: "an IPv6 Service's address is translated, and the checksum is not",
		file: "bpf/translate6.h",
		line: "	if (translate_checksum(skb, offset + sizeof(struct ipv6hdr), proto, flow->address_sum, flow->port_sum))\n		return -1;\n",
		instead: "",
		noticedBy: proof("fuzz", 100_000),
	},
	{
		bug: "what reaches a pod has the TTL that it had on the wire, or at its neighbour",
		file: "bpf/encap.h",
		line: "	decrease_ttl(pkt);\n	return frame_write(",
		instead: "	return frame_write(",
		noticedBy: proof("fuzz", 100_000),
	},
	{
		bug: "the agent does not look when a neighbour has changed",
		file: "dist/src/agent/invalidation.js",
		line: 'has("neighbour")',
		instead: "false",
		noticedBy: proof("latency", 3),
	},
	{
		bug: "detach forgets the sysctl",
		file: "dist/src/agent/detach.js",
		line: "writeSysctl(TCP_BE_LIBERAL, saved);",
		instead: "",
		noticedBy: ["test/e2e/lifecycle.test.js", "--test-name-pattern=leaves nothing"],
	},
	{
		bug: "a neighbour on the same host borrows a flow between two others",
		file: "bpf/oncache.bpf.c",
		line: "	if (pod->veth != skb->ifindex)\n		return REASON_VETH;",
		instead: "",
		noticedBy: ["test/kernel/same-host.test.js"],
	},
	{
		bug: "a forged packet moves a flow from the tunnel into the host",
		file: "bpf/learn.h",
		line: "			return LESSON_CONFLICT;\n",
		instead: "			(void)question;\n",
		noticedBy: ["test/kernel/same-host.test.js"],
	},
	{
		bug: "a direction is confirmed because the other one was",
		file: "bpf/learn.h",
		line: "this->epoch != question->epoch && !is_entered_twice(this, other)",
		instead: "!is_entered_twice(this, other)",
		noticedBy: ["test/kernel/flow-based.test.js"],
	},
	{
		bug: "a direction is learned because the other one was some time ago",
		file: "bpf/learn.h",
		line: "question->now - other->confirmed_at <= settings.retry;",
		instead: "question->now - other->confirmed_at <= settings.max_staleness;",
		noticedBy: ["test/kernel/flow-based.test.js"],
	},
	{
		bug: "a Service's flow that ends stays at its other end",
		file: "bpf/maps.h",
		line: "	if (!is_entered_twice(&flow->egress, &flow->ingress)) {\n",
		instead: "	if (1) {\n",
		noticedBy: ["test/kernel/services.test.js"],
	},
	{
		bug: "the agent does not hear of rules",
		file: "dist/src/agent/invalidation.js",
		line: 'has("overrun", "ruleset", "conntrack")',
		instead: 'has("overrun")',
		noticedBy: ["test/e2e/coherency.test.js", "--test-name-pattern=a rule that forbids"],
	},
	{
		bug: "eviction of a pod forgets flows towards it",
		file: "dist/src/agent/flush.js",
		line: "keys.count > 0 ? datapath.evictFlows(keys) : 0",
		instead: "0",
		noticedBy: ["test/e2e/coherency.test.js", "--test-name-pattern=hands on the command"],
	},
	{
		bug: "an ended connection tracking entry leaves its flow",
		file: "bpf/forget.h",
		line: "	forget_flow(ctl, &event, 0);\n	forget_flow(ctl, &event, 1);",
		instead: "",
		noticedBy: ["test/kernel/forget.test.js"],
	},
	{
		bug: "a flow of somebody else's veth is used",
		file: "bpf/oncache.bpf.c",
		line: "	if (found->pod->veth != skb->ifindex)\n		return REASON_VETH;",
		instead: "",
		noticedBy: ["test/kernel/spoofing.test.js"],
	},
	{
		bug: "one direction alone is enough",
		file: "bpf/oncache.bpf.c",
		line: "	if (reverse->epoch != epoch)\n		return REASON_REVERSE;",
		instead: "",
		noticedBy: ["test/kernel/learning.test.js"],
	},
	{
		bug: "an agent that ends takes its programs along",
		file: "dist/src/agent/agent.js",
		line: "        datapath.close();",
		instead: "        detachAll(config.bpffs);\n        datapath.close();",
		noticedBy: ["test/e2e/agent.test.js", "--test-name-pattern=SIGTERM leaves"],
	},
	{
		bug: "an agent that cannot set the sysctl accelerates all the same",
		file: "dist/src/agent/reconciler.js",
		line: "blocked === undefined ? { ...desired, veths } : NOTHING",
		instead: "{ ...desired, veths }",
		noticedBy: ["test/e2e/lifecycle.test.js", "--test-name-pattern=sysctl"],
	},
	{
		bug: "a benchmark calls everything ONCache",
		file: "dist/src/bench/measure.js",
		line: "export const FAST_SHARE_MIN = 0.95;",
		instead: "export const FAST_SHARE_MIN = 0;",
		noticedBy: ["test/e2e/bench.test.js", "--test-name-pattern=refuses to call"],
	},
];

export const planted: Proof = {
	name: "planted",
	claim: "each promise, broken on purpose, is noticed",
	unit: "bugs",
	small: 2,
	full: PLANTS.length,
	run: provePlanted,
};

async function provePlanted({ seed, amount, signal, progress }: ProofOptions) {
	const failures: string[] = [];
	const figures: Record<string, string> = {};
	for (let n = 0; n < Math.min(amount, PLANTS.length); n++) {
		// Small runs begin where the cheap and telling ones are: ports, then fragments.
		const plant = PLANTS[(n + (amount < PLANTS.length ? 3 : 0)) % PLANTS.length] as Plant;
		progress(`${n + 1} of ${amount}: ${plant.bug}`);
		const isNoticed = await isBroken(plant, seed, signal);
		figures[plant.bug] = isNoticed ? `noticed by ${plant.noticedBy.slice(0, 2).join(" ")}` : "not noticed";
		if (!isNoticed) failures.push(`not noticed: ${plant.bug}`);
	}
	return { figures, failures };
}

async function isBroken(
	{ file, line, instead, noticedBy, bug }: Plant,
	seed: number,
	signal: AbortSignal,
): Promise<boolean> {
	const copy = mkdtempSync(join(tmpdir(), "oncache-planted-"));
	try {
		for (const folder of ["bpf", "dist", "bin", "package.json"])
			cpSync(join(ROOT, folder), join(copy, folder), { recursive: true });
		symlinkSync(join(ROOT, "node_modules"), join(copy, "node_modules"));
		const text = readFileSync(join(copy, file), "utf8");
		if (!text.includes(line))
			throw new Error(`Cannot plant "${bug}": "${file}" does not contain ${JSON.stringify(line)}`);
		writeFileSync(join(copy, file), text.replace(line, instead));
		if (file.startsWith("bpf/")) await run(["make", "-s", "-C", join(copy, "bpf")], { signal });
		const [script = "", ...rest] = noticedBy;
		const isTest = script.endsWith(".test.js");
		const argv = isTest
			? ["--test", ...rest, join(copy, "dist", script)]
			: [join(copy, "dist", script), ...rest, "--seed", String(seed)];
		// A test that runs in a test would report to it.
		const { code, stdout } = await run(["env", "-u", "NODE_TEST_CONTEXT", process.execPath, ...argv], {
			anyCode: true,
			signal,
		});
		return code === 1 && (isTest || stdout.includes("BROKEN"));
	} finally {
		rmSync(copy, { recursive: true, force: true });
	}
}
