import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { readArguments } from "./arguments.js";
import { describe, readReport } from "./report.js";
import { ALL_SERIES } from "./series.js";
import { SLICE } from "./slice.js";

test("readArguments() chooses all kernels and both tiers, kernel tests first", () => {
	const { what, series, files } = readArguments([]);
	assert.deepEqual([what, series.length], ["test", ALL_SERIES.length]);
	assert.match(files[0] ?? "", /^dist\/test\/kernel\//);
	assert.match(files.at(-1) ?? "", /^dist\/test\/e2e\//);
});

test("readArguments() takes kernels, tiers and files by name", () => {
	const { series } = readArguments(["--kernel", "7.x", "--kernel", "6.1"]);
	assert.deepEqual(
		series.map(({ name }) => name),
		["6.1", "7.x"],
	);
	assert.ok(readArguments(["--tier", "e2e"]).files.every((file) => file.startsWith("dist/test/e2e/")));
	const { files } = readArguments(["--", "test/kernel/attach.test.ts"]);
	assert.deepEqual(files, ["dist/test/kernel/attach.test.js"]);
});

test("the slice names tests that exist", () => {
	assert.equal(readArguments(["--slice"]).files.length, SLICE.length);
});

for (const [args, says] of [
	[["--kernel", "5.15"], /Unknown kernel series "5\.15": choose from 6\.1/],
	[["--tier", "pure"], /Unknown tier "pure": choose from kernel, e2e/],
	[["--cpus", "0"], /Cannot use --cpus "0"/],
	[["--shell"], /name one kernel/],
	[["--", "test/setup.test.ts"], /Cannot run "test\/setup\.test\.ts": it is not a test file such as/],
	[["--slice", "--", "test/kernel/attach.test.ts"], /Cannot choose by --slice or --tier and by files/],
	[["--unknown"], /Unknown option/],
] as const)
	test(`readArguments() refuses ${args.join(" ")}`, () => {
		assert.throws(() => readArguments(args), says);
	});

test("readReport() counts by file, and knows what is running", (t) => {
	const dir = mkdtempSync(join(tmpdir(), "oncache-test-"));
	t.after(() => rmSync(dir, { recursive: true }));
	const file = "dist/test/kernel/x.test.js";
	const events = [
		{ type: "start", file },
		{ type: "pass", file, test: "a", text: "" },
		{ type: "fail", file, test: "b", text: "no\nno" },
		{ type: "skip", file, test: "c", text: "because" },
	];
	// The last line is being written.
	writeFileSync(join(dir, "events"), `${events.map((event) => JSON.stringify(event)).join("\n")}\n{"type":`);
	const { files, running } = readReport(join(dir, "events"));
	assert.equal(running, "test/kernel/x.test.ts");
	const result = files["test/kernel/x.test.ts"];
	assert.ok(result);
	assert.deepEqual([result.pass, result.fail, result.skip], [1, 1, 1]);
	assert.match(
		describe("6.1", "x", result),
		/1 passed, 1 failed, 1 skipped.*\n.*skipped: c: because\n.*FAILED: b\n +no/,
	);
});
