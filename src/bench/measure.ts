// One scenario: all its worlds in every round, in rotating order, so that what drifts hits all alike.
import type { Counts } from "../agent/api.js";
import { removeServices } from "../lab/services.js";
import { openService, reach } from "./destination.js";
import { BenchError } from "./error.js";
import { type BpfPass, countPackets, countsBetween, fastShare, measureBpf, sumCounts, sumPasses } from "./fastpath.js";
import type { Scenario } from "./scenario.js";
import { pairedRatio, type Ratio, type Summary, summarise } from "./statistics.js";
import { openUntracked, UNTRACKED_PORTS } from "./untracked.js";
import type { Measurement, Unit } from "./workload.js";
import type { World, WorldName, Worlds } from "./worlds.js";

export interface MeasureOptions {
	rounds: number;
	seconds: number;
	flows: number;
	cpus: { one: number; two: [client: number, server: number] };
	signal: AbortSignal;
	progress: (text: string) => void;
}

export interface WorldResult {
	/** In the scenario's unit, one per round. */
	values: number[];
	summary: Summary;
	/** null: not measured, or the world itself. */
	toOverlay: Ratio | null;
	toHost: Ratio | null;
	toDirect: Ratio | null;
	toBaseline: Ratio | null;
	/** Fast path and fallback by reason, per round; null where no agent runs. */
	packets: Counts[] | null;
	/** Over all rounds. */
	fastShare: number | null;
}

export interface ScenarioResult {
	name: string;
	title: string;
	unit: Unit;
	worlds: Partial<Record<WorldName, WorldResult>>;
	/** False: too many packets of a run took the fallback, so these are not ONCache's numbers. */
	isOncache: boolean;
	/** From passes of its own, in which the kernel counts; null where ONCache is not measured. */
	bpf: BpfPass | null;
	/** Such passes of both builds, one of each per round; null without a baseline. */
	bpfToBaseline: BpfComparison | null;
}

export interface BpfComparison {
	oncache: BpfPass[];
	baseline: BpfPass[];
	/** Of ns per packet. */
	ratio: Ratio;
}

/** Below it a run is not called ONCache. */
export const FAST_SHARE_MIN = 0.95;

export async function measureScenario(
	scenario: Scenario,
	worlds: Worlds,
	options: MeasureOptions,
): Promise<ScenarioResult> {
	const hosts = [...worlds.overlay.hosts, ...worlds.oncache.hosts];
	const netns = hosts.map((host) => host.netns);
	const untracked = scenario.untracked ? await openUntracked(netns, options.signal) : undefined;
	const isService = scenario.destination === "service";
	// A Service has one port; otherwise every run has another one, so that no state of an earlier run is met again.
	const service = isService ? nextPort(false) : undefined;
	const portOf = (): number => service ?? nextPort(scenario.untracked);
	try {
		if (service !== undefined) for (const world of [worlds.overlay, worlds.oncache]) await openService(world, service);
		const runs = await interleave(scenario, worlds, options, portOf);
		return summariseRuns(scenario, runs, await countBpf(scenario, worlds, options, portOf));
	} finally {
		await untracked?.close();
		if (isService) for (const host of hosts) await removeServices(host);
	}
}

/** With a baseline as often as there are rounds, in turn: single figures differ by more than the builds do. */
async function countBpf(
	scenario: Scenario,
	worlds: Worlds,
	options: MeasureOptions,
	portOf: () => number,
): Promise<Passes> {
	const counted = scenario.worlds.filter((name) => name === "oncache" || name === "baseline");
	const rounds = counted.includes("baseline") ? options.rounds : 1;
	const passes: Passes = {};
	for (let round = 0; round < rounds; round++)
		for (const name of rotated(counted, round)) {
			options.progress(`${scenario.title}: counting what the programs take, ${TITLES[name]}`);
			const world = worldOf(worlds, name);
			const pass = await measureBpf(world.agents, () => measureOnce(scenario, world, options, portOf()));
			passes[name] = [...(passes[name] ?? []), pass];
		}
	return passes;
}

function worldOf(worlds: Worlds, name: WorldName): World {
	const world = worlds[name];
	if (world === undefined) throw new BenchError(`Cannot measure the world "${name}": it is not up`);
	return world;
}

export interface WorldRun extends Measurement {
	packets: Counts | null;
}
export type Runs = Partial<Record<WorldName, WorldRun[]>>;
export type Passes = Partial<Record<WorldName, BpfPass[]>>;

