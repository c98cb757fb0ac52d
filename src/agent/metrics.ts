// What Prometheus reads (https://prometheus.io/docs/practices/naming/). The kernel's counters are absolute: set, never added to.
import { Counter, collectDefaultMetrics, Gauge, Registry } from "prom-client";
import type { Attached } from "../datapath/attach.js";
import type { Status } from "./api.js";
import type { KubernetesCounts } from "./kubernetes.js";

/** What is read when somebody asks. */
export interface Measured {
	status: Status;
	attachments: readonly Attached[];
	/** Bytes of kernel memory, by map. */
	mapMemory: Readonly<Record<string, number>>;
	/** What the API server made happen; undefined: not in a cluster. */
	kubernetes: KubernetesCounts | undefined;
}

/** Timers of Node's own metrics fire so often, ms: an agent without work sleeps. */
const LOOP_RESOLUTION_MS = 1000;
const DIRECTIONS = ["egress", "ingress"] as const;

type Labels = Record<string, string>;
type Sample = [value: number, labels?: Labels];

export class Metrics {
	readonly contentType: string;
	readonly #registry = new Registry();
	readonly #gauges = new Map<string, Gauge<string>>();
	readonly #counters = new Map<string, Counter<string>>();

	constructor() {
		this.contentType = this.#registry.contentType;
		collectDefaultMetrics({ register: this.#registry, eventLoopMonitoringPrecision: LOOP_RESOLUTION_MS });
	}

	/** In the text format. */
	async render({ status, attachments, mapMemory, kubernetes }: Measured): Promise<string> {
		const { packets, bytes, lessons, caches, coherency } = status;
		const both = <T>(read: (direction: (typeof DIRECTIONS)[number]) => T[]): T[] => DIRECTIONS.flatMap(read);
		this.#gauge("build_info", "Versions, as labels", [[1, { version: status.version, kernel: status.kernel }]]);
		this.#gauge("state", "1 for the state that the agent is in", [
			...(["accelerating", "degraded", "off"] as const).map(
				(state): Sample => [Number(status.state === state), { state }],
			),
		]);
		this.#gauge("learning", "1: flows are learned; 0: paused", [[Number(status.learning)]]);
		this.#gauge("using", "1: the cache is used; 0: paused", [[Number(status.using)]]);
		const paths = (counts: Status["packets"]): Sample[] =>
			both((direction) => [
				[counts[direction].fast, { path: "fast", direction }],
				[sum(counts[direction].fallback), { path: "fallback", direction }],
			]);
		this.#counter("packets_total", "Packets of pods, as the stack hands them over, by path", paths(packets));
		this.#counter("bytes_total", "Bytes of their inner Ethernet frames, by path", paths(bytes));
		this.#counter(
			"fallback_packets_total",
			"Packets that took the overlay, by reason",
			both((direction) =>
				Object.entries(packets[direction].fallback).map(([reason, count]): Sample => [count, { reason, direction }]),
			),
		);
		this.#counter(
			"lessons_total",
			"Packets that the overlay was asked about, by what was learned from them",
			both((direction) =>
				Object.entries(lessons[direction]).map(([lesson, count]): Sample => [count, { lesson, direction }]),
			),
		);
		const cacheSamples = (read: (use: Status["caches"]["filter"]) => number): Sample[] =>
			Object.entries(caches).map(([cache, use]) => [read(use), { cache }]);
		this.#gauge(
			"cache_entries",
			"Entries in use",
			cacheSamples(({ entries }) => entries),
		);
		this.#gauge(
			"cache_capacity",
			"Entries that there is room for",
			cacheSamples(({ capacity }) => capacity),
		);
		this.#gauge(
			"map_memory_bytes",
			"Kernel memory of the eBPF maps",
			Object.entries(mapMemory).map(([map, size]) => [size, { map }]),
		);
		this.#gauge("attached_programs", "Programs on devices", countBy(attachments));
		this.#gauge("managed_pods", "Pods of this node whose veths are accelerated", [
			[status.pods.filter(({ attached }) => attached).length],
		]);
		this.#gauge(
			"pod_accelerated",
			"1 for each pod of this node whose veth is accelerated; pods that the API server has not named are left out",
			status.pods.flatMap(({ veth, pod, attached }): Sample[] =>
				pod ? [[Number(attached), { namespace: pod.namespace, pod: pod.name, veth }]] : [],
			),
		);
		this.#gauge(
			"tunnel_accelerated",
			"1 for each tunnel device that is accelerated",
			status.tunnels.map(({ name, kind, accelerated }) => [Number(accelerated), { device: name, kind }]),
		);
		this.#counter("invalidations_total", "Evictions, by cause", [
			...(coherency
				? ([
						[coherency.evicted, { cause: "kernel" }],
						[coherency.flushes, { cause: "ruleset" }],
						[coherency.forgotten, { cause: "conntrack" }],
					] satisfies Sample[])
				: []),
			...(kubernetes
				? ([
						[kubernetes.policies, { cause: "networkpolicy" }],
						[kubernetes.gone, { cause: "pod" }],
						[kubernetes.nodes, { cause: "node" }],
						[kubernetes.optedOut, { cause: "opt_out" }],
					] satisfies Sample[])
				: []),
		]);
		this.#counter("looks_total", "Times that devices or caches were compared with the kernel", [
			[coherency?.rounds ?? 0],
		]);
		this.#counter("repairs_total", "Programs and pins that somebody else had removed", [[coherency?.repaired ?? 0]]);
		this.#counter("overruns_total", "Times that the kernel dropped notifications", [[coherency?.overruns ?? 0]]);
		this.#counter("verify_differences_total", "What comparing everything cached with the kernel has found", [
			[coherency?.verified?.differences ?? 0],
		]);
		this.#gauge("leases", "Users that hold learning paused", [[coherency?.leases ?? 0]]);
		this.#cni(status.cni);
		this.#kubernetes(status.kubernetes);
		return this.#registry.metrics();
	}

	#cni(cni: Status["cni"]): void {
		if (cni === null) return;
		const { adds, checks, dels, gcs } = cni;
		const commands = Object.entries({ ADD: adds, CHECK: checks, DEL: dels, GC: gcs });
		this.#counter(
			"cni_calls_total",
			"Calls of the CNI plugin that the agent has heard",
			commands.map(([command, count]) => [count, { command }]),
		);
		this.#counter("cni_not_attached_total", "ADD and CHECK of pods that are not accelerated", [[cni.notAttached]]);
		this.#counter("cni_failed_total", "Calls of the CNI plugin that the agent failed at", [[cni.failed]]);
		this.#counter("cni_missed_total", "Calls of the CNI plugin that no agent heard, since boot", [[cni.missed]]);
		this.#gauge("cni_attachments", "Pods that the CNI plugin has announced and not withdrawn", [[cni.attachments]]);
	}

	#kubernetes(kubernetes: Status["kubernetes"]): void {
		const sources = kubernetes?.sources ?? [];
		const samples = (read: (source: (typeof sources)[number]) => number | null): Sample[] =>
			sources.flatMap((source): Sample[] => {
				const value = read(source);
				return value === null ? [] : [[value, { source: source.name }]];
			});
		this.#gauge(
			"kubernetes_age_seconds",
			"Since the API server was last heard of this; +Inf: never",
			samples(({ ageMs }) => (ageMs === null ? Number.POSITIVE_INFINITY : ageMs / 1000)),
		);
		this.#gauge(
			"kubernetes_synced",
			"1: read completely once",
			samples(({ synced }) => Number(synced)),
		);
		this.#gauge(
			"kubernetes_objects",
			"Objects that are known",
			samples(({ objects }) => objects),
		);
		this.#gauge(
			"kubernetes_problem",
			"1: it cannot be read now",
			samples(({ problem }) => Number(problem !== null)),
		);
		this.#counter(
			"kubernetes_lists_total",
			"Complete readings",
			samples(({ lists }) => lists),
		);
		this.#counter(
			"kubernetes_watches_total",
			"Times that watching began",
			samples(({ watches }) => watches),
		);
		this.#gauge(
			"opted_out_addresses",
			"Addresses of pods that are left to the overlay",
			kubernetes ? [[kubernetes.optedOut]] : [],
		);
	}

	#gauge(name: string, help: string, samples: readonly Sample[]): void {
		const gauge = this.#gauges.get(name) ?? new Gauge(this.#options(name, help, samples));
		this.#gauges.set(name, gauge);
		gauge.reset();
		for (const [value, labels = {}] of samples) gauge.set(labels, value);
	}

	#counter(name: string, help: string, samples: readonly Sample[]): void {
		const counter = this.#counters.get(name) ?? new Counter(this.#options(name, help, samples));
		this.#counters.set(name, counter);
		counter.reset();
		for (const [value, labels = {}] of samples) counter.inc(labels, value);
	}

	#options(name: string, help: string, samples: readonly Sample[]) {
		const labelNames = LABELS[name] ?? Object.keys(samples[0]?.[1] ?? {});
		return { name: `oncache_${name}`, help, labelNames, registers: [this.#registry] };
	}
}

/** Of metrics that may begin without a sample. */
const LABELS: Record<string, string[]> = {
	fallback_packets_total: ["reason", "direction"],
	lessons_total: ["lesson", "direction"],
	map_memory_bytes: ["map"],
	attached_programs: ["hook", "attach"],
	pod_accelerated: ["namespace", "pod", "veth"],
	tunnel_accelerated: ["device", "kind"],
	invalidations_total: ["cause"],
	kubernetes_age_seconds: ["source"],
	kubernetes_synced: ["source"],
	kubernetes_objects: ["source"],
	kubernetes_problem: ["source"],
	kubernetes_lists_total: ["source"],
	kubernetes_watches_total: ["source"],
};

function countBy(attachments: readonly Attached[]): Sample[] {
	const counts = new Map<string, number>();
	for (const { program, kind } of attachments) {
		const key = `${program ?? "unknown"} ${kind}`;
		counts.set(key, (counts.get(key) ?? 0) + 1);
	}
	return [...counts].map(([key, count]) => {
		const [hook = "", attach = ""] = key.split(" ");
		return [count, { hook, attach }];
	});
}

function sum(counts: Readonly<Record<string, number>>): number {
	return Object.values(counts).reduce((total, count) => total + count, 0);
}
