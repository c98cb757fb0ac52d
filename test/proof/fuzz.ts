// Random and mutated packets through every program: none crashes, does what it must not, or teaches what nobody asked for.
import { availableParallelism } from "node:os";
import { fileURLToPath } from "node:url";
import { run } from "../../src/lab/command.js";
import type { Proof, ProofOptions } from "./proof.js";

const RUN = fileURLToPath(new URL("./fuzz-run.js", import.meta.url));

export const fuzz: Proof = {
	name: "fuzz",
	claim: "whatever a packet looks like, a program hands it on untouched or does exactly what the fallback would",
	unit: "packets",
	small: 40_000,
	full: 1_200_000,
	run: proveFuzz,
};

async function proveFuzz({ seed, amount, signal, progress }: ProofOptions) {
	const processes = Math.max(1, Math.min(4, availableParallelism() - 1));
	progress(`${processes} processes`);
	const results = await Promise.all(
		Array.from({ length: processes }, async (_, i) => {
			const argv = [process.execPath, RUN, String(seed * 1000 + i), String(Math.ceil(amount / processes))];
			return JSON.parse((await run(argv, { signal })).stdout) as { seen: Record<string, number>; failures: string[] };
		}),
	);
	const figures: Record<string, number> = {};
	for (const { seen } of results)
		for (const [what, number] of Object.entries(seen)) figures[what] = (figures[what] ?? 0) + number;
	const failures = results.flatMap((result) => result.failures);
	if ((figures.fast ?? 0) === 0) failures.push("no packet took the fast path: this has proved nothing");
	return { figures, failures };
}
