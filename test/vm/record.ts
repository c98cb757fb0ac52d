// Enters what the virtual machines recorded into the repository.
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";

export const RECORDS = "docs/results/verifier.json";

/** `from`: the counts of one kernel by its series, as test/kernel/verifier.test.ts writes them. */
export function record(root: string, from: string): void {
	if (!existsSync(from)) throw new Error("Nothing was recorded: choose test/kernel/verifier.test.ts, or all tests");
	const path = join(root, RECORDS);
	const read = (file: string): object => (existsSync(file) ? JSON.parse(readFileSync(file, "utf8")) : {});
	const entries = Object.entries({ ...read(path), ...read(from) });
	entries.sort(([a], [b]) => a.localeCompare(b, "en", { numeric: true }));
	writeFileSync(path, `${JSON.stringify(Object.fromEntries(entries), null, "\t")}\n`);
}
