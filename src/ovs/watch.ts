// Hears of every change of a switch's flows, and of its end and return: OpenFlow's flow monitor, and the directory in which
// its sockets appear.
import { existsSync, type FSWatcher, watch } from "node:fs";
import { createInterface } from "node:readline";
import { isOwnCookie } from "./mark-flows.js";
import { findRunDir, readSwitch, type Switch, type SwitchOptions } from "./switch.js";
import { type Follower, followSwitch } from "./tool.js";

/** A burst of changes is read once, and a storm of them once in a while: reading takes several processes. */
const COALESCE_MS = 20;
const INTERVAL_MS = 1000;
/** After a switch that answers has refused to be watched, or its directory is not there yet. */
const RETRY_MS = 1000;
/** Each question to a switch that takes it and says nothing stops the agent until its limit. */
const SILENT_MS = 30_000;
/** Tables whose flows come and go with connections, which they do not decide upon. */
const LEARNED_TABLES = new Set(["SessionAffinity"]);

export interface SwitchEvents {
	/** Somebody changed its flows; what was decided by them may not hold. */
	onFlows: () => void;
	/** `state` or `problem` is another one. */
	onState: () => void;
}

export class SwitchWatch {
	readonly #options: SwitchOptions;
	readonly #events: SwitchEvents;
	#state: Switch | undefined;
	#problem: string | undefined;
	#monitor: Follower | undefined;
	#directory: FSWatcher | undefined;
	#soon: NodeJS.Timeout | undefined;
	#retry: NodeJS.Timeout | undefined;
	#isOver = false;
	#changes = 0;
	#readAt = Number.NEGATIVE_INFINITY;

	constructor(options: SwitchOptions, events: SwitchEvents, signal: AbortSignal) {
		this.#options = options;
		this.#events = events;
		signal.addEventListener("abort", () => this.#end(), { once: true });
		this.#read();
	}

	/** As it was last read; still so while there is a `problem`. */
	get state(): Switch | undefined {
		return this.#state;
	}

	/** Why nothing is known of a switch that there seems to be, or why its changes are not heard of. */
	get problem(): string | undefined {
		return this.#problem;
	}

	/** Counts what may have changed its flows. */
	get changes(): number {
		return this.#changes;
	}

	/** Where nothing is known of a switch yet, nothing tells that one has come either. Cheap where there is none. */
	lookForOne(): void {
		const mayAsk = this.#problem === undefined || performance.now() - this.#readAt > SILENT_MS;
		if (!this.#isOver && !this.#state && mayAsk) this.#read();
	}

	#read(): void {
		const before = JSON.stringify([this.#state, this.#problem]);
		this.#readAt = performance.now();
		try {
			this.#state = remembering(readSwitch(this.#options), this.#state);
			this.#problem = undefined;
		} catch (error) {
			// One that begins anew: its kernel module works on meanwhile as it was told.
			this.#problem = (error as Error).message;
		}
		this.#follow();
		if (JSON.stringify([this.#state, this.#problem]) !== before) this.#events.onState();
	}

	#readSoon(): void {
		if (this.#isOver) return;
		const delayMs = Math.max(COALESCE_MS, this.#readAt + INTERVAL_MS - performance.now());
		this.#soon ??= setTimeout(() => {
			this.#soon = undefined;
			this.#read();
		}, delayMs);
	}

	#follow(): void {
		if (this.#isOver) return;
		this.#followDirectory();
		if (this.#monitor || !this.#state?.bridge) return;
		const { runDir, bridge } = this.#state;
		const monitor = followSwitch("ovs-ofctl", ["--names", "monitor", bridge, "watch:!initial,!actions"], runDir);
		this.#monitor = monitor;
		createInterface({ input: monitor.stderr }).on("line", (line) => this.#hear(line));
		monitor.on("error", () => {}); // "close" follows
		monitor.on("close", () => {
			if (this.#monitor === monitor) this.#monitor = undefined;
			if (this.#isOver) return;
			// The switch has ended, and with it perhaps its flows.
			this.#changes++;
			this.#events.onFlows();
			this.#retry ??= setTimeout(() => {
				this.#retry = undefined;
				this.#read();
			}, RETRY_MS);
		});
	}

	#hear(line: string): void {
		const [, event, table, cookie = ""] = /^ event=(\w+)(?:.*? table=(\w+))?(?:.*? cookie=(\w+))?/.exec(line) ?? [];
		if (event === undefined || event === "ABBREV" || (event === "ADDED" && isOwnCookie(cookie))) return;
		if (table !== undefined && LEARNED_TABLES.has(table)) return;
		this.#changes++;
		if (isOwnCookie(cookie)) this.#events.onState();
		else {
			this.#events.onFlows();
			this.#readSoon();
		}
	}

	/** A switch that starts makes its sockets there. */
	#followDirectory(): void {
		const dir = findRunDir(this.#options);
		if (this.#directory || dir === undefined || !existsSync(dir)) return;
		this.#directory = watch(dir, (_, name) => {
			if (name === null || /\.(mgmt|sock)$/.test(name)) this.#readSoon();
		});
		this.#directory.on("error", () => {
			this.#directory?.close();
			this.#directory = undefined;
		});
	}

	#end(): void {
		this.#isOver = true;
		clearTimeout(this.#soon);
		clearTimeout(this.#retry);
		this.#directory?.close();
		this.#monitor?.kill("SIGTERM");
	}
}

/** While a controller replaces all flows, what they say is not there for a moment. */
function remembering(now: Switch | undefined, before: Switch | undefined): Switch | undefined {
	if (!now || now.bridge !== before?.bridge || now.runDir !== before.runDir) return now;
	return {
		...now,
		zones: { ipv4: now.zones.ipv4 ?? before.zones.ipv4, ipv6: now.zones.ipv6 ?? before.zones.ipv6 },
		table: now.table ?? before.table,
		remotes: now.remotes.length > 0 ? now.remotes : before.remotes,
	};
}
