// One measurement at a time on a machine: two would disturb each other and share names.
import { readFileSync, rmSync, writeFileSync } from "node:fs";
import { BenchError } from "./error.js";

const LOCK_FILE = "/run/oncache-bench.pid";

/** @throws BenchError when another process measures */
export function openLock(file: string = LOCK_FILE): { close(): void } {
	const owner = ownerOf(file);
	if (owner !== undefined)
		throw new BenchError(`Cannot measure: process ${owner} is measuring already ("${file}"); wait for it, or end it`);
	rmSync(file, { force: true });
	// Exclusive: of two that got here, one fails.
	writeFileSync(file, `${process.pid} ${startOf(process.pid)}\n`, { flag: "wx" });
	return { close: () => rmSync(file, { force: true }) };
}

/** The live process that holds the lock. A number that is in use again has another start time. */
function ownerOf(file: string): number | undefined {
	try {
		const [pid, start] = readFileSync(file, "utf8").trim().split(" ");
		return start !== undefined && start === startOf(Number(pid)) ? Number(pid) : undefined;
	} catch {
		return undefined; // no lock, or no such process
	}
}

/** Field 22 of /proc/PID/stat (proc(5)): start of the process in clock ticks since boot. */
function startOf(pid: number): string | undefined {
	const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
	return stat.slice(stat.lastIndexOf(")") + 2).split(" ")[19];
}
