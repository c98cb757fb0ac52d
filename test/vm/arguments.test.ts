import assert from "node:assert/strict";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { readArguments } from "./arguments.js";
import { describe, readReport } from "./report.js";
import { ALL_SERIES } from "./series.js";
import { SLICE } from "./slice.js";

test("readArguments() chooses all kernels and both tiers, kernel tests first", () => {
	const { what, series, tests } = readArguments([]);
	const files = tests.map(({ file }) => file);
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
	assert.ok(readArguments(["--tier", "e2e"]).tests.every(({ file }) => file.startsWith("dist/test/e2e/")));
	const { tests } = readArguments(["--only", "^a", "--", "test/kernel/attach.test.ts"]);
	assert.deepEqual(tests, [{ file: "dist/test/kernel/attach.test.js", only: "^a", kernels: undefined }]);
});

test("the slice names kernels and tests that exist", () => {
	assert.equal(readArguments(["--slice"]).tests.length, SLICE.length);
	for (const { file, only, kernels = [] } of SLICE) {
		assert.ok(kernels.every((name) => ALL_SERIES.some((series) => series.name === name)));
		const names = [...readFileSync(file, "utf8").matchAll(/^\t*(?:test\()?(?:"([^"]+)"|(\w+)):? ?/gm)].map(
			([, a, b]) => a ?? b ?? "",
		);
		assert.ok(!only || names.some((name) => only.test(name)), `${file} has no test ${only}`);
	}
});

for (const [args, says] of [
	[["--kernel", "5.15"], /Unknown kernel series "5\.15": choose from 6\.1/],
	[["--tier", "pure"], /Unknown tier "pure": choose from kernel, e2e/],
	[["--cpus", "0"], /Cannot use --cpus "0"/],
	[["--shell"], /name one kernel/],
	[["--", "test/setup.test.ts"], /Cannot run "test\/setup\.test\.ts": it is not a test file such as/],
	[["--slice", "--only", "x"], /Cannot choose by --slice and by --only/],
	[["--only", "("], /Cannot use --only "\(": it is not a regular expression/],
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
