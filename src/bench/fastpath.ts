// What the agents and the kernel say about the packets of a run: which path they took, and what ours cost.
import type { Counts, Status } from "../agent/api.js";
import { agentRequest } from "../agent/client.js";
import type { Reason } from "../datapath/layout.js";
import { openRunTimeStats, type ProgramRuns, programRuns } from "../datapath/runtime.js";
import { HOOKS, type ProgramName } from "../datapath/types.js";
import type { WorldAgent } from "./worlds.js";

/** Packets of both directions of all hosts, as the stack hands them over: a GSO packet counts once. */
export async function countPackets(agents: readonly WorldAgent[]): Promise<Counts> {
	const statuses = await Promise.all(agents.map(({ socket }) => agentRequest<Status>(socket, "GET", "/v1/status")));
	return sumCounts(statuses.flatMap(({ packets }) => [packets.egress, packets.ingress]));
}

export function sumCounts(counts: readonly Counts[]): Counts {
	return counts.reduce((sum, count) => combine(sum, count, 1), { fast: 0, fallback: {} });
}

export function countsBetween(before: Counts, after: Counts): Counts {
	return combine(after, before, -1);
}

function combine(a: Counts, b: Counts, sign: 1 | -1): Counts {
	const reasons = Object.keys({ ...a.fallback, ...b.fallback }) as Reason[];
	const pairs = reasons.map(
		(reason) => [reason, (a.fallback[reason] ?? 0) + sign * (b.fallback[reason] ?? 0)] as const,
	);
	return { fast: a.fast + sign * b.fast, fallback: Object.fromEntries(pairs.filter(([, count]) => count !== 0)) };
}

/** NaN when there were no packets. */
export function fastShare({ fast, fallback }: Counts): number {
	return fast / Object.values(fallback).reduce((sum, count) => sum + count, fast);
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

export interface BpfPass extends BpfCost {
	/** Which path the packets of the pass took. */
	packets: Counts;
}

/** Several passes as if they were one. */
export function sumPasses(passes: readonly BpfPass[]): BpfPass {
	const of = (field: "runs" | "ns", name: ProgramName): number =>
		passes.reduce((sum, { programs }) => sum + programs[name][field], 0);
	const after = PROGRAMS.map((name) => ({ name, runs: of("runs", name), ns: of("ns", name) }));
	return { ...bpfCost([], after), packets: sumCounts(passes.map(({ packets }) => packets)) };
}

/** Lets the kernel count while `work` runs. */
export async function measureBpf(agents: readonly WorldAgent[], work: () => Promise<unknown>): Promise<BpfPass> {
	const stats = openRunTimeStats();
	try {
		const runs = (): ProgramRuns[] => agents.flatMap(({ pid }) => programRuns(pid));
		const [packets, before] = [await countPackets(agents), runs()];
		await work();
		return { ...bpfCost(before, runs()), packets: countsBetween(packets, await countPackets(agents)) };
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
