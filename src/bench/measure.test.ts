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
	const { worlds } = summariseRuns(scenario, runs([99, 99]), {});
	assert.deepEqual(worlds.oncache?.toHost?.rounds, [0.9, 0.9]);
	assert.deepEqual(worlds.oncache?.toOverlay?.rounds, [1.8, 2.25]);
	assert.equal(worlds.host?.toHost, null);
	assert.equal(worlds.host?.fastShare, null);
	assert.equal(worlds.oncache?.fastShare, 0.99);
});

test("a run with one round under 95 % on the fast path is not called ONCache", () => {
	assert.equal(summariseRuns(scenario, runs([95, 100]), {}).isOncache, true);
	assert.equal(summariseRuns(scenario, runs([94, 100]), {}).isOncache, false);
});

test("BPF time that was counted over packets of the fallback is not called ONCache's", () => {
	const bpf = (fast: number): BpfPass => ({
		...bpfCost([], []),
		packets: { fast, fallback: { sample: 100 - fast } },
	});
	assert.equal(summariseRuns(scenario, runs([100, 100]), { oncache: [bpf(95)] }).isOncache, true);
	assert.equal(summariseRuns(scenario, runs([100, 100]), { oncache: [bpf(94)] }).isOncache, false);
});

test("what was measured without ONCache is not refused", () => {
	const { oncache: _, ...others } = runs([]);
	const result = summariseRuns({ ...scenario, worlds: ["host", "overlay"] }, others, {});
	assert.equal(result.isOncache, true);
	assert.deepEqual(result.worlds.host?.toOverlay?.rounds, [2, 2.5]);
});

test("a run in which no packet was counted is not called ONCache", () => {
	const silent = runs([0, 0]);
	for (const run of silent.oncache ?? []) run.packets = { fast: 0, fallback: {} };
	assert.equal(summariseRuns(scenario, silent, {}).isOncache, false);
});

test("a scenario that is about the fallback reports its share only", () => {
	const { isOncache, worlds } = summariseRuns({ ...scenario, fastPath: "reported" }, runs([0, 0]), {});
	assert.equal(isOncache, true);
	assert.equal(worlds.oncache?.fastShare, 0);
});

test("two builds are compared within rounds, by rate and by ns per packet", () => {
	const pass = (ns: number): BpfPass => ({
		...bpfCost([], [{ name: "egress", runs: 10, ns: 10 * ns }]),
		packets: { fast: 100, fallback: {} },
	});
	const baseline = [100, 150].map((value) => ({ value, unit, packets: { fast: 1, fallback: {} } }) as const);
	const { worlds, bpf, bpfToBaseline } = summariseRuns(
		{ ...scenario, worlds: ["baseline", "oncache"] },
		{ baseline: [...baseline], oncache: runs([100, 100]).oncache ?? [] },
		{ oncache: [pass(800), pass(900)], baseline: [pass(800), pass(1000)] },
	);
	assert.deepEqual(worlds.oncache?.toBaseline?.rounds, [0.9, 1.2]);
	assert.deepEqual(bpfToBaseline?.ratio.rounds, [1, 0.9]);
	assert.equal(bpf?.nsPerPacket, 850);
});
