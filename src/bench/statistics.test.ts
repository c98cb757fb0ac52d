import assert from "node:assert/strict";
import { test } from "node:test";
import { median, medianInterval, pairedRatio, summarise } from "./statistics.js";

test("summarise() finds median, quartiles and extremes whatever the order", () => {
	const { spread, ...rest } = summarise([50, 10, 40, 20, 30]);
	assert.deepEqual(rest, { median: 30, lower: 20, upper: 40, min: 10, max: 50 });
	assert.equal(spread, 20 / 30);
});

test("median() of an even number of values lies between the middle two", () => {
	assert.equal(median([4, 1, 3, 2]), 2.5);
});

test("summarise() of one value has no spread", () => {
	assert.deepEqual(summarise([7]), { median: 7, lower: 7, upper: 7, min: 7, max: 7, spread: 0 });
});

test("summarise() of nothing is refused", () => {
	assert.throws(() => summarise([]), /there are none/);
	assert.throws(() => medianInterval([]), /there are none/);
});

test("medianInterval() follows the table of the sign test", () => {
	// n, rank of the lower bound, confidence: any textbook on nonparametric statistics.
	for (const [n, rank, confidence] of [
		[5, 1, 0.9375],
		[6, 1, 0.96875],
		[9, 2, 0.9609],
		[12, 3, 0.9614],
		[20, 6, 0.9586],
	] as const) {
		const values = Array.from({ length: n }, (_, i) => i + 1);
		const interval = medianInterval(values);
		assert.deepEqual([interval.low, interval.high], [rank, n + 1 - rank], `n = ${n}`);
		assert.equal(interval.confidence.toFixed(4), confidence.toFixed(4), `n = ${n}`);
	}
});

test("medianInterval() of one value promises nothing", () => {
	assert.deepEqual(medianInterval([3]), { low: 3, high: 3, confidence: 0 });
});

test("pairedRatio() does not see a drift that hits both sides of a round", () => {
	const ratio = pairedRatio([20, 40, 100], [10, 20, 50]);
	assert.deepEqual(ratio.rounds, [2, 2, 2]);
	assert.equal(ratio.median, 2);
	assert.equal(ratio.ofMedians, 2);
	assert.deepEqual([ratio.low, ratio.high], [2, 2]);
});

test("pairedRatio() refuses rounds that have no partner", () => {
	assert.throws(() => pairedRatio([1, 2], [1]), /rounds differ/);
});
