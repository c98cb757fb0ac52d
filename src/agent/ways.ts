// How to attach and how to mark: what the configuration leaves open is decided by what the kernel can do. Pure.
import type { Features } from "../datapath/features.js";
import type { AttachKind, MarkMode } from "../datapath/types.js";

export interface Ways {
	attach: AttachKind;
	markMode: MarkMode;
}

export function chooseWays(
	wanted: { attach: "auto" | AttachKind; markMode: "auto" | MarkMode },
	{ tcx, kfunc, zones }: Pick<Features, "tcx" | "kfunc" | "zones">,
	/** A switch has connection tracking zones of its own. */
	needsZones = false,
): Ways {
	const canAsk = kfunc.ok && (zones.ok || !needsZones);
	return {
		attach: wanted.attach === "auto" ? (tcx.ok ? "tcx" : "clsact") : wanted.attach,
		markMode: wanted.markMode === "auto" ? (canAsk ? "metadata" : "dscp") : wanted.markMode,
	};
}

/** Why the kernel cannot do what was chosen, and what to do; undefined when it can. */
export function impossible(
	{ attach, markMode }: Ways,
	{ tcx, kfunc }: Pick<Features, "tcx" | "kfunc">,
): string | undefined {
	if (attach === "tcx" && !tcx.ok)
		return "Cannot attach by tcx: this kernel has no tcx links (Linux 6.6): use clsact, or auto";
	if (markMode === "metadata" && !kfunc.ok)
		return "Cannot use metadata mode: this kernel lacks bpf_skb_ct_lookup (Linux 5.18 with nf_conntrack): use dscp, or auto";
	return undefined;
}
