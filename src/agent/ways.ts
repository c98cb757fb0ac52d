// How to attach and how to mark: what the configuration leaves open is decided by what the kernel can do. Pure.
import type { Features } from "../datapath/features.js";
import type { AttachKind, MarkMode } from "../datapath/types.js";

export interface Ways {
	attach: AttachKind;
	markMode: MarkMode;
}

export function chooseWays(
	wanted: { attach: "auto" | AttachKind; markMode: "auto" | MarkMode },
	{ tcx, kfunc }: Pick<Features, "tcx" | "kfunc">,
): Ways {
	return {
		attach: wanted.attach === "auto" ? (tcx.ok ? "tcx" : "clsact") : wanted.attach,
		markMode: wanted.markMode === "auto" ? (kfunc.ok ? "metadata" : "dscp") : wanted.markMode,
	};
}
