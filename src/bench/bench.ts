// A measurement from beginning to end: worlds, scenarios, interleaved rounds, and what comes out.
import { UnsupportedLabError } from "../lab/error.js";
import { BenchError } from "./error.js";
import { type GrowthPoint, measureGrowth } from "./growth.js";
import { type AgentCost, measureIdle } from "./idle.js";
import { openLock } from "./lock.js";
import { chooseCpus, describeMachine, type Machine } from "./machine.js";
import { measureScenario, type ScenarioResult } from "./measure.js";
import { ping } from "./ping.js";
import { AGENT_SCENARIO, GROWTH_SCENARIO, SCENARIOS, type Scenario } from "./scenario.js";
import { type LabName, openWorlds, type WORLD_NAMES, type World, type WorldName, type Worlds } from "./worlds.js";

export interface BenchOptions {
	/** The labs are called after it. */
	name: string;
	/** Of SCENARIO_NAMES. */
	scenarios: readonly string[];
	worlds: readonly WorldName[];
	rounds: number;
	/** Per measurement. */
	seconds: number;
	/** Parallel flows of the streams. */
	flows: number;
	/** A configuration file for the agents. */
	agentConfig?: string | undefined;
	/** Directory of another build, which is measured beside this one where the lab is the usual one. */
	baseline?: string | undefined;
}

export interface BenchHooks {
	signal: AbortSignal;
	/** What is going on, for one line. */
	progress: (text: string) => void;
	onPing?: (meanMs: PingTimes) => void;
	onScenario?: (result: ScenarioResult) => void;
	onSkipped?: (skipped: Skipped) => void;
	/** Everything in these worlds is measured, and they are still up. */
	beforeClose?: (result: BenchResult, worlds: Worlds) => Promise<void>;
}

/** Mean of a few, ms. */
export type PingTimes = Record<(typeof WORLD_NAMES)[number], number>;

/** The raw data: every value of every round. */
export interface BenchResult {
	startedAt: string;
	options: BenchOptions;
	machine: Machine;
	cpus: { one: number; two: [client: number, server: number] };
	/** null where the usual lab was not needed. */
	pingMs: PingTimes | null;
	scenarios: ScenarioResult[];
	skipped: Skipped[];
	agents: AgentCost[] | null;
	growth: GrowthPoint[] | null;
}

export interface Skipped {
	/** Of scenarios. */
	names: string[];
	/** What this kernel lacks. */
	why: string;
}

const IDLE_SECONDS = 10;
const USUAL: LabName = "flannel";

/** Leaves nothing behind, whatever happens. */
export async function runBench(options: BenchOptions, hooks: BenchHooks): Promise<BenchResult> {
	const { signal, progress } = hooks;
	const startedAt = new Date().toISOString();
	if (process.getuid?.() !== 0)
		throw new BenchError("Cannot measure: network namespaces and eBPF programs need root; run it as root");
	const chosen = chosenScenarios(options);
	const hasAgents = options.worlds.includes("oncache") && options.scenarios.includes(AGENT_SCENARIO);
	const hasGrowth = options.scenarios.includes(GROWTH_SCENARIO);
	if (chosen.length === 0 && !hasAgents && !hasGrowth)
		throw new BenchError(
			`Nothing to measure: none of the scenarios ${options.scenarios.join(", ")} is about ${options.worlds.join(", ")}`,
		);
	const lock = openLock();
	try {
		const machine = await describeMachine(signal);
		const result: BenchResult = {
			...{ startedAt, options, machine, cpus: chooseCpus(), pingMs: null },
			...{ scenarios: [], skipped: [], agents: null, growth: null },
		};
		const steps = withShare(progress, runsOf(chosen, options.rounds));
		for (const [lab, scenarios] of byLab(chosen, hasAgents)) {
			const own = { ...options, lab, baseline: lab === USUAL ? options.baseline : undefined };
			const worlds = await openWorlds({ ...own, signal, progress }).catch((error) => {
				if (!(error instanceof UnsupportedLabError)) throw error;
				const skipped = { names: scenarios.map(({ name }) => name), why: error.message };
				result.skipped.push(skipped);
				hooks.onSkipped?.(skipped);
			});
			if (worlds === undefined) continue;
			try {
				if (lab === USUAL) {
					result.pingMs = await pingAll(worlds, signal);
					hooks.onPing?.(result.pingMs);
				}
				const measure = { ...options, cpus: result.cpus, signal, progress: steps };
				for (const scenario of scenarios) {
					const measured = await measureScenario(scenario, worlds, measure);
					result.scenarios.push(measured);
					hooks.onScenario?.(measured);
				}
				if (lab === USUAL && hasAgents) result.agents = await idle(worlds, hooks);
				await hooks.beforeClose?.(result, worlds);
			} finally {
				progress("removing the labs");
				await worlds.close();
			}
		}
		if (hasGrowth) result.growth = growthOf(options, hooks);
		return result;
	} catch (error) {
		// Whatever failed because it was interrupted.
		signal.throwIfAborted();
		throw error;
	} finally {
		lock.close();
	}
}

