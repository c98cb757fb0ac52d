import assert from "node:assert/strict";
import { test } from "node:test";
import type { Counts } from "../agent/api.js";
import { bpfCost, countsBetween, fastShare, sumCounts } from "./fastpath.js";

test("sumCounts() adds hits and every reason for falling back", () => {
	const counts: Counts[] = [
		{ fast: 90, fallback: { flow_miss: 3, sample: 2 } },
		{ fast: 4, fallback: { sample: 1 } },
	];
	assert.deepEqual(sumCounts(counts), { fast: 94, fallback: { flow_miss: 3, sample: 3 } });
});

test("fastShare() of a run is of the packets between two counts", () => {
	const run = countsBetween(
		{ fast: 1000, fallback: { flow_miss: 500 } },
		{ fast: 1095, fallback: { flow_miss: 500, sample: 5 } },
	);
	assert.deepEqual(run, { fast: 95, fallback: { sample: 5 } });
	assert.equal(fastShare(run), 0.95);
	assert.equal(fastShare({ fast: 0, fallback: {} }), Number.NaN);
});

test("bpfCost() is the time of the four programs on both hosts by packets that left a pod", () => {
	const before = [
		{ name: "egress", runs: 5, ns: 5000 },
		{ name: "other", runs: 0, ns: 0 },
	];
	const after = [
		{ name: "egress", runs: 105, ns: 45_000 }, // host 1: 100 packets left
		{ name: "egress_init", runs: 100, ns: 7000 },
		{ name: "ingress", runs: 100, ns: 43_000 },
		{ name: "egress", runs: 100, ns: 40_000 }, // host 2: 100 answers left
		{ name: "egress_init", runs: 100, ns: 7000 },
		{ name: "ingress", runs: 100, ns: 43_000 },
		{ name: "ingress_init", runs: 1, ns: 0 },
		{ name: "other", runs: 1000, ns: 1_000_000 },
	];
	const { programs, nsPerPacket } = bpfCost(before, after);
	assert.equal(nsPerPacket, 900);
	assert.deepEqual(programs.egress, { runs: 200, ns: 80_000 });
	assert.deepEqual(programs.ingress_init, { runs: 1, ns: 0 });
});
