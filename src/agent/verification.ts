// Now and then everything cached is compared with the kernel, connection tracking included: a check of the agent's own work. Off unless
// the configuration asks for it.
import { setTimeout } from "node:timers/promises";
import type { Logger } from "pino";
import type { Datapath } from "../datapath/datapath.js";
import type { CoherencyStatus } from "./api.js";
import { verify } from "./verify.js";

/** Differences that are written down; all are counted. */
const SHOWN = 10;

export type Verified = CoherencyStatus["verified"];

/** O(flows + entries of connection tracking) each time, until `signal`. What differs is evicted, with everything else. */
export function verifyEvery(options: {
	datapath: Datapath;
	/** 0: never. */
	intervalMs: number;
	log: Logger;
	signal: AbortSignal;
}): { readonly state: Verified } {
	const { datapath, intervalMs, log, signal } = options;
	const verification: { state: Verified } = { state: null };
	const look = async (): Promise<void> => {
		try {
			const { checked, differences } = await verify(datapath);
			if (signal.aborted) return;
			const { runs = 0, differences: before = 0 } = verification.state ?? {};
			verification.state = { runs: runs + 1, differences: before + differences.length };
			if (differences.length > 0) {
				datapath.flushAll();
				const first = differences.slice(0, SHOWN);
				log.error(
					{ checked, differences: differences.length, first },
					"verify: what was cached is not so; all evicted",
				);
			} else log.debug({ checked }, "verify: no difference");
		} catch (error) {
			log.warn({ error: String(error) }, "verify: cannot compare what is cached with the kernel");
		}
	};
	const repeat = async (): Promise<void> => {
		while (!signal.aborted) {
			await setTimeout(intervalMs, undefined, { signal });
			await look();
		}
	};
	if (intervalMs > 0) void repeat().catch(() => {}); // ended by the signal
	return verification;
}
