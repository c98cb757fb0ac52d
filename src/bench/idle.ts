// What an agent costs while nothing happens.
import { readFileSync } from "node:fs";
import { setTimeout } from "node:timers/promises";
import type { WorldAgent } from "./worlds.js";

export interface AgentCost {
	host: string;
	readyMs: number;
	/** Share of one CPU over `seconds` without traffic. */
	cpu: number;
	seconds: number;
	rssBytes: number;
}

/** USER_HZ, what /proc/PID/stat counts in: the same on every architecture that ONCache runs on. */
const TICKS_PER_SECOND = 100;
const BYTES_PER_KIB = 1024;

export async function measureIdle(
	agents: readonly WorldAgent[],
	seconds: number,
	signal: AbortSignal,
): Promise<AgentCost[]> {
	const before = agents.map(({ pid }) => cpuTicks(read(pid, "stat")));
	const started = performance.now();
	await setTimeout(seconds * 1000, undefined, { signal });
	const passed = (performance.now() - started) / 1000;
	return agents.map(({ host, pid, readyMs }, at) => ({
		host,
		readyMs,
		cpu: (cpuTicks(read(pid, "stat")) - (before[at] ?? 0)) / TICKS_PER_SECOND / passed,
		seconds: passed,
		rssBytes: rssBytes(read(pid, "status")),
	}));
}

function read(pid: number, file: string): string {
	return readFileSync(`/proc/${pid}/${file}`, "utf8");
}

/** utime + stime of /proc/PID/stat (proc(5): fields 14 and 15). The name in field 2 may contain anything. */
export function cpuTicks(stat: string): number {
	const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
	return Number(fields[11]) + Number(fields[12]);
}

/** VmRSS of /proc/PID/status. */
export function rssBytes(status: string): number {
	return Number(/^VmRSS:\s+(\d+) kB$/m.exec(status)?.[1]) * BYTES_PER_KIB;
}
