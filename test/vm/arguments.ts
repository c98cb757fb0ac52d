// What npm run test:kernels understands.
import { existsSync, readdirSync } from "node:fs";
import { cpus } from "node:os";
import { join, relative, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { ALL_SERIES, type Series, seriesNamed } from "./series.js";
import { SLICE } from "./slice.js";

export const ROOT = fileURLToPath(new URL("../../..", import.meta.url));
const TIERS = ["kernel", "e2e"];

export const HELP = `Usage: npm run test:kernels -- [options] [-- FILE...]

Runs the tests in virtual machines (emulated, no KVM) with Debian's kernels and this machine's files.
Kernels: ${ALL_SERIES.map(({ name, why }) => `${name} (${why})`).join(", ")}.

Options:
  --kernel NAME   only this kernel (repeat for more; default: all)
  --tier TIER     kernel or e2e (default: both)
  --only PATTERN  only tests whose names match this regular expression
  --slice         a choice of tests that takes less than five minutes, as npm test runs it
  --cpus N        of each machine (default 1); as many machines run at once as this machine has CPUs for;
                  of a slice, all
  --json FILE     write the results
  --record        write the verifier's counts to docs/results/verifier.json instead of comparing them
  --fetch         fetch the kernels anew; else the cached ones are used, however old
  --shell         no tests: a shell in the machine of one kernel; it ends with "exit", or Ctrl-A X
  --list          name the kernels, and what is cached
  --help          show this

Exit code 0: no test failed; 1: one did, or no kernel could be tried; 2: wrong arguments.
`;

/** A test file, or some of its tests. */
export interface ChosenTest {
	/** As it was built, from the project's folder. */
	file: string;
	/** Source of a regular expression: of the names of its tests. */
	only: string | undefined;
	/** All unless given. */
	kernels: readonly string[] | undefined;
}

export interface Arguments {
	what: "help" | "list" | "shell" | "test";
	series: Series[];
	tests: ChosenTest[];
	cpus: number;
	/** Machines that run side by side. */
	atOnce: number;
	json: string | undefined;
	record: boolean;
	fetch: boolean;
}

/** @throws Error that says what is wrong with them */
export function readArguments(args: readonly string[]): Arguments {
	const { values, positionals } = parseArgs({
		args: [...args],
		allowPositionals: true,
		options: {
			kernel: { type: "string", multiple: true, default: [] },
			tier: { type: "string", multiple: true, default: [] },
			only: { type: "string" },
			slice: { type: "boolean", default: false },
			cpus: { type: "string", default: "1" },
			json: { type: "string" },
			record: { type: "boolean", default: false },
			fetch: { type: "boolean", default: false },
			shell: { type: "boolean", default: false },
			list: { type: "boolean", default: false },
			help: { type: "boolean", default: false },
		},
	});
	const { kernel, tier, only, slice, shell, list, help, json, record, fetch } = values;
	const wrongTier = tier.find((name) => !TIERS.includes(name));
	if (wrongTier !== undefined) throw new Error(`Unknown tier "${wrongTier}": choose from ${TIERS.join(", ")}`);
	if (!/^[1-9]\d?$/.test(values.cpus)) throw new Error(`Cannot use --cpus "${values.cpus}": expected 1 to 99`);
	if (Number(values.cpus) > cpus().length)
		throw new Error(`Cannot use --cpus ${values.cpus}: this machine has ${cpus().length}`);
	if (shell && kernel.length !== 1) throw new Error("Cannot open a shell: name one kernel, as in --shell --kernel 6.1");
	if (positionals.length > 0 && (slice || tier.length > 0))
		throw new Error("Cannot choose by --slice or --tier and by files at once");
	if (slice && (only !== undefined || tier.length > 0))
		throw new Error("Cannot choose by --slice and by --only or --tier at once");
	if (only !== undefined && !isPattern(only))
		throw new Error(`Cannot use --only "${only}": it is not a regular expression`);
	const series =
		kernel.length > 0 ? ALL_SERIES.filter((one) => kernel.map(seriesNamed).includes(one)) : [...ALL_SERIES];
	return {
		what: help ? "help" : list ? "list" : shell ? "shell" : "test",
		series,
		tests: slice
			? SLICE.map(({ file, only, kernels }) => ({ file: toBuilt(resolve(ROOT, file)), only: only?.source, kernels }))
			: (positionals.length > 0 ? positionals.map(toBuilt) : builtIn(tier)).map((file) => ({
					...{ file, only, kernels: undefined },
				})),
		cpus: Number(values.cpus),
		// They wait a little for one another, but no CPU is left without work at the end.
		atOnce: slice ? series.length : Math.floor(cpus().length / Number(values.cpus)),
		json,
		record,
		fetch,
	};
}

function isPattern(text: string): boolean {
	try {
		new RegExp(text);
		return true;
	} catch {
		return false;
	}
}

function builtIn(tiers: readonly string[]): string[] {
	const wanted = tiers.length > 0 ? tiers : TIERS;
	return wanted
		.flatMap((tier) => readdirSync(join(ROOT, "test", tier)).map((name) => `test/${tier}/${name}`))
		.filter((path) => path.endsWith(".test.ts"))
		.sort((a, b) => tierOf(a) - tierOf(b) || a.localeCompare(b))
		.map((path) => toBuilt(resolve(ROOT, path)));
}

const tierOf = (path: string): number => TIERS.findIndex((tier) => path.startsWith(`test/${tier}/`));

/** test/e2e/x.test.ts -> dist/test/e2e/x.test.js */
function toBuilt(argument: string): string {
	const given = relative(ROOT, resolve(process.env.INIT_CWD ?? ROOT, argument));
	const path = `dist/${given.replace(/^dist\//, "").replace(/\.ts$/, ".js")}`;
	if (/^dist\/test\/(kernel|e2e)\/.*\.test\.js$/.test(path) && existsSync(join(ROOT, path))) return path;
	throw new Error(`Cannot run "${argument}": it is not a test file such as test/kernel/attach.test.ts`);
}
