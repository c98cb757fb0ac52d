// What the agents and the kernel say about the packets of a run: which path they took, and what ours cost.
import type { Counts, Status } from "../agent/api.js";
import { agentRequest } from "../agent/client.js";
import { openRunTimeStats, type ProgramRuns, programRuns } from "../datapath/runtime.js";
import { HOOKS, type ProgramName } from "../datapath/types.js";
import type { WorldAgent } from "./worlds.js";

/** Packets as the stack hands them over (a GSO packet counts once), both directions, all hosts. */
export interface PathCounts {
	fast: number;
	fallback: number;
}

export async function countPaths(agents: readonly WorldAgent[]): Promise<PathCounts> {
	const statuses = await Promise.all(agents.map(({ socket }) => agentRequest<Status>(socket, "GET", "/v1/status")));
	return sumPaths(statuses.flatMap(({ packets }) => [packets.egress, packets.ingress]));
}

export function sumPaths(counts: readonly Counts[]): PathCounts {
	const sum = (values: number[]): number => values.reduce((total, value) => total + value, 0);
	return {
		fast: sum(counts.map(({ fast }) => fast)),
		fallback: sum(counts.flatMap(({ fallback }) => Object.values(fallback))),
	};
}

export function pathsBetween(before: PathCounts, after: PathCounts): PathCounts {
	return { fast: after.fast - before.fast, fallback: after.fallback - before.fallback };
}

/** NaN when there were no packets. */
export function fastShare({ fast, fallback }: PathCounts): number {
	return fast / (fast + fallback);
}

const PROGRAMS: ProgramName[] = [HOOKS.veth.ingress, HOOKS.uplink.egress, HOOKS.uplink.ingress, HOOKS.veth.egress];

export interface BpfCost {
	programs: Record<ProgramName, { runs: number; ns: number }>;
	/**
	 * One packet from pod to pod: the time of all four programs on all hosts, by packets that left a pod. Includes what
	 * the counting costs, about 50 ns per run.
	 */
	nsPerPacket: number;
}

/** Lets the kernel count while `work` runs. */
export async function measureBpf(agents: readonly WorldAgent[], work: () => Promise<unknown>): Promise<BpfCost> {
	const stats = openRunTimeStats();
	try {
		const runs = (): ProgramRuns[] => agents.flatMap(({ pid }) => programRuns(pid));
		const before = runs();
		await work();
		return bpfCost(before, runs());
	} finally {
		stats.close();
	}
}

export function bpfCost(before: readonly ProgramRuns[], after: readonly ProgramRuns[]): BpfCost {
	const total = (list: readonly ProgramRuns[], name: string, field: "runs" | "ns"): number =>
		list.filter((program) => program.name === name).reduce((sum, program) => sum + program[field], 0);
	const spent = (name: string, field: "runs" | "ns"): number => total(after, name, field) - total(before, name, field);
	const programs = Object.fromEntries(
		PROGRAMS.map((name) => [name, { runs: spent(name, "runs"), ns: spent(name, "ns") }]),
	) as BpfCost["programs"];
	const ns = Object.values(programs).reduce((sum, program) => sum + program.ns, 0);
	return { programs, nsPerPacket: ns / programs.egress.runs };
}
