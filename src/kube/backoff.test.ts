// Waiting longer each time, and not all at once.
import assert from "node:assert/strict";
import { test } from "node:test";
import { Backoff } from "./backoff.js";

test("doubles up to its limit, begins anew when it works again, and has chance in it", () => {
	const limits = { firstMs: 800, longestMs: 30_000 };
	const longest = new Backoff(limits, () => 1);
	assert.deepEqual(
		Array.from({ length: 7 }, () => longest.nextMs()),
		[800, 1600, 3200, 6400, 12_800, 25_600, 30_000],
	);
	longest.reset();
	assert.equal(longest.nextMs(), 800);
	assert.equal(new Backoff(limits, () => 0).nextMs(), 400);
	for (let i = 0; i < 2000; i++) assert.ok(longest.nextMs() <= 30_000);
});

test("waiting ends with its signal", async () => {
	await new Backoff({ firstMs: 3_600_000, longestMs: 3_600_000 }).wait(AbortSignal.abort());
});
