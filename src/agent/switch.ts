// What a host's Open vSwitch must have before anything of it is accelerated: zones that can be asked about, or in dscp
// mode ONCache's flows, which come back when somebody has removed them.
import type { Logger } from "pino";
import type { Feature } from "../datapath/features.js";
import type { MarkMode } from "../datapath/types.js";
import { Rtnetlink } from "../kernel/rtnetlink.js";
import { findTunnels } from "../kernel/topology.js";
import { hasMarkFlows, installMarkFlows, removeMarkFlows } from "../ovs/mark-flows.js";
import { readSwitch, type Switch, type SwitchOptions } from "../ovs/switch.js";
import type { SwitchWatch } from "../ovs/watch.js";
import type { Config } from "./config.js";
import { takeSnapshot } from "./snapshot.js";

/** Flows that nobody reports as removed are looked at again after this. */
const AUDIT_MS = 30_000;

export function switchOptionsOf(config: Config): SwitchOptions {
	const { ovsRunDir: runDir, ovsBridge: bridge, ovsTable: table, ovsZone: zone, ovsZone6: zone6 } = config;
	return { runDir, bridge, table, zone, zone6 };
}

/** Whether a switch is here that has its flows in a zone of connection tracking other than 0. */
export function needsZones(options: SwitchOptions): boolean {
	const rtnetlink = Rtnetlink.open();
	try {
		return findTunnels(takeSnapshot(rtnetlink, tryReadSwitch(options))).some(
			({ flowBased }) => flowBased?.zones.ipv4 || flowBased?.zones.ipv6,
		);
	} finally {
		rtnetlink.close();
	}
}

/** What is known of the host's switch; undefined: nothing, or there is none. */
export function tryReadSwitch(options: SwitchOptions): Switch | undefined {
	try {
		return readSwitch(options);
	} catch {
		return undefined; // status tells what is the matter
	}
}

export class SwitchGuard {
	readonly #watch: SwitchWatch;
	readonly #markMode: MarkMode;
	readonly #zones: Feature;
	readonly #log: Logger;
	/** When its flows were last seen to be right, and what the watch had heard until then. */
	#checked: { changes: number; at: number } | undefined;

	constructor(watch: SwitchWatch, ways: { markMode: MarkMode; zones: Feature }, log: Logger) {
		this.#watch = watch;
		this.#markMode = ways.markMode;
		this.#zones = ways.zones;
		this.#log = log;
	}

	/** @returns why nothing of the switch may be accelerated; undefined when it may */
	prepare(): string | undefined {
		const { state, changes } = this.#watch;
		const { ipv4, ipv6 } = state?.zones ?? {};
		const isInZones = ipv4 !== 0 || (ipv6 ?? 0) !== 0;
		if (this.#markMode === "metadata" && !this.#zones.ok && isInZones)
			return `${this.#zones.why}: start the agent anew`;
		const isFresh = this.#checked?.changes === changes && performance.now() - this.#checked.at < AUDIT_MS;
		if (state && isFresh) return undefined;
		try {
			if (this.#markMode === "dscp") this.#install(state);
			else if (state && !this.#checked && removeMarkFlows(state))
				this.#log.info({ bridge: state.bridge }, "flows of an earlier dscp mode removed");
		} catch (error) {
			// In metadata mode nothing of it is needed, and the watch tells what is the matter.
			if (this.#markMode === "dscp") return (error as Error).message;
		}
		if (state) this.#checked = { changes, at: performance.now() };
		return undefined;
	}

	#install(state: Switch | undefined): void {
		if (!state)
			throw new Error(
				this.#watch.problem ??
					"dscp mode needs flows of ONCache in the switch, and no Open vSwitch answers here: set ovsRunDir",
			);
		const { bridge, table } = state;
		if (table === undefined)
			throw new Error(
				`dscp mode needs flows of ONCache in the bridge "${bridge}", which is not one of Antrea: set ovsTable`,
			);
		const place = { ...state, table };
		if (hasMarkFlows(place)) return;
		installMarkFlows(place);
		this.#log.info({ bridge, table }, "flows of dscp mode installed");
	}
}
