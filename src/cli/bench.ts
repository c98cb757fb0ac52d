// `oncache bench`: host network, plain overlay and ONCache, in interleaved rounds.
import { existsSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { Command, InvalidArgumentError, Option } from "commander";
import { type BenchResult, runBench } from "../bench/bench.js";
import { SCENARIO_NAMES } from "../bench/scenario.js";
import { programOf, WORLD_NAMES, type WorldName } from "../bench/worlds.js";
import { agentsText, growthText, LEGEND, scenarioText } from "./bench-report.js";
import { Failure, UsageError } from "./errors.js";
import { painter, progress } from "./output.js";
import type { CommandContext } from "./program.js";
import { programVersion } from "./version.js";

interface Options {
	scenarios: string[];
	worlds: WorldName[];
	rounds: number;
	seconds: number;
	flows: number;
	json?: string;
	agentConfig?: string;
	baseline?: string;
}

export function benchCommand({ signal }: CommandContext): Command {
	return new Command("bench")
		.description("measure host network, plain overlay and ONCache, in two labs of its own")
		.addOption(
			new Option("--scenarios <names>", `some of: ${SCENARIO_NAMES.join(", ")}; separated by commas`)
				.argParser(someOf("scenario", SCENARIO_NAMES))
				.default([...SCENARIO_NAMES], "all"),
		)
		.addOption(
			new Option("--worlds <names>", `some of: ${WORLD_NAMES.join(", ")}; separated by commas`)
				.argParser(someOf("world", WORLD_NAMES))
				.default([...WORLD_NAMES], "all"),
		)
		.option("--rounds <n>", "rounds, each with every world", from1to(1000), 5)
		.option("--seconds <n>", "length of one measurement", from1to(3600), 2)
		.option("--flows <n>", "parallel flows of the streams", from1to(128), 1)
		.option("--agent-config <file>", "configuration file of the agents")
		.option("--baseline <dir>", "compare with another build: a checkout of the project in which it was built")
		.option("--json <file>", "write the raw data of every round")
		.addHelpText(
			"after",
			`
Ends with exit code 1 when less than 95 % of the packets of a run took the fast path.

Examples:
  oncache bench
  oncache bench --scenarios tcp-rr,udp-rr --rounds 9 --json result.json
  oncache bench --scenarios tcp-rr,udp-rr --rounds 9 --baseline ../oncache-before
  npm run compare -- v0.1.0        builds that revision aside, and does the same`,
		)
		.action(async ({ json, ...options }: Options) => {
			checkBaseline(options);
			const paint = painter(process.stdout);
			const line = progress();
			const say = (text: string): void => {
				line.done();
				console.log(`${text}\n`);
			};
			const result = await runBench(
				{ name: "bench", ...options },
				{
					...{ signal, progress: line.update },
					onScenario: (scenario) => say(scenarioText(scenario, paint)),
					onSkipped: ({ names, why }) => say(`Skipped ${names.join(", ")}: ${why}`),
				},
			).finally(() => line.done());
			if (result.agents !== null) say(agentsText(result.agents, paint));
			if (result.growth !== null) say(growthText(result.growth, paint));
			if (result.scenarios.length > 0) console.log(LEGEND);
			if (json !== undefined) writeRaw(json, result);
			requireOncache(result);
		});
}

/** @throws UsageError */
function checkBaseline({ baseline, worlds }: Options): void {
	if (baseline === undefined) return;
	if (!worlds.includes("oncache"))
		throw new UsageError('Option --baseline compares with world "oncache": name it in --worlds too');
	const missing = [programOf(baseline), join(baseline, "dist"), join(baseline, "bpf/oncache.bpf.o")].find(
		(path) => !existsSync(path),
	);
	if (missing !== undefined)
		throw new UsageError(
			`"${baseline}" is not a build of ONCache: there is no "${missing}"; run "npm ci && npm run build" there`,
		);
}

export function from1to(high: number): (text: string) => number {
	return (text) => {
		const value = Number(text);
		if (!/^\d+$/.test(text) || value < 1 || value > high)
			throw new InvalidArgumentError(`Allowed: a whole number from 1 to ${high}.`);
		return value;
	};
}

function someOf(what: string, allowed: readonly string[]): (text: string) => string[] {
	return (text) => {
		const names = text.split(",");
		const unknown = names.find((name) => !allowed.includes(name));
		if (unknown === undefined) return names;
		throw new InvalidArgumentError(`Unknown ${what} "${unknown}". Allowed: ${allowed.join(", ")}.`);
	};
}

/** @throws Failure */
export function writeRaw(file: string, result: BenchResult): void {
	const raw = { oncache: programVersion(), commandLine: process.argv.slice(2), ...result };
	try {
		writeFileSync(file, `${JSON.stringify(raw, null, "\t")}\n`);
	} catch (error) {
		throw new Failure(`Cannot write "${file}": ${(error as Error).message}`);
	}
}

/** @throws Failure when a run was not ONCache */
export function requireOncache({ scenarios }: BenchResult): void {
	const refused = scenarios.filter(({ isOncache }) => !isOncache).map(({ name }) => name);
	if (refused.length > 0)
		throw new Failure(
			`Too few packets took the fast path in ${refused.join(", ")}, so these are not ONCache's numbers: ` +
				`the reasons stand below the tables; "oncache doctor" says what this kernel lacks`,
		);
}
