// What a handful of repeated measurements says: middle, spread, and ratios between rounds. Pure.

export interface Summary {
	median: number;
	/** First and third quartile. */
	lower: number;
	upper: number;
	min: number;
	max: number;
	/** Distance of the quartiles as a share of the median. */
	spread: number;
}

/** @throws RangeError when there are no values */
export function summarise(values: readonly number[]): Summary {
	const sorted = ascending(values);
	const [median, lower, upper] = [0.5, 0.25, 0.75].map((share) => quantile(sorted, share)) as [number, number, number];
	const [min, max] = [quantile(sorted, 0), quantile(sorted, 1)];
	return { median, lower, upper, min, max, spread: (upper - lower) / median };
}

export function median(values: readonly number[]): number {
	return quantile(ascending(values), 0.5);
}

/** Between two values it is interpolated linearly. */
function quantile(sorted: readonly number[], share: number): number {
	if (sorted.length === 0) throw new RangeError("Cannot summarise measurements: there are none");
	const at = share * (sorted.length - 1);
	const below = sorted[Math.floor(at)] as number;
	const above = sorted[Math.ceil(at)] as number;
	return below + (above - below) * (at - Math.floor(at));
}

function ascending(values: readonly number[]): number[] {
	return [...values].sort((a, b) => a - b);
}

export interface Interval {
	low: number;
	high: number;
	/** Probability that it holds the true median: 0.95 or more, less when there are fewer than six values. */
	confidence: number;
}

/**
 * The narrowest pair of order statistics around the median with 95 % confidence. It assumes nothing about how the
 * values are distributed: each is below the true median with probability 1/2.
 */
export function medianInterval(values: readonly number[]): Interval {
	const sorted = ascending(values);
	const n = sorted.length;
	// Values outside on one side, with the probability that the true median is there too.
	let outside = 0;
	let tail = binomial(n, 0) / 2 ** n;
	for (let next = tail; outside < Math.floor((n - 1) / 2); ) {
		next += binomial(n, outside + 1) / 2 ** n;
		if (next > 0.025) break;
		tail = next;
		outside += 1;
	}
	return { low: quantile(sorted.slice(outside), 0), high: sorted[n - 1 - outside] as number, confidence: 1 - 2 * tail };
}

function binomial(n: number, k: number): number {
	let result = 1;
	for (let i = 1; i <= k; i++) result = (result * (n - k + i)) / i;
	return result;
}

export interface Ratio extends Interval {
	/** Of the rounds' ratios: what drifts during the run hits both sides of a round alike. */
	median: number;
	/** Of the two medians. */
	ofMedians: number;
	rounds: number[];
}

/** `values` to `base`, where the i-th of each were measured in the same round. */
export function pairedRatio(values: readonly number[], base: readonly number[]): Ratio {
	if (values.length !== base.length)
		throw new RangeError(`Cannot pair ${values.length} with ${base.length} measurements: rounds differ`);
	const rounds = values.map((value, round) => value / (base[round] as number));
	return { median: median(rounds), ...medianInterval(rounds), ofMedians: median(values) / median(base), rounds };
}
