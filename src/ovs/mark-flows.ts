// dscp mode's flows in a switch: connection tracking says "established" by a bit of the packet's own TOS byte. A packet
// that carries the miss mark gets the second bit and enters the same table again, where it meets the switch's own flows
// as it would have met them at first: nothing else about it is changed.
import { askSwitch } from "./tool.js";

/** Where the flows are. */
export interface MarkedTable {
	runDir: string;
	bridge: string;
	table: string;
}

/** ONCache's own: by it the flows are found again. Antrea counts its restarts in the upper 16 bits, from 1. */
const COOKIE = "0x6f6e636163686500";
/** Antrea's mark of a connection that passes its L7 engine, packet by packet: no other way may be learned for it. */
const NOT_INSPECTED = "ct_mark=0/0x80";
/** Before every flow of the switch. */
const PRIORITY = 65535;
/** TOS_MISS and TOS_ESTABLISHED of bpf/oncache.h, in the DSCP. */
const DSCP_MISS = 1;
const DSCP_ESTABLISHED = 2;
/** One flow for each DSCP whose mark says "miss": OpenFlow matches a DSCP only as a whole. */
const MARKED = Array.from({ length: 64 }, (_, dscp) => dscp).filter(
	(dscp) => (dscp & (DSCP_MISS | DSCP_ESTABLISHED)) === DSCP_MISS,
);

/** In place of what is there of ONCache, in one transaction. */
export function installMarkFlows({ runDir, bridge, table }: MarkedTable): void {
	const flows = MARKED.map(
		(dscp) =>
			`add cookie=${COOKIE},table=${table},priority=${PRIORITY},ct_state=+est+trk-new-inv,${NOT_INSPECTED},ip,ip_dscp=${dscp} ` +
			`actions=mod_nw_tos:${(dscp | DSCP_ESTABLISHED) << 2},resubmit(,${table})`,
	);
	askSwitch("ovs-ofctl", ["--names", "-O", "OpenFlow14,OpenFlow15", "--bundle", "add-flows", bridge, "-"], {
		runDir,
		input: `delete cookie=${COOKIE}/-1\n${flows.join("\n")}\n`,
	});
}

/** Whether they are there whole: a controller may have deleted all flows, or the switch have begun anew. */
export function hasMarkFlows({ runDir, bridge, table }: MarkedTable): boolean {
	const all = askSwitch("ovs-ofctl", ["--no-stats", "dump-flows", bridge, `cookie=${COOKIE}/-1,table=${table}`], {
		runDir,
	});
	return all.split("\n").filter((line) => line.includes(COOKIE)).length === MARKED.length;
}

/** From every table of the bridge. @returns whether there were any */
export function removeMarkFlows({ runDir, bridge }: Omit<MarkedTable, "table">): boolean {
	const all = askSwitch("ovs-ofctl", ["--no-stats", "dump-flows", bridge, `cookie=${COOKIE}/-1`], { runDir });
	if (!all.includes(COOKIE)) return false;
	askSwitch("ovs-ofctl", ["del-flows", bridge, `cookie=${COOKIE}/-1`], { runDir });
	return true;
}

export const isOwnCookie = (cookie: string): boolean => cookie === COOKIE;
