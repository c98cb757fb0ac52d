// From what the kernel tells to what is looked at again or evicted. A cluster API may only make it faster.
import { existsSync, mkdirSync, watch } from "node:fs";
import type { Logger } from "pino";
import type { Datapath } from "../datapath/datapath.js";
import { type Change, watchConntrack, watchNetwork, watchRuleset } from "../kernel/monitor.js";
import { watchXtablesLock } from "../kernel/xtables-lock.js";
import type { Reconciler } from "./reconciler.js";

/**
 * Between two evictions of everything. Each keeps the flows off the fast path for the guard time and a packet or two; a
 * ruleset that is rewritten all the time shall leave something of it.
 */
const FLUSH_INTERVAL_MS = 50;

export interface Invalidation {
	/** Evictions of everything so far. */
	readonly flushes: number;
	/** Times that the kernel dropped notifications. */
	readonly overruns: number;
	/** What this kernel does not tell, one sentence each: bounded staleness covers it. */
	readonly problems: readonly string[];
	/** For what is heard of elsewhere. */
	onChange(changes: ReadonlySet<Change>): void;
}

/** Until `signal`. */
export function watchKernel(options: {
	datapath: Datapath;
	reconciler: Reconciler;
	log: Logger;
	signal: AbortSignal;
}): Invalidation {
	const { datapath, reconciler, log, signal } = options;
	const state = { flushes: 0, overruns: 0, problems: [] as string[] };
	let again: NodeJS.Timeout | undefined;
	let isDue = false;
	const flushAll = (): void => {
		if (again) {
			isDue = true;
			return;
		}
		datapath.flushAll();
		state.flushes++;
		again = setTimeout(() => {
			again = undefined;
			if (isDue) flushAll();
			isDue = false;
		}, FLUSH_INTERVAL_MS);
	};
	const onChange = (changes: ReadonlySet<Change>): void => {
		const has = (...kinds: Change[]): boolean => kinds.some((kind) => changes.has(kind));
		if (has("overrun")) {
			state.overruns++;
			log.warn("the kernel dropped notifications: everything is looked at and judged again");
		}
		if (has("overrun", "ruleset", "conntrack")) flushAll();
		const flows = has("overrun", "route", "neighbour");
		if (has("overrun", "link", "address", "tc")) reconciler.trigger("devices", { strict: true, flows });
		else if (has("route")) reconciler.trigger("devices", { flows });
		if (has("neighbour")) reconciler.trigger("caches", { strict: true, flows });
	};
	watchPins(datapath.bpffs, signal, () => reconciler.trigger("audit", { flows: true }));
	const hear = (what: string, watch: () => void): void => {
		try {
			watch();
		} catch (error) {
			state.problems.push(
				`${what} will only be noticed after ${datapath.maxStalenessMs} ms: ${(error as Error).message}`,
			);
			log.warn({ what, error: String(error) }, "cannot hear of it");
		}
	};
	watchNetwork({ signal, onChange });
	hear("Changes of the nftables ruleset", () => watchRuleset({ signal, onChange }));
	hear("Ends of connection tracking entries", () =>
		watchConntrack({ signal, onChange, filterFd: datapath.programFd("forget") }),
	);
	hear("Changes by the old iptables", () => watchXtablesLock({ signal, onChange }));
	signal.addEventListener("abort", () => clearTimeout(again), { once: true });
	return Object.assign(state, { onChange });
}

/** Somebody else removes a pin: no event of the network, but one of the file system. The maps' folder is always there. */
function watchPins(bpffs: string, signal: AbortSignal, onChange: () => void): void {
	for (const folder of ["maps", "links", "filters"]) {
		const dir = `${bpffs}/${folder}`;
		mkdirSync(dir, { recursive: true, mode: 0o700 });
		watch(dir, { signal }, (_, name) => {
			if (name === null || !existsSync(`${dir}/${name}`)) onChange();
		}).on("error", () => {}); // the audit finds it all the same
	}
}
