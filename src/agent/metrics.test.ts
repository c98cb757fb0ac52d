// Metrics from a status that is a double, as Prometheus reads them.
import assert from "node:assert/strict";
import { test } from "node:test";
import type { Status } from "./api.js";
import { type Measured, Metrics } from "./metrics.js";

const status = (fast: number): Status => ({
	state: "accelerating",
	why: [],
	version: "1.2.3",
	kernel: "6.18.0",
	agent: { running: true, pid: 1, startedAt: "2026-11-25T00:00:00Z" },
	attach: "tcx",
	markMode: "metadata",
	learning: true,
	using: true,
	maxStalenessMs: 2000,
	tunnels: [{ name: "flannel.1", kind: "vxlan", vni: 1, port: 8472, uplink: "eth0", accelerated: true, why: null }],
	pods: [
		{
			veth: "veth1",
			ip: "10.0.0.2",
			addresses: ["10.0.0.2"],
			pod: { namespace: "a", name: "b" },
			attached: true,
			why: null,
		},
		{ veth: "veth2", ip: null, addresses: [], pod: null, attached: false, why: "The device is down" },
	],
	caches: {
		filter: { entries: 5, capacity: 1024 },
		egress: { entries: 1, capacity: 64 },
		ingress: { entries: 1, capacity: 64 },
	},
	packets: { egress: { fast, fallback: { flow_miss: 2, sample: 3 } }, ingress: { fast: 7, fallback: {} } },
	bytes: { egress: { fast: 100 * fast, fallback: { flow_miss: 200 } }, ingress: { fast: 700, fallback: {} } },
	coherency: {
		rounds: 9,
		evicted: 4,
		flushes: 3,
		forgotten: 2,
		repaired: 1,
		overruns: 0,
		leases: 0,
		verified: { runs: 8, differences: 7 },
	},
	cni: { attachments: 2, adds: 5, dels: 3, checks: 0, gcs: 1, notAttached: 1, failed: 0, missed: 4, lastMissed: "x" },
	network: { name: "Flannel", evidence: [], plan: "", refused: false },
	kubernetes: {
		server: "https://api",
		node: "n1",
		pods: "cluster",
		synced: false,
		ageMs: null,
		problems: [],
		optedOut: 6,
		sources: [
			{ name: "pods", objects: 10, synced: true, ageMs: 1500, lists: 1, watches: 2, problem: null },
			{ name: "nodes", objects: 0, synced: false, ageMs: null, lists: 0, watches: 0, problem: "no" },
		],
	},
	lessons: { egress: { learned: 8 }, ingress: {} },
});

const measured = (fast: number): Measured => ({
	status: status(fast),
	attachments: [
		{ ifindex: 1, direction: "ingress", program: "egress", kind: "tcx", gone: false },
		{ ifindex: 2, direction: "ingress", program: "egress", kind: "tcx", gone: false },
	],
	mapMemory: { filter_cache: 4096 },
	kubernetes: { policies: 1, gone: 2, nodes: 0, optedOut: 6 },
});

test("what the kernel has counted is set, not added", async () => {
	const metrics = new Metrics();
	await metrics.render(measured(10));
	const text = await metrics.render(measured(25));
	const lines = text.split("\n");
	for (const line of [
		'oncache_packets_total{path="fast",direction="egress"} 25',
		'oncache_packets_total{path="fallback",direction="egress"} 5',
		'oncache_bytes_total{path="fast",direction="egress"} 2500',
		'oncache_fallback_packets_total{reason="sample",direction="egress"} 3',
		'oncache_lessons_total{lesson="learned",direction="egress"} 8',
		'oncache_cache_entries{cache="filter"} 5',
		'oncache_cache_capacity{cache="filter"} 1024',
		'oncache_map_memory_bytes{map="filter_cache"} 4096',
		'oncache_attached_programs{hook="egress",attach="tcx"} 2',
		"oncache_managed_pods 1",
		'oncache_pod_accelerated{namespace="a",pod="b",veth="veth1"} 1',
		'oncache_tunnel_accelerated{device="flannel.1",kind="vxlan"} 1',
		'oncache_invalidations_total{cause="networkpolicy"} 1',
		'oncache_invalidations_total{cause="conntrack"} 2',
		'oncache_state{state="accelerating"} 1',
		'oncache_state{state="off"} 0',
		'oncache_build_info{version="1.2.3",kernel="6.18.0"} 1',
		'oncache_kubernetes_age_seconds{source="pods"} 1.5',
		'oncache_kubernetes_age_seconds{source="nodes"} +Inf',
		'oncache_kubernetes_problem{source="nodes"} 1',
		"oncache_opted_out_addresses 6",
		'oncache_cni_calls_total{command="ADD"} 5',
		"oncache_cni_missed_total 4",
	])
		assert.ok(lines.includes(line), `"${line}" is among\n${lines.filter((each) => /^oncache/.test(each)).join("\n")}`);
	assert.match(text, /^process_resident_memory_bytes \d/m);
});

test("what is gone is not told any more", async () => {
	const metrics = new Metrics();
	await metrics.render(measured(1));
	const later = measured(1);
	later.status.pods = [];
	later.status.kubernetes = null;
	const text = await metrics.render(later);
	assert.doesNotMatch(text, /^oncache_pod_accelerated\{|^oncache_kubernetes_age_seconds\{/m);
});
