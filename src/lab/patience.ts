// How much slower than usual this machine is, where that is known: in an emulated one, every time limit is so many times longer.

/** ONCACHE_PATIENCE, 1 unless set. */
export const PATIENCE = read(process.env.ONCACHE_PATIENCE);

/** A time limit that only ends what will never come. */
export function patiently(limitMs: number): number {
	return limitMs * PATIENCE;
}

function read(text: string | undefined): number {
	if (text === undefined || text === "") return 1;
	const factor = Number(text);
	if (!(factor >= 1 && factor <= 1000))
		throw new Error(`Cannot use ONCACHE_PATIENCE "${text}": expected a number from 1 to 1000`);
	return factor;
}
