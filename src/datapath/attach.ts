// Puts the programs on their hooks and takes them off: tcx links at the head of the chain, or clsact filters with a
// handle and priority of our own. Pins keep both running without the agent, and tell a later agent what is its own.
import { closeSync, mkdirSync } from "node:fs";
import type { Filter } from "../kernel/link.js";
import { Rtnetlink } from "../kernel/rtnetlink.js";
import { addressOf, bpfSyscall, check, libbpf, objectInfo } from "./libbpf.js";
import { openPin } from "./map.js";
import { filterPin, type Hook, linkPin, pinnedHooks, pinnedQdiscs, qdiscPin, unpin } from "./pins.js";
import { type AttachKind, type Attachment, HOOKS, type HookDirection, type ProgramName } from "./types.js";

/** include/uapi/linux/bpf.h: BPF_TCX_INGRESS, BPF_TCX_EGRESS. */
const TCX = { ingress: 46, egress: 47 } as const;
const BPF_F_BEFORE = 8;
const LINK_OPTIONS_BYTES = 72;
const BPF_PROG_QUERY = 16;
const BPF_LINK_TYPE_TCX = 11;

/** tools/lib/bpf/libbpf.h: BPF_TC_INGRESS, BPF_TC_EGRESS, both. */
const TC = { ingress: 1, egress: 2 } as const;
const TC_BOTH = 3;
const TC_REPLACE = 1;
/** Ours: low enough to run before most, and not what anybody else uses. */
const FILTER_HANDLE = 0x0cac;
const FILTER_PRIORITY = 0x0ca0;
/** include/uapi/linux/pkt_sched.h: TC_H_CLSACT with TC_H_MIN_INGRESS, TC_H_MIN_EGRESS. */
export const CLSACT_PARENT = { ingress: 0xfffffff2, egress: 0xfffffff3 } as const;

const [EPERM, EEXIST, ENODEV, ENOENT, EINVAL, ENOLINK] = [1, 17, 19, 2, 22, 67];
const TC_HOOK_BYTES = 24;
const TC_OPTIONS_BYTES = 32;

/** What our pins say is attached, and whether the device is still there. `program` is undefined when it cannot be told. */
export type Attached = Omit<Attachment, "program"> & { program: ProgramName | undefined; gone: boolean };

export class Attacher {
	readonly #bpffs: string;
	/** By program id: naming somebody else's needs CAP_SYS_ADMIN. */
	readonly #names = new Map<number, ProgramName>();

	constructor(bpffs: string) {
		this.#bpffs = bpffs;
	}

	/** Attaches or atomically replaces; what is attached in the other way is removed afterwards, so there is no gap. */
	attach(hook: Hook, program: { name: ProgramName; fd: number }, kind: AttachKind): void {
		const programFd = program.fd;
		this.#names.set(programId(programFd), program.name);
		if (kind === "tcx") {
			this.#attachLink(hook, programFd);
			this.#detachFilter(hook);
		} else {
			this.#attachFilter(hook, programFd);
			this.#detachLink(hook);
		}
	}

