// How long to wait before the next attempt: longer each time, and never all nodes of a cluster at once.
import { setTimeout } from "node:timers/promises";

export interface BackoffLimits {
	firstMs: number;
	longestMs: number;
}

export class Backoff {
	readonly #limits: BackoffLimits;
	readonly #random: () => number;
	#failures = 0;

	constructor(limits: BackoffLimits, random: () => number = Math.random) {
		this.#limits = limits;
		this.#random = random;
	}

	/** It works again. */
	reset(): void {
		this.#failures = 0;
	}

	/** Of the next wait: doubled after each failure, between half and the whole of it by chance. */
	nextMs(): number {
		const { firstMs, longestMs } = this.#limits;
		const whole = Math.min(longestMs, firstMs * 2 ** Math.min(this.#failures++, 30));
		return whole * (0.5 + this.#random() / 2);
	}

	async wait(signal: AbortSignal): Promise<void> {
		await setTimeout(this.nextMs(), undefined, { signal }).catch(() => {});
	}
}
