// A place on a device of a network namespace from where raw frames are sent, and where all that arrives is seen.
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { inNetns } from "../../src/lab/command.js";

export interface Station {
	/** Sends frames in order. @returns what has arrived since the last call, each frame as hex */
	exchange(frames: readonly Buffer[]): Promise<string[]>;
	close(): Promise<void>;
}

const INJECT = fileURLToPath(new URL("./inject.js", import.meta.url));

export async function openStation(netns: string, device: string): Promise<Station> {
	// On one CPU: what one station sends after another also arrives after it.
	const argv = inNetns(netns, ["taskset", "-c", "0", process.execPath, INJECT, device]);
	const child: ChildProcess = spawn(argv[0] as string, argv.slice(1), { stdio: ["pipe", "pipe", "inherit"] });
	const { stdin, stdout } = child;
	if (!stdin || !stdout) throw new Error(`Cannot start a station on "${device}"`);
	const lines = createInterface({ input: stdout })[Symbol.asyncIterator]();
	const answer = async (): Promise<string> => {
		const { value, done } = await lines.next();
		if (done) throw new Error(`The station on "${device}" of ${netns} has ended`);
		return value as string;
	};
	await answer();
	return {
		exchange: async (frames) => {
			stdin.write(`${JSON.stringify(frames.map((frame) => frame.toString("hex")))}\n`);
			return JSON.parse(await answer()) as string[];
		},
		close: async () => {
			if (child.exitCode !== null || child.signalCode !== null) return;
			const exited = once(child, "exit");
			stdin.end();
			await exited;
		},
	};
}
