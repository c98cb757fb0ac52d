// Ten times more flows than the filter cache has entries, visited one after the other: the worst order for an LRU. Every
// packet misses, is learned, and throws out what would have been needed next. What does that cost beside the plain overlay?
import type { ChildProcess } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { pairedRatio, type Ratio } from "../../src/bench/statistics.js";
import { commandAt, type Place } from "../../src/bench/workload.js";
import { openWorlds, type World, type Worlds } from "../../src/bench/worlds.js";
import { run } from "../../src/lab/command.js";
import type { LabHost } from "../../src/lab/topology.js";
import { background, end, statusOf } from "../e2e/world.js";
import type { Proof, ProofOptions, ProofResult } from "./proof.js";

const NAME = "p-over";
/** The least that the agent takes. */
const ENTRIES = 1024;
const PORTS = 32;
const SOCKETS = 320;
const FLOWS = PORTS * SOCKETS;
const FULL_ROUNDS = 9;
const LEAST_RATIO = 0.95;
/** A round of less is too noisy for a ratio; every flow is visited anyhow. */
const SECONDS = { short: 0.3, long: 1.5 };
/** Both ends on one: the rate is the work that the packets cost. */
const CPU = 1;

const REQUEST_BYTES = { "UDP requests": 64, "UDP throughput": 1400 } as const;
type Load = keyof typeof REQUEST_BYTES | "TCP throughput";
const LOADS: Load[] = ["UDP requests", "UDP throughput", "TCP throughput"];

interface Seen {
	/** Requests or bytes per second. */
	rate: number;
	lost: number;
}

export const overload: Proof = {
	name: "overload",
	claim: "ten times more flows than entries lose nothing, and cost hardly anything",
	unit: "rounds",
	small: 1,
	full: FULL_ROUNDS,
	run: async (options) => {
		const dir = mkdtempSync(join(tmpdir(), "oncache-overload-"));
		let worlds: Worlds | undefined;
		try {
			const agentConfig = join(dir, "config.yaml");
			writeFileSync(agentConfig, `cache:\n  filter: ${ENTRIES}\n`);
			worlds = await openWorlds({ name: NAME, worlds: ["overlay", "oncache"], agentConfig, ...options });
			return await rounds(worlds, options);
		} finally {
			await worlds?.close();
			rmSync(dir, { recursive: true });
		}
	},
};

async function rounds(worlds: Worlds, { amount, signal, progress }: ProofOptions): Promise<ProofResult> {
	const isFull = amount >= FULL_ROUNDS;
	const seconds = isFull ? SECONDS.long : SECONDS.short;
	const [host] = worlds.accelerated.hosts as [LabHost];
	const rates = { overlay: new Series(), oncache: new Series() };
	const failures: string[] = [];
	const evicted: Record<string, number> = {};
	const fast: Record<string, number> = {};
	let lost = 0;

	for (let round = 0; round < amount; round++)
		for (const load of LOADS) {
			const order = round % 2 === 0 ? (["overlay", "oncache"] as const) : (["oncache", "overlay"] as const);
			for (const name of order) {
				progress(`round ${round + 1} of ${amount}: ${load}, ${name}`);
				const before = await statusOf(host);
				const seen = await visit(worlds[name], load, seconds, signal);
				rates[name].add(load, seen.rate);
				lost += seen.lost;
				if (seen.lost > 0) failures.push(`${load}, ${name}: ${seen.lost} requests or answers lost`);
				if (name === "overlay") continue;
				const { lessons, packets, caches } = await statusOf(host);
				const learned = (lessons.ingress.learned ?? 0) - (before.lessons.ingress.learned ?? 0);
				evicted[load] = (evicted[load] ?? 0) + learned - caches.filter.entries;
				fast[load] = (fast[load] ?? 0) + packets.egress.fast - before.packets.egress.fast;
				if (caches.filter.entries > ENTRIES)
					failures.push(`${load}: ${caches.filter.entries} entries in a cache of ${ENTRIES}`);
			}
		}
	// A direction is learned once for as long as its flow stays in the cache.
	if (LOADS.every((load) => (evicted[load] ?? 0) <= 0))
		failures.push("Nothing was thrown out of the cache: it was not overloaded");
	const ratios = LOADS.map((load) => [load, pairedRatio(rates.oncache.of(load), rates.overlay.of(load))] as const);
	if (isFull)
		for (const [load, { median }] of ratios)
			if (median < LEAST_RATIO) failures.push(`${load}: ${median.toFixed(3)} of the plain overlay's rate`);
	return {
		figures: {
			"flows per entry": FLOWS / ENTRIES,
			...Object.fromEntries(ratios.map(([load, ratio]) => [`${load}: ONCache to overlay`, describe(ratio)])),
			...Object.fromEntries(LOADS.map((load) => [`${load}: thrown out, at least`, evicted[load] ?? 0])),
			...Object.fromEntries(LOADS.map((load) => [`${load}: packets on the fast path`, fast[load] ?? 0])),
			lost: lost,
		},
		failures,
	};
}

function describe({ median, low, high, confidence }: Ratio): string {
	return `${median.toFixed(3)} (${(100 * confidence).toFixed(0)} %: ${low.toFixed(3)} to ${high.toFixed(3)})`;
}

class Series {
	readonly #values = new Map<Load, number[]>();

	add(load: Load, value: number): void {
		this.#values.set(load, [...this.of(load), value]);
	}

	of(load: Load): number[] {
		return this.#values.get(load) ?? [];
	}
}

async function visit(world: World, load: Load, seconds: number, signal: AbortSignal): Promise<Seen> {
	return load === "TCP throughput"
		? transfers(world, seconds, signal)
		: datagrams(world, REQUEST_BYTES[load], seconds, signal);
}

const programOf = (name: string): string[] => [process.execPath, fileURLToPath(new URL(name, import.meta.url))];

async function datagrams(
	{ client, server }: World,
	bytes: number,
	seconds: number,
	signal: AbortSignal,
): Promise<Seen> {
	const program = programOf("./datagrams.js");
	const answering = await serve(server, [...program, "answer", server.ip, String(PORTS)]);
	try {
		const numbers = [PORTS, SOCKETS, bytes, seconds].map(String);
		const argv = commandAt(client, CPU, seconds, [...program, "ask", client.ip, server.ip, ...numbers]);
		const result = JSON.parse((await run(argv, { signal })).stdout) as Record<"asked" | "answered" | "seconds", number>;
		return { rate: result.answered / result.seconds, lost: result.asked - result.answered };
	} finally {
		await end(answering);
	}
}

let nextPort = 10_000;

async function transfers({ client, server }: World, seconds: number, signal: AbortSignal): Promise<Seen> {
	const program = programOf("./transfers.js");
	const port = String(nextPort++);
	const serving = await serve(server, [...program, "serve", server.ip, port]);
	try {
		const argv = [...program, "send", server.ip, port, String(FLOWS), String(seconds)];
		const { stdout } = await run(commandAt(client, CPU, seconds, argv), { signal });
		const result = JSON.parse(stdout) as Record<"bytes" | "seconds", number>;
		return { rate: result.bytes / result.seconds, lost: 0 };
	} finally {
		await end(serving);
	}
}

/** Nobody's server outlives a proof that was killed by more than this. */
const SERVER_BOUND_S = 60;

function serve(place: Place, argv: string[]): Promise<ChildProcess> {
	const bounded = ["timeout", "--foreground", String(SERVER_BOUND_S), "taskset", "-c", String(CPU)];
	return background(place, [...bounded, ...argv], /listening/);
}
