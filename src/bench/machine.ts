// Where a measurement was made, as far as it matters to whoever compares it.
import { readFileSync } from "node:fs";
import { cpus, release, totalmem } from "node:os";
import { run } from "../lab/command.js";
import { BenchError } from "./error.js";

export interface Machine {
	cpu: string;
	cores: number;
	memoryBytes: number;
	kernel: string;
	node: string;
	tools: Record<string, string>;
}

const VERSIONS: Record<string, readonly string[]> = {
	sockperf: ["sockperf", "--version"],
	qperf: ["qperf", "--version"],
	iperf3: ["iperf3", "--version"],
	nginx: ["nginx", "-v"],
	ab: ["ab", "-V"],
};

/** @throws BenchError when a tool is missing */
export async function describeMachine(signal: AbortSignal): Promise<Machine> {
	const tools = await Promise.all(
		Object.entries(VERSIONS).map(async ([tool, argv]) => [tool, await ask(argv, signal)]),
	);
	return {
		cpu: cpus()[0]?.model.trim() ?? "unknown",
		cores: cpus().length,
		memoryBytes: totalmem(),
		kernel: release(),
		node: process.versions.node,
		tools: Object.fromEntries(tools),
	};
}

async function ask(argv: readonly string[], signal: AbortSignal): Promise<string> {
	try {
		const { stdout, stderr } = await run(argv, { signal, anyCode: true });
		return /\d+(\.\d+)+/.exec(stdout + stderr)?.[0] ?? "unknown";
	} catch (error) {
		signal.throwIfAborted();
		const { message } = error as Error;
		throw new BenchError(`Cannot run "${argv[0]}": ${message}; install what is missing with "npm run setup"`);
	}
}

/** The CPUs that this process may use, the last ones: interrupts tend to be served by the first. */
export function chooseCpus(): { one: number; two: [client: number, server: number] } {
	const status = readFileSync("/proc/self/status", "utf8");
	const allowed = parseCpuList(/^Cpus_allowed_list:\s+(\S+)$/m.exec(status)?.[1] ?? "0");
	const last = allowed.at(-1) ?? 0;
	return { one: last, two: [allowed.at(-2) ?? last, last] };
}

/** "0-2,5" -> 0, 1, 2, 5 */
export function parseCpuList(text: string): number[] {
	return text.split(",").flatMap((range) => {
		const [first = 0, last = first] = range.split("-").map(Number);
		return Array.from({ length: last - first + 1 }, (_, i) => first + i);
	});
}
