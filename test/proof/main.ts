// npm run prove: the proofs in full size, one after the other.
import { writeFileSync } from "node:fs";
import { cpus, release } from "node:os";
import { parseArgs } from "node:util";
import { progress } from "../../src/cli/output.js";
import type { Proof, ProofResult } from "./proof.js";

const PROOFS: Record<string, () => Promise<Proof>> = {
	chaos: async () => (await import("./chaos.js")).chaos,
	policy: async () => (await import("./policy.js")).policy,
	migration: async () => (await import("./migration.js")).migration,
	fuzz: async () => (await import("./fuzz.js")).fuzz,
	differential: async () => (await import("./differential.js")).differential,
	differential6: async () => (await import("./differential.js")).differential6,
	planted: async () => (await import("./planted.js")).planted,
	bandwidth: async () => (await import("./bandwidth.js")).bandwidth,
	overload: async () => (await import("./overload.js")).overload,
	connections: async () => (await import("./connections.js")).connections,
	faults: async () => (await import("./faults.js")).faults,
	churn: async () => (await import("./churn.js")).churn,
	bursts: async () => (await import("./bursts.js")).bursts,
	spoofing: async () => (await import("./spoofing.js")).spoofing,
	latency: async () => (await import("./latency.js")).latency,
	runtime: async () => (await import("./runtime.js")).runtime,
};

const HELP = `Usage: npm run prove -- [NAME...] [options]

Tries to break what ONCache promises, and prints what it saw. Without a name: all proofs.

Options:
  --amount N    how much, in the proof's own unit (default: as published)
  --small       as much as npm test does
  --seed N      the same seed does the same again (default 1)
  --json FILE   write the figures
  --list        name the proofs
  --help        show this

Exit code 0: nothing was broken; 1: something was; 2: wrong arguments.
`;

interface Arguments {
	names: string[];
	amount: number | undefined;
	small: boolean;
	seed: number;
	json: string | undefined;
}

function readArguments(): Arguments {
	try {
		const { values, positionals } = parseArgs({
			allowPositionals: true,
			options: {
				amount: { type: "string" },
				small: { type: "boolean", default: false },
				seed: { type: "string", default: "1" },
				json: { type: "string" },
				list: { type: "boolean" },
				help: { type: "boolean" },
			},
		});
		if (values.help || values.list) {
			process.stdout.write(values.help ? HELP : `${Object.keys(PROOFS).join("\n")}\n`);
			process.exit(0);
		}
		const unknown = positionals.find((name) => !(name in PROOFS));
		if (unknown !== undefined)
			throw new Error(`Unknown proof "${unknown}": choose from ${Object.keys(PROOFS).join(", ")}`);
		return {
			names: positionals.length > 0 ? positionals : Object.keys(PROOFS),
			amount: values.amount === undefined ? undefined : whole("amount", values.amount),
			small: values.small,
			seed: whole("seed", values.seed),
			json: values.json,
		};
	} catch (error) {
		process.stderr.write(`${(error as Error).message}\n`);
		process.exit(2);
	}
}

function whole(what: string, text: string): number {
	if (!/^\d+$/.test(text)) throw new Error(`Cannot use --${what} "${text}": expected a whole number`);
	return Number(text);
}

const { names, amount, small, seed, json } = readArguments();
const ending = new AbortController();
for (const name of ["SIGINT", "SIGTERM"] as const) process.once(name, () => ending.abort(new Error("Interrupted")));

const line = progress();
const results: Record<string, ProofResult & { amount: number; unit: string; seconds: number }> = {};
try {
	for (const name of names) {
		const proof = await (PROOFS[name] as () => Promise<Proof>)();
		const size = amount ?? (small ? proof.small : proof.full);
		console.log(`${name}: ${proof.claim} (${size} ${proof.unit}, seed ${seed})`);
		const started = performance.now();
		const result = await proof.run({
			seed,
			amount: size,
			signal: ending.signal,
			progress: (text) => line.update(`${name}: ${text}`),
		});
		line.done();
		const seconds = Math.round((performance.now() - started) / 100) / 10;
		results[name] = { amount: size, unit: proof.unit, seconds, ...result };
		const figures = Object.entries({ ...result.figures, "took, s": seconds });
		const width = Math.max(...figures.map(([key]) => key.length));
		for (const [key, value] of figures) console.log(`  ${key.padEnd(width)}  ${value}`);
		for (const failure of result.failures) console.log(`  BROKEN: ${failure}`);
		console.log(result.failures.length === 0 ? "  holds\n" : "  BROKEN\n");
	}
} catch (error) {
	line.done();
	console.error(ending.signal.aborted ? "Interrupted; removed what it had made" : error);
	process.exitCode = ending.signal.aborted ? 130 : 1;
}
if (json !== undefined) {
	const machine = { kernel: release(), cpu: cpus()[0]?.model ?? "unknown", cpus: cpus().length };
	const raw = { startedWith: process.argv.slice(2), machine, seed, results };
	writeFileSync(json, `${JSON.stringify(raw, null, "\t")}\n`);
}
if (Object.values(results).some(({ failures }) => failures.length > 0)) process.exitCode = 1;
// What a proof was interrupted in may still hold a handle.
process.exit();