	/** @returns whether something of ours was there, or a trace of it */
	detach(hook: Hook): boolean {
		return [this.#detachLink(hook), this.#detachFilter(hook)].includes(true);
	}

	/** Everything of ours, as the kernel has it now. */
	attachments(): Attached[] {
		const links = pinnedHooks(this.#bpffs, "links").map((hook) => ({
			hook,
			kind: "tcx" as const,
			programId: this.#linkedProgram(hook),
		}));
		const filters = pinnedHooks(this.#bpffs, "filters").map((hook) => ({
			hook,
			kind: "clsact" as const,
			programId: filteredProgram(hook),
		}));
		return [...links, ...filters].map(({ hook, kind, programId: id }) => ({
			...hook,
			kind,
			program: id === undefined ? undefined : (this.#names.get(id) ?? (programName(id) as ProgramName | undefined)),
			gone: id === undefined,
		}));
	}

	#attachLink(hook: Hook, programFd: number): void {
		const where = `the tcx ${hook.direction} hook of interface ${hook.ifindex}`;
		const path = linkPin(this.#bpffs, hook);
		const old = openPin(path);
		if (old !== undefined) {
			try {
				if (linkInfo(old).ifindex === hook.ifindex) {
					const result = check(libbpf.linkUpdate(old, programFd, null), `Cannot replace the program on ${where}`, [
						ENOLINK,
					]);
					if (result >= 0) return;
				}
			} finally {
				closeSync(old);
			}
			unpin(path);
		}
		mkdirSync(`${this.#bpffs}/links`, { recursive: true, mode: 0o700 });
		// First in the chain: a verdict of a program before ours would hide the packet.
		const options = Buffer.alloc(LINK_OPTIONS_BYTES);
		options.writeBigUInt64LE(BigInt(LINK_OPTIONS_BYTES), 0);
		options.writeUInt32LE(BPF_F_BEFORE, 8);
		const link = check(
			libbpf.linkCreate(programFd, hook.ifindex, TCX[hook.direction], options),
			`Cannot attach to ${where}`,
		);
		try {
			check(libbpf.objPin(link, path), `Cannot pin the link "${path}"`);
		} finally {
			closeSync(link);
		}
	}

	#detachLink(hook: Hook): boolean {
		const path = linkPin(this.#bpffs, hook);
		const link = openPin(path);
		if (link === undefined) return false;
		try {
			check(libbpf.linkDetach(link), `Cannot detach the link "${path}"`, [ENOLINK, EINVAL]);
		} finally {
			closeSync(link);
		}
		return unpin(path);
	}

	/** Its id; undefined when the device or the link's attachment is gone. */
	#linkedProgram(hook: Hook): number | undefined {
		const link = openPin(linkPin(this.#bpffs, hook));
		if (link === undefined) return undefined;
		try {
			const info = linkInfo(link);
			return info.ifindex === hook.ifindex ? info.program : undefined;
		} finally {
			closeSync(link);
		}
	}

	#attachFilter(hook: Hook, programFd: number): void {
		const where = `the clsact ${hook.direction} hook of interface ${hook.ifindex}`;
		mkdirSync(`${this.#bpffs}/filters`, { recursive: true, mode: 0o700 });
		const created = check(
			libbpf.tcHookCreate({ sz: TC_HOOK_BYTES, ifindex: hook.ifindex, attach_point: TC_BOTH }),
			`Cannot create the clsact qdisc of interface ${hook.ifindex}`,
			[EEXIST],
		);
		if (created >= 0) this.#record(programFd, qdiscPin(this.#bpffs, hook.ifindex));
		const options = {
			sz: TC_OPTIONS_BYTES,
			prog_fd: programFd,
			flags: TC_REPLACE,
			handle: FILTER_HANDLE,
			priority: FILTER_PRIORITY,
		};
		check(libbpf.tcAttach(tcHook(hook), options), `Cannot attach to ${where}`);
		this.#record(programFd, filterPin(this.#bpffs, hook));
	}

	#record(programFd: number, path: string): void {
		unpin(path);
		check(libbpf.objPin(programFd, path), `Cannot pin the program "${path}"`);
	}

	#detachFilter(hook: Hook): boolean {
		if (!unpin(filterPin(this.#bpffs, hook))) return false;
		const options = { sz: TC_OPTIONS_BYTES, handle: FILTER_HANDLE, priority: FILTER_PRIORITY };
		check(
			libbpf.tcDetach(tcHook(hook), options),
			`Cannot detach from the clsact ${hook.direction} hook of interface ${hook.ifindex}`,
			[ENOENT, EINVAL, ENODEV],
		);
		this.#removeQdisc(hook.ifindex);
		return true;
	}

	/** The clsact qdisc goes when ONCache made it and nobody uses it any more. */
	#removeQdisc(ifindex: number): void {
		const ours = pinnedQdiscs(this.#bpffs).includes(ifindex);
		const inUse = pinnedHooks(this.#bpffs, "filters").some((hook) => hook.ifindex === ifindex);
		if (!ours || inUse) return;
		if (foreignFilters(ifindex).length === 0)
			check(
				// Both attach points: the whole qdisc.
				libbpf.tcHookDestroy({ sz: TC_HOOK_BYTES, ifindex, attach_point: TC_BOTH }),
				`Cannot remove the clsact qdisc of interface ${ifindex}`,
				[ENOENT, EINVAL, ENODEV],
			);
		unpin(qdiscPin(this.#bpffs, ifindex));
	}
}

function tcHook(hook: Hook): object {
	return { sz: TC_HOOK_BYTES, ifindex: hook.ifindex, attach_point: TC[hook.direction] };
}

/** The id of our filter's program on this hook; undefined when it is not there any more. */
function filteredProgram(hook: Hook): number | undefined {
	const options = { sz: TC_OPTIONS_BYTES, handle: FILTER_HANDLE, priority: FILTER_PRIORITY, prog_id: 0 };
	const result = check(libbpf.tcQuery(tcHook(hook), options), `Cannot ask about interface ${hook.ifindex}`, [
		ENOENT,
		EINVAL,
		ENODEV,
	]);
	return result < 0 ? undefined : options.prog_id;
}

function foreignFilters(ifindex: number): Filter[] {
	const rtnetlink = Rtnetlink.open();
	try {
		return [CLSACT_PARENT.ingress, CLSACT_PARENT.egress]
			.flatMap((parent) => rtnetlink.filters(ifindex, parent))
			.filter((filter) => !isOwnFilter(filter));
	} finally {
		rtnetlink.close();
	}
}

export function isOwnFilter({ priority, handle }: Filter): boolean {
	return priority === FILTER_PRIORITY && handle === FILTER_HANDLE;
}

/** bpf_link_info of a tcx link; the device of a link whose device is gone is 0. */
function linkInfo(link: number): { program: number; ifindex: number } {
	const info = objectInfo(link, 64, "Cannot ask about a link");
	return {
		program: info.readUInt32LE(8),
		ifindex: info.readUInt32LE(0) === BPF_LINK_TYPE_TCX ? info.readUInt32LE(16) : 0,
	};
}

/** Undefined: it is gone, or this process may not know (CAP_SYS_ADMIN). */
export function programName(id: number): string | undefined {
	const fd = check(libbpf.progById(id), `Cannot open program ${id}`, [ENOENT, EPERM]);
	if (fd < 0) return undefined;
	try {
		// bpf_prog_info: name at byte 64, 16 bytes.
		const info = objectInfo(fd, 80, `Cannot ask about program ${id}`);
		return info.toString("latin1", 64, info.indexOf(0, 64));
	} finally {
		closeSync(fd);
	}
}

/** bpf_prog_info: id at byte 4. */
function programId(fd: number): number {
	return objectInfo(fd, 8, "Cannot ask about a program").readUInt32LE(4);
}

/** Names of the tcx programs on a hook that are not in `own`, first to last. Empty on kernels without tcx. */
export function foreignTcxPrograms(ifindex: number, direction: HookDirection, own: readonly string[]): string[] {
	return tcxPrograms(ifindex, direction)
		.map((id) => programName(id) ?? "?")
		.filter((name) => !own.includes(name));
}

/** Programs on a device that have the names of ours, but are not pinned below `bpffs`. */
export function foreignOncache(bpffs: string, ifindex: number): string[] {
	const names: readonly string[] = [...Object.values(HOOKS.veth), ...Object.values(HOOKS.uplink)];
	return (["ingress", "egress"] as const).flatMap((direction) => {
		const link = openPin(linkPin(bpffs, { ifindex, direction }));
		const own = link === undefined ? undefined : linkInfo(link).program;
		if (link !== undefined) closeSync(link);
		return tcxPrograms(ifindex, direction)
			.filter((id) => id !== own)
			.map((id) => programName(id) ?? "?")
			.filter((name) => names.includes(name));
	});
}

/** Ids, first to last. */
function tcxPrograms(ifindex: number, direction: HookDirection): number[] {
	const ids = Buffer.alloc(4 * 64);
	const attributes = Buffer.alloc(72);
	attributes.writeUInt32LE(ifindex, 0);
	attributes.writeUInt32LE(TCX[direction], 4);
	attributes.writeBigUInt64LE(addressOf(ids), 16);
	attributes.writeUInt32LE(64, 24);
	if (bpfSyscall(BPF_PROG_QUERY, attributes) < 0) return [];
	const count = attributes.readUInt32LE(24);
	return Array.from({ length: count }, (_, i) => ids.readUInt32LE(4 * i));
}
