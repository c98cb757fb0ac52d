// Runs the system's tools. The only place of the lab and the benchmark that starts processes and waits for them.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { constants } from "node:os";

export interface Finished {
	stdout: string;
	stderr: string;
	code: number;
}

export class CommandError extends Error {
	override readonly name = "CommandError";
	readonly finished: Finished;

	constructor(argv: readonly string[], finished: Finished) {
		const words = (finished.stderr || finished.stdout).trim().split("\n").slice(-3).join("; ");
		super(`Command "${argv.join(" ")}" failed (exit code ${finished.code}): ${words || "it said nothing"}`);
		this.finished = finished;
	}
}

export interface RunOptions {
	input?: string;
	signal?: AbortSignal | undefined;
	/** Exit codes other than 0 are no error. */
	anyCode?: boolean;
}

/** @throws CommandError, or the signal's reason when it is aborted */
export async function run(argv: readonly string[], options: RunOptions = {}): Promise<Finished> {
	options.signal?.throwIfAborted();
	const [file = "", ...args] = argv;
	const child = spawn(file, args, { stdio: ["pipe", "pipe", "pipe"], signal: options.signal });
	const out = { stdout: "", stderr: "" };
	child.stdout.setEncoding("utf8").on("data", (text: string) => {
		out.stdout += text;
	});
	child.stderr.setEncoding("utf8").on("data", (text: string) => {
		out.stderr += text;
	});
	child.stdin.on("error", () => {}); // it may end without reading
	child.stdin.end(options.input ?? "");
	const code = await new Promise<number>((resolve, reject) => {
		child.on("error", reject);
		child.on("close", (exit, killed) => resolve(exit ?? (killed ? 128 : 1)));
	});
	options.signal?.throwIfAborted();
	const finished = { ...out, code };
	if (code !== 0 && !options.anyCode) throw new CommandError(argv, finished);
	return finished;
}

/** `argv` as it is to be run to happen in another network namespace. `ip netns exec` would hide /sys/fs/bpf. */
export function inNetns(netns: string, argv: readonly string[]): string[] {
	return ["nsenter", `--net=${netns}`, "--", ...argv];
}

/** Runs with this process's own input and output; `signal` ends it with SIGTERM. @returns the exit code, as a shell does */
export async function runAttached(argv: readonly string[], signal?: AbortSignal): Promise<number> {
	const [file = "", ...args] = argv;
	const child = spawn(file, args, { stdio: "inherit" });
	const end = (): boolean => child.kill("SIGTERM");
	signal?.addEventListener("abort", end);
	try {
		const [code, killedBy] = (await once(child, "exit")) as [number | null, NodeJS.Signals | null];
		return code ?? (killedBy ? 128 + constants.signals[killedBy] : 1);
	} catch (error) {
		process.stderr.write(`oncache: Cannot run "${file}": ${(error as Error).message}\n`);
		return 127;
	} finally {
		signal?.removeEventListener("abort", end);
	}
}
