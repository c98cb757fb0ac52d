// Takes everything of ONCache out of this network namespace, whatever state it is in.
import { Datapath, destroy } from "../datapath/datapath.js";
import { hasMarkRule, removeMarkRule } from "../kernel/nft.js";
import { readSysctl, writeSysctl } from "../kernel/sysctl.js";
import { removeMarkFlows } from "../ovs/mark-flows.js";
import { FIND_SWITCH, readSwitch, type SwitchOptions } from "../ovs/switch.js";
import { removeLockFile } from "./lock.js";

export const TCP_BE_LIBERAL = "net/netfilter/nf_conntrack_tcp_be_liberal";

/** @returns what was removed or restored, one line each; empty when there was nothing */
export function detachAll(bpffs: string, ovs: SwitchOptions = FIND_SWITCH): string[] {
	const done: string[] = [];
	const datapath = Datapath.openPinned(bpffs);
	const saved = datapath?.savedTcpBeLiberal;
	datapath?.close();
	done.push(...destroy(bpffs));
	removeLockFile();
	if (saved !== undefined && readSysctl(TCP_BE_LIBERAL) !== undefined) {
		writeSysctl(TCP_BE_LIBERAL, saved);
		done.push(`sysctl ${TCP_BE_LIBERAL} is ${saved} again`);
	}
	if (markRuleIsThere()) {
		removeMarkRule();
		done.push("nftables table ip oncache");
	}
	const bridge = removeFlows(ovs);
	if (bridge !== undefined) done.push(`flows of ONCache in the Open vSwitch bridge ${bridge}`);
	return done;
}

/** A switch that does not answer cannot be told. @returns the bridge that had them */
function removeFlows(options: SwitchOptions): string | undefined {
	try {
		const own = readSwitch(options);
		return own && removeMarkFlows(own) ? own.bridge : undefined;
	} catch {
		return undefined;
	}
}

/** Without nft there cannot be a rule of ours. */
function markRuleIsThere(): boolean {
	try {
		return hasMarkRule();
	} catch {
		return false;
	}
}
