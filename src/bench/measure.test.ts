import assert from "node:assert/strict";
import { test } from "node:test";
import { type BpfPass, bpfCost } from "./fastpath.js";
import { type Runs, rotated, summariseRuns } from "./measure.js";
import { SCENARIOS, type Scenario } from "./scenario.js";

const scenario = SCENARIOS.find(({ name }) => name === "tcp-rr") as Scenario;
const unit = "messages/s";

function runs(fast: number[]): Runs {
	return {
		host: [100, 200].map((value) => ({ value, unit, packets: null })),
		overlay: [50, 80].map((value) => ({ value, unit, packets: null })),
		oncache: [90, 180].map((value, round) => ({
			value,
			unit,
			packets: { fast: fast[round] ?? 0, fallback: { flow_miss: 100 - (fast[round] ?? 0) } },
		})),
	};
}

test("rotated() lets every world come first in turn", () => {
	const order = [0, 1, 2, 3].map((round) => rotated(["host", "overlay", "oncache"], round)[0]);
	assert.deepEqual(order, ["host", "overlay", "oncache", "host"]);
});

test("summariseRuns() compares within rounds", () => {
	const { worlds } = summariseRuns(scenario, runs([99, 99]), null);
	assert.deepEqual(worlds.oncache?.toHost?.rounds, [0.9, 0.9]);
	assert.deepEqual(worlds.oncache?.toOverlay?.rounds, [1.8, 2.25]);
	assert.equal(worlds.host?.toHost, null);
	assert.equal(worlds.host?.fastShare, null);
	assert.equal(worlds.oncache?.fastShare, 0.99);
});

test("a run with one round under 95 % on the fast path is not called ONCache", () => {
	assert.equal(summariseRuns(scenario, runs([95, 100]), null).isOncache, true);
	assert.equal(summariseRuns(scenario, runs([94, 100]), null).isOncache, false);
});

test("BPF time that was counted over packets of the fallback is not called ONCache's", () => {
	const bpf = (fast: number): BpfPass => ({
		...bpfCost([], []),
		packets: { fast, fallback: { sample: 100 - fast } },
	});
	assert.equal(summariseRuns(scenario, runs([100, 100]), bpf(95)).isOncache, true);
	assert.equal(summariseRuns(scenario, runs([100, 100]), bpf(94)).isOncache, false);
});

test("what was measured without ONCache is not refused", () => {
	const { oncache: _, ...others } = runs([]);
	const result = summariseRuns({ ...scenario, worlds: ["host", "overlay"] }, others, null);
	assert.equal(result.isOncache, true);
	assert.deepEqual(result.worlds.host?.toOverlay?.rounds, [2, 2.5]);
});

test("a run in which no packet was counted is not called ONCache", () => {
	const silent = runs([0, 0]);
	for (const run of silent.oncache ?? []) run.packets = { fast: 0, fallback: {} };
	assert.equal(summariseRuns(scenario, silent, null).isOncache, false);
});

test("a scenario that is about the fallback reports its share only", () => {
	const { isOncache, worlds } = summariseRuns({ ...scenario, fastPath: "reported" }, runs([0, 0]), null);
	assert.equal(isOncache, true);
	assert.equal(worlds.oncache?.fastShare, 0);
});
