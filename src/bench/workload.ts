// What a workload is: real tools at two places, one number as result.
import { inNetns } from "../lab/command.js";

/** A network namespace with its address: a host or a pod. */
export interface Place {
	netns: string;
	ip: string;
}

export interface Run {
	client: Place;
	server: Place;
	/** What the client calls: the server's address, or a Service's. */
	target: string;
	/** Where the two ends run; the same one, or two. */
	cpus: { client: number; server: number };
	/** Of the server. Every run has another one, so that no state of an earlier run is met again. */
	port: number;
	seconds: number;
	/** Parallel flows, for workloads that have them. */
	flows: number;
	signal: AbortSignal;
}

export type Unit = "messages/s" | "requests/s" | "bit/s";

export interface Measurement {
	value: number;
	unit: Unit;
}

export type Workload = (run: Run) => Promise<Measurement>;

/** Tools need this much longer than they measure: connecting, pauses of their own, the last packets. */
const MARGIN_S = 20;

/** Runs `argv` at a place on one CPU, and not for ever. In a process group of its own (timeout(1)): Ctrl-C is ours. */
export function commandAt(place: Place, cpu: number, seconds: number, argv: readonly string[]): string[] {
	const bounded = ["timeout", "--kill-after=2", String(seconds + MARGIN_S), "taskset", "-c", String(cpu), ...argv];
	return inNetns(place.netns, bounded);
}
