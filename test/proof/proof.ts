// What a proof is: something that tries hard to break a promise, repeatable by its seed, of any size, and says in figures what it saw.
import assert from "node:assert/strict";
import { test } from "node:test";

export interface ProofOptions {
	/** The same seed does the same again. */
	seed: number;
	/** How much of the proof's unit. */
	amount: number;
	signal: AbortSignal;
	/** What is going on, for one line. */
	progress: (text: string) => void;
}

export interface ProofResult {
	/** What was seen, by name with unit, in the order to be shown. */
	figures: Record<string, number | string>;
	/** What is too long for a figure, by its name: only in the raw data. */
	details?: Record<string, readonly string[]>;
	/** Every way in which a promise was broken, one line each; a proof may stop after some. */
	failures: string[];
}

export interface Proof {
	/** As on the command line. */
	name: string;
	/** What it proves, in one sentence. */
	claim: string;
	/** What `amount` counts: "packets", "seconds" ... */
	unit: string;
	/** Amounts of `npm test` and of the published figures. */
	small: number;
	full: number;
	run(options: ProofOptions): Promise<ProofResult>;
}

/** Numbers in [0, 1) that depend on nothing but the seed (mulberry32). */
export function random(seed: number): () => number {
	let state = seed >>> 0;
	return () => {
		state = (state + 0x6d2b79f5) >>> 0;
		let x = Math.imul(state ^ (state >>> 15), state | 1);
		x ^= x + Math.imul(x ^ (x >>> 7), x | 61);
		return ((x ^ (x >>> 14)) >>> 0) / 4294967296;
	};
}

/** The proof in its small size, as a test. */
export function testProof(proof: Proof, seed = 1): void {
	test(`${proof.name}: ${proof.claim} (${proof.small} ${proof.unit})`, async (t) => {
		const { figures, failures } = await proof.run({ seed, amount: proof.small, signal: t.signal, progress: () => {} });
		t.diagnostic(JSON.stringify(figures));
		assert.deepEqual(failures, []);
	});
}