async function interleave(
	scenario: Scenario,
	worlds: Worlds,
	options: MeasureOptions,
	portOf: () => number,
): Promise<Runs> {
	const runs: Runs = {};
	for (let round = 0; round < options.rounds; round++)
		for (const name of rotated(scenario.worlds, round)) {
			options.progress(`${scenario.title}: round ${round + 1} of ${options.rounds}, ${TITLES[name]}`);
			const run = await measureWithPackets(scenario, worldOf(worlds, name), options, portOf());
			runs[name] = [...(runs[name] ?? []), run];
		}
	return runs;
}

export const TITLES: Record<WorldName, string> = {
	host: "host network",
	overlay: "overlay",
	oncache: "ONCache",
	direct: "ONCache, pod's address",
	baseline: "ONCache, other build",
};

export function rotated<Item>(items: readonly Item[], by: number): Item[] {
	const at = by % items.length;
	return [...items.slice(at), ...items.slice(0, at)];
}

async function measureWithPackets(
	scenario: Scenario,
	world: World,
	options: MeasureOptions,
	port: number,
): Promise<WorldRun> {
	if (world.agents.length === 0) return { ...(await measureOnce(scenario, world, options, port)), packets: null };
	const before = await countPackets(world.agents);
	const measurement = await measureOnce(scenario, world, options, port);
	return { ...measurement, packets: countsBetween(before, await countPackets(world.agents)) };
}

function measureOnce(scenario: Scenario, world: World, options: MeasureOptions, port: number): Promise<Measurement> {
	const { one, two } = options.cpus;
	const cpus = scenario.cpus === "one" ? { client: one, server: one } : { client: two[0], server: two[1] };
	return scenario.workload({ ...options, ...reach(scenario.destination, world, scenario.family), cpus, port });
}

const TRACKED_PORTS = { first: 20000, last: 29999 };
let used = 0;

function nextPort(untracked: boolean): number {
	const { first, last } = untracked ? UNTRACKED_PORTS : TRACKED_PORTS;
	return first + (used++ % (last - first + 1));
}

export function summariseRuns(scenario: Scenario, runs: Runs, passes: Passes): ScenarioResult {
	const values = (name: WorldName): number[] | undefined => runs[name]?.map(({ value }) => value);
	const worlds = Object.fromEntries(
		scenario.worlds.map((name) => {
			const own = values(name) ?? [];
			const to = (base: WorldName): Ratio | null => {
				const others = base === name ? undefined : values(base);
				return others === undefined ? null : pairedRatio(own, others);
			};
			const packets = runs[name]?.flatMap((run) => run.packets ?? []) ?? [];
			const hasPackets = packets.length > 0;
			const result: WorldResult = {
				values: own,
				summary: summarise(own),
				toOverlay: to("overlay"),
				toHost: to("host"),
				toDirect: to("direct"),
				toBaseline: to("baseline"),
				packets: hasPackets ? packets : null,
				fastShare: hasPackets ? fastShare(sumCounts(packets)) : null,
			};
			return [name, result];
		}),
	) as ScenarioResult["worlds"];
	const bpf = passes.oncache === undefined ? null : sumPasses(passes.oncache);
	return {
		name: scenario.name,
		title: scenario.title,
		unit: Object.values(runs)[0]?.[0]?.unit as Unit,
		worlds,
		isOncache: scenario.fastPath === "reported" || sharesOf({ worlds, bpf }).every((share) => share >= FAST_SHARE_MIN),
		bpf,
		bpfToBaseline: comparePasses(passes),
	};
}

function comparePasses({ oncache, baseline }: Passes): BpfComparison | null {
	if (oncache === undefined || baseline === undefined) return null;
	const ns = (passes: readonly BpfPass[]): number[] => passes.map(({ nsPerPacket }) => nsPerPacket);
	return { oncache, baseline, ratio: pairedRatio(ns(oncache), ns(baseline)) };
}

/**
 * On the fast path, of ONCache's rounds and of the pass that counts BPF time: each for itself, a good one does not
 * excuse a bad one. NaN where no packet was counted, which is no proof.
 */
export function sharesOf({ worlds, bpf }: Pick<ScenarioResult, "worlds" | "bpf">): number[] {
	if (worlds.oncache === undefined) return [];
	const rounds = worlds.oncache.packets ?? [];
	const runs = bpf === null ? rounds : [...rounds, bpf.packets];
	return runs.length > 0 ? runs.map(fastShare) : [Number.NaN];
}
