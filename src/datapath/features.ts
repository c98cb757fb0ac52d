// What this kernel can do, found out by trying.
import { existsSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { loadConntrack } from "../kernel/conntrack.js";
import { BpfError } from "./error.js";
import { check, checkPointer, libbpf, loadObject, openObject } from "./libbpf.js";
import { runProgram } from "./testrun.js";

export interface Feature {
	ok: boolean;
	/** Why not, and what to do or what follows; empty when it is there. */
	why: string;
}

export interface Features {
	btf: Feature;
	jit: Feature;
	/** bpf_skb_ct_lookup (Linux 5.18, with nf_conntrack, which is loaded for it). */
	kfunc: Feature;
	/** bpf_skb_ct_lookup in other zones than 0 (Linux 6.11). */
	zones: Feature;
	/** tcx links (Linux 6.6). */
	tcx: Feature;
	/** bpf_redirect_peer (Linux 5.10). */
	redirectPeer: Feature;
}

const PROBES = fileURLToPath(new URL("../../../bpf/", import.meta.url));
const NO_SUCH_DEVICE = 0x7fffffff;
const BPF_TCX_INGRESS = 46;
const ENODEV = 19;
const EINVAL = 22;
const YES: Feature = { ok: true, why: "" };

export function probeFeatures(): Features {
	return {
		btf: probeBtf(),
		jit: probeJit(),
		kfunc: probeKfunc(),
		zones: probeZones(),
		tcx: probeTcx(),
		redirectPeer: probePeer(),
	};
}

function probeBtf(): Feature {
	return existsSync("/sys/kernel/btf/vmlinux")
		? YES
		: { ok: false, why: "The kernel has no BTF: boot one built with CONFIG_DEBUG_INFO_BTF" };
}

function probeJit(): Feature {
	const path = "/proc/sys/net/core/bpf_jit_enable";
	// Without the file the JIT is built in for good.
	return !existsSync(path) || readFileSync(path, "utf8").trim() !== "0"
		? YES
		: { ok: false, why: "BPF programs are interpreted, several times slower: sysctl -w net.core.bpf_jit_enable=1" };
}

function probeKfunc(): Feature {
	loadConntrack();
	return loads("probe-kfunc.bpf.o")
		? YES
		: {
				ok: false,
				why: "The kernel lacks bpf_skb_ct_lookup (Linux 5.18 with nf_conntrack; if that is a module: modprobe nf_conntrack_netlink); dscp mode is used instead",
			};
}

function probeZones(): Feature {
	return withProgram("probe-zones.bpf.o", (fd) => runProgram(fd, Buffer.alloc(64)).verdict) === 1
		? YES
		: {
				ok: false,
				why: "bpf_skb_ct_lookup knows no connection tracking zones (Linux 6.11), which Open vSwitch uses: dscp mode is used instead there",
			};
}

/** A device that does not exist: a kernel that knows tcx says so, an older one does not know the attach type. */
function probeTcx(): Feature {
	const result = withProgram("probe-tcx.bpf.o", (fd) =>
		check(libbpf.linkCreate(fd, NO_SUCH_DEVICE, BPF_TCX_INGRESS, null), "Cannot probe tcx", [ENODEV, EINVAL]),
	);
	return result === -ENODEV
		? YES
		: { ok: false, why: "The kernel has no tcx links (Linux 6.6); clsact is used instead" };
}

function probePeer(): Feature {
	return loads("probe-peer.bpf.o")
		? YES
		: { ok: false, why: "The kernel has no bpf_redirect_peer: use Linux 6.1 or later" };
}

function loads(file: string): boolean {
	try {
		withProgram(file, () => undefined);
		return true;
	} catch (error) {
		if (error instanceof BpfError) return false;
		throw error;
	}
}

/** Loads an object with one program `probe`. */
function withProgram<T>(file: string, use: (fd: number) => T): T {
	const path = PROBES + file;
	const object = openObject(path, "probe");
	try {
		loadObject(object, path);
		return use(libbpf.programFd(checkPointer(libbpf.findProgram(object, "probe"), 'Cannot find program "probe"')));
	} finally {
		libbpf.objectClose(object);
	}
}
