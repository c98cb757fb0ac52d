// What the tests came to in one virtual machine, read from the lines of JSON that inside.ts writes.
import { existsSync, readFileSync } from "node:fs";
import type { Event } from "./inside.js";

export interface FileResult {
	pass: number;
	fail: number;
	skip: number;
	seconds: number;
	failures: { test: string; text: string }[];
	skips: { test: string; text: string }[];
}

export interface Report {
	files: Record<string, FileResult>;
	/** Begun and not ended. */
	running: string | undefined;
}

export function readReport(events: string): Report {
	const report: Report = { files: {}, running: undefined };
	const lines = existsSync(events) ? readFileSync(events, "utf8").split("\n").slice(0, -1) : [];
	for (const event of lines.map((line) => JSON.parse(line) as Event)) {
		const file = sourceOf(event.file);
		report.files[file] ??= { pass: 0, fail: 0, skip: 0, seconds: 0, failures: [], skips: [] };
		const result = report.files[file];
		if (event.type === "start") report.running = file;
		else if (event.type === "end") {
			report.running = undefined;
			result.seconds = event.seconds;
		} else {
			result[event.type] += 1;
			const { test, text } = event;
			if (event.type !== "pass") result[event.type === "fail" ? "failures" : "skips"].push({ test, text });
		}
	}
	return report;
}

/** dist/test/x.test.js -> test/x.test.ts */
export function sourceOf(file: string): string {
	return file.replace(/^dist\//, "").replace(/\.js$/, ".ts");
}

/** Without the stack, and the verifier's addresses. */
function reasonOf(text: string): string {
	return text.replace(/\n\s+at .*$/s, "").replace(/0x[0-9a-f]{8,}/g, "");
}

/** One file in one machine, for people. */
export function describe(kernel: string, file: string, result: FileResult): string {
	const { pass, fail, skip, seconds } = result;
	const indented = (text: string): string => text.trimEnd().replaceAll("\n", "\n      ");
	return [
		`${kernel.padEnd(5)} ${file.padEnd(34)} ${pass} passed, ${fail} failed, ${skip} skipped, ${Math.round(seconds)} s`,
		...result.skips.map(({ test, text }) => `    skipped: ${test}${text ? `: ${text}` : ""}`),
		...result.failures.map(({ test, text }, at) => {
			const isFirst = result.failures.findIndex((other) => reasonOf(other.text) === reasonOf(text)) === at;
			return `    FAILED: ${test}\n      ${isFirst ? indented(text) : "as above"}`;
		}),
	].join("\n");
}
