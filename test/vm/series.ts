// Which kernels are tried, and where Debian has them.

export interface Series {
	/** As --kernel names it. */
	name: string;
	/** Of the version without what Debian adds to it. */
	version: RegExp;
	/** Debian suites that have, or had, it; the first that does is taken. */
	suites: readonly string[];
	/** What is special about it here. */
	why: string;
}

export const ALL_SERIES: readonly Series[] = [
	{ name: "6.1", version: /^6\.1\./, suites: ["bookworm"], why: "the oldest supported; no tcx, older kfunc" },
	{ name: "6.12", version: /^6\.12\./, suites: ["trixie", "bookworm-backports"], why: "the stable one" },
	{ name: "7.x", version: /^7\.\d+/, suites: ["sid"], why: "what is coming" },
];

/** @throws Error that names the choice */
export function seriesNamed(name: string): Series {
	const found = ALL_SERIES.find((series) => series.name === name);
	if (found) return found;
	const names = ALL_SERIES.map((series) => series.name).join(", ");
	throw new Error(`Unknown kernel series "${name}": choose from ${names}`);
}
