// npm run test:kernels: the tests on the kernels of Debian, in virtual machines.
import { mkdirSync, writeFileSync } from "node:fs";
import { dirname, resolve } from "node:path";
import { progress } from "../../src/cli/output.js";
import { type Arguments, HELP, ROOT, readArguments } from "./arguments.js";
import { CACHE, cached, provide } from "./kernel.js";
import { makeShare, runInside } from "./machine.js";
import { ALL_SERIES, type Series } from "./series.js";
import { type Trial, tryKernel } from "./trial.js";

type Sums = Record<"pass" | "fail" | "skip", number>;

/** Of a run of minutes, in the log of whoever runs the tests. */
const PLAIN_INTERVAL_MS = 30_000;

const line = progress({ plainIntervalMs: PLAIN_INTERVAL_MS });
const ending = new AbortController();
for (const name of ["SIGINT", "SIGTERM", "SIGHUP"] as const)
	process.once(name, () => ending.abort(new Error("Interrupted")));

process.exitCode = await main();

async function main(): Promise<number> {
	let options: Arguments;
	try {
		options = readArguments(process.argv.slice(2));
	} catch (error) {
		process.stderr.write(`${(error as Error).message}\n`);
		return 2;
	}
	try {
		if (options.what === "help") process.stdout.write(HELP);
		else if (options.what === "list") list();
		else if (options.what === "shell") return await shell(options);
		else return await test(options);
		return 0;
	} catch (error) {
		line.done();
		process.stderr.write(`${(error as Error).message}\n`);
		return 1;
	}
}

function list(): void {
	for (const series of ALL_SERIES) {
		const kernel = cached(series);
		const state = kernel
			? `cached: ${kernel.release} of ${kernel.suite}`
			: `not cached; from ${series.suites.join(", ")}`;
		process.stdout.write(`${series.name.padEnd(5)} ${series.why.padEnd(42)} ${state}\n`);
	}
	process.stdout.write(`cache: ${CACHE}\n`);
}

async function shell({ series, cpus, fetch }: Arguments): Promise<number> {
	const say = (text: string): boolean => process.stderr.write(`${text}\n`);
	const kernel = await provide(series[0] as Series, { fetch, signal: ending.signal, say });
	const share = makeShare();
	const command = `cd '${ROOT}'; HOME=/root TERM='${process.env.TERM ?? "vt100"}' setsid /run/busybox cttyhack bash -i`;
	try {
		return await runInside({ kernel, share, cpus, command, interactive: true, signal: ending.signal });
	} finally {
		share.remove();
	}
}

async function test(options: Arguments): Promise<number> {
	const trials: Record<string, Trial> = {};
	const waiting = [...options.series];
	const say = (text: string): void => {
		line.done();
		process.stdout.write(`${text}\n`);
	};
	const lane = async (): Promise<void> => {
		for (let series = waiting.shift(); series; series = waiting.shift())
			trials[series.name] = await tryKernel(series, {
				...{ ...options, root: ROOT, signal: ending.signal, say },
				update: (text) => line.update(text),
			});
	};
	await Promise.all(Array.from({ length: options.atOnce }, lane));
	line.done();
	const kernels = Object.fromEntries(options.series.map(({ name }) => [name, trials[name] as Trial]));
	const sums = conclude(kernels);
	if (options.json) {
		const path = resolve(process.env.INIT_CWD ?? ".", options.json);
		mkdirSync(dirname(path), { recursive: true });
		writeFileSync(path, `${JSON.stringify({ sums, kernels }, null, "\t")}\n`);
	}
	return sums.fail > 0 ? 1 : 0;
}

/** Prints the sums. A kernel that could not be tried counts as one failure; as one skipped when Debian has it no more. */
function conclude(trials: Record<string, Trial>): Sums {
	const total: Sums = { pass: 0, fail: 0, skip: 0 };
	const words = ({ pass, fail, skip }: Sums): string => `${pass} passed, ${fail} failed, ${skip} skipped`;
	for (const [name, { kernel, problem, gone, files }] of Object.entries(trials)) {
		const sum: Sums = { pass: 0, fail: 0, skip: 0 };
		if (problem) sum[gone ? "skip" : "fail"] += 1;
		for (const what of ["pass", "fail", "skip"] as const) {
			for (const file of Object.values(files)) sum[what] += file[what];
			total[what] += sum[what];
		}
		const place = kernel ? ` (${kernel.release}, Debian ${kernel.suite})` : "";
		process.stdout.write(`Linux ${name}${place}: ${words(sum)}\n`);
		if (problem) process.stdout.write(`  ${gone ? "SKIPPED" : "FAILED"}: ${problem}\n`);
	}
	if (Object.values(trials).every(({ gone }) => gone)) {
		process.stdout.write("FAILED: no kernel could be tried, and that proves nothing\n");
		total.fail += 1;
	}
	process.stdout.write(`\n${words(total)}\n`);
	return total;
}
