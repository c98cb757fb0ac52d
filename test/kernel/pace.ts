// What must happen within milliseconds, on machines of any speed: tried again, or counted, instead of timed.
import assert from "node:assert/strict";
import { setTimeout } from "node:timers/promises";
import { PATIENCE } from "../../src/lab/patience.js";

/** As src/datapath/datapath.ts has them. */
const RETRY_MS = 50;
const GUARD_MS = 25;
const TRIES = 5;

/** How many packets of a series are samples: one per retry interval at most. */
export function countSamples(isSample: () => boolean): number {
	const began = performance.now();
	const count = Array.from({ length: 10 * PATIENCE }, isSample).filter((is) => is).length;
	const intervals = Math.floor((performance.now() - began) / RETRY_MS);
	assert.ok(count <= intervals, "the packets in between are fast");
	return count;
}

/** Until what was learned before is not guarded against any more. */
export function guardTime(): Promise<unknown> {
	return setTimeout(GUARD_MS + 15);
}

/** Until one direction's lesson is too old to speak for the other. */
export function retryTime(): Promise<unknown> {
	return setTimeout(RETRY_MS + 15);
}

/** Evicts what was just taught, and teaches it again at once. @returns false on a machine on which that takes too long to mean anything */
export async function teachTooEarly(teach: () => void, evict: () => void): Promise<boolean> {
	for (let tries = 0; tries < TRIES; tries++) {
		await guardTime();
		teach();
		const began = performance.now();
		evict();
		teach();
		// The kernel counts it in ticks, of which the first is a part.
		if (performance.now() - began < GUARD_MS / 2) return true;
	}
	return false;
}