/** Without the worlds that are not wanted, and those that have none left; with the other build, if there is one. */
function chosenScenarios({ scenarios, worlds, baseline }: BenchOptions): Scenario[] {
	const worldsOf = (scenario: Scenario): WorldName[] => [
		...scenario.worlds.filter((name) => worlds.includes(name === "direct" ? "oncache" : name)),
		...(baseline !== undefined && hasBaseline(scenario) ? (["baseline"] as const) : []),
	];
	return SCENARIOS.filter(({ name }) => scenarios.includes(name))
		.map((scenario) => ({ ...scenario, worlds: worldsOf(scenario) }))
		.filter((scenario) => scenario.worlds.length > 0);
}

/** An earlier build may know one kind of traffic only. */
function hasBaseline({ lab, destination, untracked }: Scenario): boolean {
	return lab === USUAL && destination === "pod" && !untracked;
}

/** In the order of the scenarios; the agents are looked at in the usual one. */
function byLab(scenarios: readonly Scenario[], hasAgents: boolean): Map<LabName, Scenario[]> {
	const labs = new Map<LabName, Scenario[]>(hasAgents ? [[USUAL, []]] : []);
	for (const scenario of scenarios) labs.set(scenario.lab, [...(labs.get(scenario.lab) ?? []), scenario]);
	return labs;
}

/** Each scenario counts BPF time in one more run, or in one per round and build. */
function runsOf(scenarios: readonly Scenario[], rounds: number): number {
	const counting = ({ worlds }: Scenario): number => (worlds.includes("baseline") ? 2 * rounds : 1);
	return scenarios.reduce((sum, scenario) => sum + scenario.worlds.length * rounds + counting(scenario), 0);
}

/** Says before each step how much is done. */
function withShare(progress: BenchHooks["progress"], steps: number): BenchHooks["progress"] {
	let done = 0;
	return (text) => progress(`[${Math.floor((100 * done++) / steps)} %] ${text}`);
}

async function pingAll(worlds: Worlds, signal: AbortSignal): Promise<PingTimes> {
	const one = ({ client, server }: World): Promise<number> => ping(client, server, signal);
	return { host: await one(worlds.host), overlay: await one(worlds.overlay), oncache: await one(worlds.oncache) };
}

function idle(worlds: Worlds, { signal, progress }: BenchHooks): Promise<AgentCost[]> {
	progress(`agents without traffic: ${IDLE_SECONDS} s`);
	return measureIdle(worlds.oncache.agents, IDLE_SECONDS, signal);
}

function growthOf({ name }: BenchOptions, { progress }: BenchHooks): GrowthPoint[] {
	progress("one to a million cached flows");
	return measureGrowth(`/sys/fs/bpf/oncache-${name}-flows`);
}
