// Pauses of learning that end by themselves: each user holds one, and dies if it must.
import { randomUUID } from "node:crypto";

/** What a lease needs of the datapath. */
export interface Holder {
	holdLearning(ms: number): void;
}

export class Leases {
	readonly #holder: Holder;
	readonly #now: () => number;
	/** When each ends, ms. */
	readonly #ends = new Map<string, number>();

	constructor(holder: Holder, now: () => number = () => performance.now()) {
		this.#holder = holder;
		this.#now = now;
	}

	/** Learning is paused from now on, for this user, until release() or `ttlMs` after the last renew(). */
	acquire(ttlMs: number): string {
		const id = randomUUID();
		this.#ends.set(id, this.#now() + ttlMs);
		this.#apply();
		return id;
	}

	/** @returns false when it has ended: what was learned meanwhile was not paused */
	renew(id: string, ttlMs: number): boolean {
		this.#expire();
		if (!this.#ends.has(id)) return false;
		this.#ends.set(id, this.#now() + ttlMs);
		this.#apply();
		return true;
	}

	/** @returns false when it had ended before */
	release(id: string): boolean {
		this.#expire();
		const had = this.#ends.delete(id);
		if (had) this.#apply();
		return had;
	}

	/** Leases that hold now. */
	get count(): number {
		this.#expire();
		return this.#ends.size;
	}

	/** The programs themselves end the pause at the last lease's end: nobody has to be alive for it. */
	#apply(): void {
		this.#holder.holdLearning(Math.max(0, ...this.#ends.values()) - (this.#ends.size > 0 ? this.#now() : 0));
	}

	#expire(): void {
		const now = this.#now();
		for (const [id, end] of this.#ends) if (end <= now) this.#ends.delete(id);
	}
}
