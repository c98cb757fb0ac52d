// Takes everything of ONCache out of this network namespace, whatever state it is in.
import { Datapath, destroy } from "../datapath/datapath.js";
import { hasMarkRule, removeMarkRule } from "../kernel/nft.js";
import { readSysctl, writeSysctl } from "../kernel/sysctl.js";

export const TCP_BE_LIBERAL = "net/netfilter/nf_conntrack_tcp_be_liberal";

/** @returns what was removed or restored, one line each; empty when there was nothing */
export function detachAll(bpffs: string): string[] {
	const done: string[] = [];
	const datapath = Datapath.openPinned(bpffs);
	const saved = datapath?.savedTcpBeLiberal;
	datapath?.close();
	done.push(...destroy(bpffs));
	if (saved !== undefined && readSysctl(TCP_BE_LIBERAL) !== undefined) {
		writeSysctl(TCP_BE_LIBERAL, saved);
		done.push(`sysctl ${TCP_BE_LIBERAL} is ${saved} again`);
	}
	if (markRuleIsThere()) {
		removeMarkRule();
		done.push("nftables table ip oncache");
	}
	return done;
}

/** Without nft there cannot be a rule of ours. */
function markRuleIsThere(): boolean {
	try {
		return hasMarkRule();
	} catch {
		return false;
	}
}
