import assert from "node:assert/strict";
import { test } from "node:test";
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
	const { worlds } = summariseRuns(scenario, runs([99, 99]));
	assert.deepEqual(worlds.oncache?.toHost?.rounds, [0.9, 0.9]);
	assert.deepEqual(worlds.oncache?.toOverlay?.rounds, [1.8, 2.25]);
	assert.equal(worlds.host?.toHost, null);
	assert.equal(worlds.host?.fastShare, null);
	assert.equal(worlds.oncache?.fastShare, 0.99);
});

test("a run with one round under 95 % on the fast path is not called ONCache", () => {
	assert.equal(summariseRuns(scenario, runs([95, 100])).isOncache, true);
	assert.equal(summariseRuns(scenario, runs([94, 100])).isOncache, false);
});

test("a run in which no packet was counted is not called ONCache", () => {
	const silent = runs([0, 0]);
	for (const run of silent.oncache ?? []) run.packets = { fast: 0, fallback: {} };
	assert.equal(summariseRuns(scenario, silent).isOncache, false);
});

test("a scenario that is about the fallback reports its share only", () => {
	const { isOncache, worlds } = summariseRuns({ ...scenario, fastPath: "reported" }, runs([0, 0]));
	assert.equal(isOncache, true);
	assert.equal(worlds.oncache?.fastShare, 0);
});
