// A measurement from beginning to end: worlds, scenarios, interleaved rounds, and what comes out.
import { BenchError } from "./error.js";
import { type GrowthPoint, measureGrowth } from "./growth.js";
import { type AgentCost, measureIdle } from "./idle.js";
import { openLock } from "./lock.js";
import { chooseCpus, describeMachine, type Machine } from "./machine.js";
import { measureScenario, type ScenarioResult } from "./measure.js";
import { ping } from "./ping.js";
import { AGENT_SCENARIO, GROWTH_SCENARIO, SCENARIOS, type Scenario } from "./scenario.js";
import { openWorlds, type WORLD_NAMES, type WorldName, type Worlds } from "./worlds.js";

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
}

export interface BenchHooks {
	signal: AbortSignal;
	/** What is going on, for one line. */
	progress: (text: string) => void;
	onPing?: (meanMs: PingTimes) => void;
	onScenario?: (result: ScenarioResult) => void;
	/** Everything is measured and still up. */
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
	pingMs: PingTimes;
	scenarios: ScenarioResult[];
	agents: AgentCost[] | null;
	growth: GrowthPoint[] | null;
}

const IDLE_SECONDS = 10;

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
		const worlds = await openWorlds({ ...options, signal, progress });
		try {
			const cpus = chooseCpus();
			const pingMs = await pingAll(worlds, signal);
			hooks.onPing?.(pingMs);
			const measure = { ...options, cpus, signal, progress: withShare(progress, runsOf(chosen, options.rounds)) };
			const scenarios: ScenarioResult[] = [];
			for (const scenario of chosen) {
				const result = await measureScenario(scenario, worlds, measure);
				scenarios.push(result);
				hooks.onScenario?.(result);
			}
			const agents = hasAgents ? await idle(worlds, hooks) : null;
			const growth = hasGrowth ? growthOf(options, hooks) : null;
			const result = { startedAt, options, machine, cpus, pingMs, scenarios, agents, growth };
			await hooks.beforeClose?.(result, worlds);
			return result;
		} finally {
			progress("removing the labs");
			await worlds.close();
		}
	} catch (error) {
		// Whatever failed because it was interrupted.
		signal.throwIfAborted();
		throw error;
	} finally {
		lock.close();
	}
}

/** Without the worlds that are not wanted, and those that have none left. */
function chosenScenarios({ scenarios, worlds }: BenchOptions): Scenario[] {
	return SCENARIOS.filter(({ name }) => scenarios.includes(name))
		.map((scenario) => ({
			...scenario,
			worlds: scenario.worlds.filter((name) => worlds.includes(name === "direct" ? "oncache" : name)),
		}))
		.filter((scenario) => scenario.worlds.length > 0);
}

/** Each scenario counts BPF time in one more run. */
function runsOf(scenarios: readonly Scenario[], rounds: number): number {
	return scenarios.reduce((sum, { worlds }) => sum + worlds.length * rounds + 1, 0);
}

/** Says before each step how much is done. */
function withShare(progress: BenchHooks["progress"], steps: number): BenchHooks["progress"] {
	let done = 0;
	return (text) => progress(`[${Math.floor((100 * done++) / steps)} %] ${text}`);
}

async function pingAll(worlds: Worlds, signal: AbortSignal): Promise<PingTimes> {
	const one = ({ client, server }: Worlds[WorldName]): Promise<number> => ping(client, server, signal);
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
