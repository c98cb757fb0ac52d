// A tool's server end: started, awaited until it listens, stopped.
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { isIPv6 } from "node:net";
import { setTimeout } from "node:timers/promises";
import { encodeIp, parseIp } from "../net/ip.js";
import { BenchError } from "./error.js";

export interface ListenerOptions {
	argv: readonly string[];
	ip: string;
	port: number;
	protocol: "tcp" | "udp";
	signal: AbortSignal;
}

const LISTEN_LIMIT_MS = 5000;
const POLL_MS = 5;

export class Listener {
	readonly #child: ChildProcess;
	readonly #closed: Promise<unknown>;
	#stdout = "";
	#stderr = "";

	private constructor(argv: readonly string[]) {
		const [file = "", ...args] = argv;
		const child = spawn(file, args, { stdio: ["ignore", "pipe", "pipe"] });
		child.stdout.setEncoding("utf8").on("data", (text: string) => {
			this.#stdout += text;
		});
		child.stderr.setEncoding("utf8").on("data", (text: string) => {
			this.#stderr += text;
		});
		child.on("error", ({ message }) => {
			this.#stderr += message;
		});
		this.#child = child;
		this.#closed = once(child, "close").catch(() => {}); // the error's words are kept above
	}

	/** @throws BenchError when it ends, or does not listen in time */
	static async start(options: ListenerOptions): Promise<Listener> {
		options.signal.throwIfAborted();
		const listener = new Listener(options.argv);
		try {
			await listener.#listens(options);
			return listener;
		} catch (error) {
			await listener.stop();
			throw error;
		}
	}

	async #listens({ argv, ip, port, protocol, signal }: ListenerOptions): Promise<void> {
		const deadline = performance.now() + LISTEN_LIMIT_MS;
		while (!isListening(this.#sockets(protocol, ip), ip, port, protocol)) {
			signal.throwIfAborted();
			const why = this.#hasEnded()
				? `it ended: ${await this.#lastWords()}`
				: performance.now() > deadline
					? `nobody listens at ${protocol} ${ip}:${port} after ${LISTEN_LIMIT_MS / 1000} s`
					: undefined;
			if (why !== undefined) throw new BenchError(`Cannot start server "${argv.join(" ")}": ${why}`);
			await setTimeout(POLL_MS);
		}
	}

	/** The sockets of the network namespace that the process is in. */
	#sockets(protocol: string, ip: string): string {
		try {
			return readFileSync(`/proc/${this.#child.pid}/net/${protocol}${isIPv6(ip) ? "6" : ""}`, "utf8");
		} catch {
			return ""; // it has just ended
		}
	}

	async #lastWords(): Promise<string> {
		await this.#closed;
		return `${this.#stderr}${this.#stdout}`.trim().split("\n").slice(-3).join("; ");
	}

	#hasEnded(): boolean {
		return this.#child.pid === undefined || this.#child.exitCode !== null || this.#child.signalCode !== null;
	}

	/** What a server that ends by itself has printed; commandAt() bounds the wait. */
	async output(): Promise<string> {
		await this.#closed;
		return this.#stdout;
	}

	async stop(): Promise<void> {
		if (!this.#hasEnded()) this.#child.kill("SIGTERM");
		await this.#closed;
	}
}

const LISTENING = { tcp: "0A", udp: "07" } as const;

/** Whether /proc/net/tcp or udp (tcp6, udp6) shows a socket that waits for peers at this address. */
export function isListening(sockets: string, ip: string, port: number, protocol: "tcp" | "udp"): boolean {
	// The kernel prints addresses as 32-bit numbers in host byte order: little endian where ONCache runs.
	const bytes = [...encodeIp(parseIp(ip))];
	const words = Array.from({ length: bytes.length / 4 }, (_, i) => bytes.slice(4 * i, 4 * i + 4).reverse());
	const local = `${words.flat().map(hex(2)).join("")}:${hex(4)(port)}`;
	return sockets.split("\n").some((line) => {
		const [, address, , state] = line.trim().split(/\s+/);
		return address === local && state === LISTENING[protocol];
	});
}

function hex(digits: number): (value: number) => string {
	return (value) => value.toString(16).toUpperCase().padStart(digits, "0");
}
