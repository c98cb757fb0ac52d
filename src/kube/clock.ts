// A clock that all threads share and nobody sets.

/** ms, CLOCK_MONOTONIC. */
export function monotonicMs(): number {
	return Number(process.hrtime.bigint() / 1_000_000n);
}
