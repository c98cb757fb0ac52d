// How often the kernel ran a process's programs, and how long: what it counts while somebody holds the statistics open.
import { closeSync, readdirSync, readFileSync } from "node:fs";
import { programName } from "./attach.js";
import { bpfSyscall, check } from "./libbpf.js";

/** include/uapi/linux/bpf.h; type BPF_STATS_RUN_TIME is 0. */
const BPF_ENABLE_STATS = 32;
const ATTRIBUTES_BYTES = 4;

/** As kernel.bpf_stats_enabled=1, but ends with the descriptor, so that no crash leaves it on. Costs each run about 50 ns. */
export function openRunTimeStats(): { close(): void } {
	const fd = check(bpfSyscall(BPF_ENABLE_STATS, Buffer.alloc(ATTRIBUTES_BYTES)), "Cannot enable BPF statistics");
	return { close: () => closeSync(fd) };
}

export interface ProgramRuns {
	name: string;
	runs: number;
	ns: number;
}

/** Of the programs that a process has open. */
export function programRuns(pid: number): ProgramRuns[] {
	const dir = `/proc/${pid}/fdinfo`;
	const programs = new Map<number, Omit<ProgramRuns, "name">>();
	for (const fd of readdirSync(dir)) {
		const info = parseFdinfo(readIfThere(`${dir}/${fd}`));
		if (info !== undefined) programs.set(info.id, { runs: info.runs, ns: info.ns });
	}
	return [...programs].map(([id, counts]) => ({ name: programName(id) ?? "?", ...counts }));
}

function readIfThere(path: string): string {
	try {
		return readFileSync(path, "utf8");
	} catch {
		return ""; // closed meanwhile
	}
}

/** Of a program's descriptor; undefined of any other (kernel/bpf/syscall.c: bpf_prog_show_fdinfo). */
export function parseFdinfo(text: string): { id: number; runs: number; ns: number } | undefined {
	const field = (name: string): number => Number(new RegExp(`^${name}:\\s*(\\d+)$`, "m").exec(text)?.[1]);
	const info = { id: field("prog_id"), runs: field("run_cnt"), ns: field("run_time_ns") };
	// Links name their program as well, but count no runs.
	return Object.values(info).some(Number.isNaN) ? undefined : info;
}
