// Choices from a stream of random numbers.

export interface Random {
	/** 0 .. below - 1 */
	below(limit: number): number;
	chance(share: number): boolean;
	pick<T>(from: readonly T[]): T;
}

export function randomOf(next: () => number): Random {
	const below = (limit: number): number => Math.floor(next() * limit);
	return {
		below,
		chance: (share) => next() < share,
		pick: (from) => from[below(from.length)] as (typeof from)[number],
	};
}
