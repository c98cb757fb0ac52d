// The beacons of a proof, started in their namespaces, and everything that they have reported so far.
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { inNetns } from "../../src/lab/command.js";
import type { Report, Sighting } from "./beacon.js";

const BEACON = fileURLToPath(new URL("./beacon.js", import.meta.url));

export class Beacon {
	readonly sent: Sighting[] = [];
	readonly arrived: Sighting[] = [];
	readonly answered: Sighting[] = [];
	readonly #child: ChildProcess;

	private constructor(child: ChildProcess) {
		this.#child = child;
	}

	static async echo(netns: string, port: number): Promise<Beacon> {
		const beacon = Beacon.#start(netns, ["echo", String(port)]);
		await once(beacon.#lines, "line"); // "listening"
		return beacon;
	}

	static send(netns: string, ip: string, port: number, intervalMs: number, sourcePorts: readonly number[]): Beacon {
		return Beacon.#start(netns, ["send", ip, ...[port, intervalMs, ...sourcePorts].map(String)]);
	}

	#lines!: ReturnType<typeof createInterface>;

	static #start(netns: string, args: readonly string[]): Beacon {
		const [file = "", ...argv] = inNetns(netns, [process.execPath, BEACON, ...args]);
		const child = spawn(file, argv, { stdio: ["ignore", "pipe", "inherit"] });
		const beacon = new Beacon(child);
		beacon.#lines = createInterface({ input: child.stdout });
		beacon.#lines.on("line", (line) => {
			if (!line.startsWith("{")) return;
			const { sent = [], arrived = [], answered = [] } = JSON.parse(line) as Report;
			beacon.sent.push(...sent);
			beacon.arrived.push(...arrived);
			beacon.answered.push(...answered);
		});
		return beacon;
	}

	/** The next report; what was seen before it is in the lists then. */
	async reported(): Promise<void> {
		await once(this.#lines, "line");
	}

	async stop(): Promise<void> {
		if (this.#child.exitCode !== null || this.#child.signalCode !== null) return;
		const exited = once(this.#child, "exit");
		this.#child.kill("SIGTERM");
		await exited;
	}
}
