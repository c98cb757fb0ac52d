// Runs in the virtual machine: the test files, one after the other; what happened goes to a file as lines of JSON.
//   node dist/test/vm/inside.js EVENTS LIMIT_MS TESTS
import { appendFileSync, readFileSync } from "node:fs";
import { resolve } from "node:path";
import { run } from "node:test";
import type { ChosenTest } from "./arguments.js";

/** What a test, or a whole file, came to. */
export type Event =
	| { type: "start"; file: string }
	| { type: "pass" | "fail" | "skip"; file: string; test: string; text: string }
	| { type: "end"; file: string; seconds: number };

/** What node:test says of a test that was not asked for. */
const NOT_CHOSEN = "test name does not match pattern";

const [events = "", limitMs = "", chosen = ""] = process.argv.slice(2);
const tell = (event: Event): void => appendFileSync(events, `${JSON.stringify(event)}\n`);

let failed = false;
for (const { file, only } of JSON.parse(readFileSync(chosen, "utf8")) as ChosenTest[]) {
	const started = performance.now();
	tell({ type: "start", file });
	await runFile(file, only);
	tell({ type: "end", file, seconds: Math.round((performance.now() - started) / 100) / 10 });
}
process.exitCode = failed ? 1 : 0;

async function runFile(file: string, only: string | undefined): Promise<void> {
	const path: string[] = [];
	let results = 0;
	const pattern = only === undefined ? {} : { testNamePatterns: [only] };
	const stream = run({ files: [resolve(file)], concurrency: 1, timeout: Number(limitMs), ...pattern });
	for await (const { type, data } of stream as AsyncIterable<{ type: string; data: TestData }>) {
		if (type === "test:start") path.splice(data.nesting, path.length, data.name);
		else if (type === "test:stderr" || type === "test:stdout") process.stdout.write(data.message ?? "");
		else if (type === "test:pass" || type === "test:fail") {
			if (data.skip === NOT_CHOSEN) continue;
			const fails = type === "test:fail";
			if (fails) failed = true;
			const skipped = data.skip !== undefined && data.skip !== false;
			// A suite says no more than its tests do, unless it is its hooks that failed, or it was skipped as a whole.
			const isSuite = data.details?.type === "suite";
			if (isSuite && !skipped && !(fails && data.details?.error?.failureType === "hookFailed")) continue;
			if (fails && data.details?.error?.failureType === "subtestsFailed") continue;
			const test = [...path.slice(0, data.nesting), data.name].join(" > ");
			results++;
			const text = fails ? words(data.details?.error) : typeof data.skip === "string" ? data.skip : "";
			tell({ type: fails ? "fail" : skipped ? "skip" : "pass", file, test, text });
		}
	}
	if (results > 0) return;
	failed = true;
	tell({ type: "fail", file, test: "the file", text: "No test ran in it: that proves nothing" });
}

interface TestData {
	name: string;
	nesting: number;
	message?: string;
	skip?: string | boolean;
	details?: { type?: string; error?: Error & { failureType?: string } };
}

function words(error: Error | undefined): string {
	const cause = error?.cause ?? error;
	return cause instanceof Error ? (cause.stack ?? cause.message) : String(cause);
}
