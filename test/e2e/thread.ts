// A script of the tests as a thread that has entered a network namespace. A thread can, and starts in a fraction of the time of a
// process: in an emulated machine that is the difference between a second and none.
import { once } from "node:events";
import { fileURLToPath } from "node:url";
import { Worker } from "node:worker_threads";
import { noteStarted } from "./running.js";

const ENTRY = fileURLToPath(new URL("./thread-entry.js", import.meta.url));

/** What thread-entry.js is told. */
export interface ThreadData {
	netns: string;
	script: string;
}

export interface Finished {
	stdout: string;
	stderr: string;
}

/** @throws when it exits with another code than 0 */
export async function runThread(place: { netns: string }, script: string, args: readonly string[]): Promise<Finished> {
	const { worker, said } = start(place, script, args);
	const [code] = (await once(worker, "exit")) as [number];
	if (code !== 0) throw new Error(`${script} ${args.join(" ")} exited with ${code}: ${said.stderr || said.stdout}`);
	return said;
}

/** Resolves when it has said `sign`; goes on until it is terminated. */
export async function startThread(
	place: { netns: string },
	script: string,
	args: readonly string[],
	sign: RegExp,
): Promise<Worker> {
	const { worker, said } = start(place, script, args);
	await new Promise<void>((resolve, reject) => {
		worker.stdout.on("data", () => {
			if (sign.test(said.stdout)) resolve();
		});
		worker.once("error", reject);
		worker.once("exit", () => reject(new Error(`${script} ${args.join(" ")} ended: ${said.stderr || said.stdout}`)));
	});
	return worker;
}

function start({ netns }: { netns: string }, script: string, args: readonly string[]) {
	const workerData: ThreadData = { netns, script };
	const worker = noteStarted(new Worker(ENTRY, { workerData, argv: [...args], stdout: true, stderr: true }));
	const said: Finished = { stdout: "", stderr: "" };
	for (const stream of ["stdout", "stderr"] as const)
		worker[stream].setEncoding("utf8").on("data", (text: string) => {
			said[stream] += text;
		});
	return { worker, said };
}
