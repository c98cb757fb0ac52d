// Runs Open vSwitch's own tools: the one place of the agent that asks a switch, or tells it something.
import { type ChildProcessByStdio, spawn, spawnSync } from "node:child_process";
import type { Readable } from "node:stream";

export type OvsTool = "ovs-vsctl" | "ovs-ofctl";

/** A switch that does not answer keeps the agent waiting no longer than this. */
const ANSWER_LIMIT_S = 5;

/** @throws when the tool is missing, the switch is not there, or it refuses */
export function askSwitch(tool: OvsTool, args: readonly string[], { runDir, input = "" }: Question): string {
	const { status, signal, stdout, stderr, error } = spawnSync(tool, [`--timeout=${ANSWER_LIMIT_S}`, ...args], {
		input,
		encoding: "utf8",
		env: environment(runDir),
		maxBuffer: 1 << 28,
		// Should it not even keep its own limit.
		timeout: (ANSWER_LIMIT_S + 1) * 1000,
		killSignal: "SIGKILL",
	});
	if (status === 0) return stdout;
	const isMissing = (error as NodeJS.ErrnoException | undefined)?.code === "ENOENT";
	const cause = isMissing
		? `${tool} is not installed; install the package openvswitch-common or openvswitch-switch`
		: signal !== null
			? `it did not answer within ${ANSWER_LIMIT_S} s`
			: (error?.message ?? (stderr.trim().split("\n").at(-1) || `${tool} exited with ${status}`));
	throw new Error(`Cannot ask Open vSwitch at "${runDir}": ${cause}`, { cause: error });
}

interface Question {
	/** Where its sockets are. */
	runDir: string;
	input?: string;
}

/** What it tells comes as ovs-ofctl prints messages: on standard error. */
export type Follower = ChildProcessByStdio<null, null, Readable>;

/** One that goes on telling. */
export function followSwitch(tool: OvsTool, args: readonly string[], runDir: string): Follower {
	return spawn(tool, args, { stdio: ["ignore", "ignore", "pipe"], env: environment(runDir) });
}

function environment(runDir: string): NodeJS.ProcessEnv {
	return { ...process.env, LC_ALL: "C", OVS_RUNDIR: runDir };
}
