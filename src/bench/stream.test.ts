import assert from "node:assert/strict";
import { test } from "node:test";
import { parseIperf3 } from "./stream.js";

function server(intervals: [start: number, seconds: number, bytes: number][]): string {
	const sums = intervals.map(([start, seconds, bytes]) => ({ sum: { start, seconds, bytes, sender: false } }));
	return JSON.stringify({ intervals: sums, end: { sum: { bytes: 0 } } });
}

test("parseIperf3() counts what was received after the warm-up", () => {
	const text = server([
		[0, 0.3, 1],
		[0.3, 0.1, 1000],
		[0.4, 0.1, 2000],
	]);
	assert.equal(parseIperf3(text), (3000 * 8) / 0.2);
});

test("parseIperf3() repeats the tool's own error", () => {
	assert.throws(() => parseIperf3('{"error": "unable to start listener"}'), /iperf3: unable to start listener/);
});

test("parseIperf3() refuses a run in which nothing arrived, and what is not JSON", () => {
	assert.throws(() => parseIperf3(server([[0.3, 0.1, 0]])), /received nothing/);
	assert.throws(() => parseIperf3(""), /not JSON/);
});
