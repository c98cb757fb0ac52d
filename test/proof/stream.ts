// An iperf3 stream between two pods that sends more than it may, and its rate on the wire, as a shaping qdisc counts it.
import type { ChildProcess } from "node:child_process";
import { readFileSync } from "node:fs";
import { setTimeout } from "node:timers/promises";
import type { LabPod } from "../../src/lab/topology.js";
import { background, end, eventually } from "../e2e/world.js";

export type Protocol = "tcp" | "udp";

const ETHERNET_BYTES = 14;
/** IPv4, and TCP with timestamps. */
const TCP_HEADERS_BYTES = 20 + 32;
const MTU = 1450;
const DATAGRAM_BYTES = 1400;
const UDP_OFFERED = "1G";
/** Nobody's stream outlives a proof that was killed by more than this. */
const BOUND_S = 60;

export class Stream {
	readonly protocol: Protocol;
	readonly #server: ChildProcess;
	readonly #client: ChildProcess;

	private constructor(protocol: Protocol, server: ChildProcess, client: ChildProcess) {
		this.protocol = protocol;
		this.#server = server;
		this.#client = client;
	}

	static async start(protocol: Protocol, from: LabPod, to: LabPod, port: number): Promise<Stream> {
		const bounded = ["timeout", "--foreground", String(BOUND_S), "iperf3", "-p", String(port)];
		const server = await background(to, [...bounded, "-s", "-1", "--forceflush"], /listening/);
		const datagrams = protocol === "udp" ? ["-u", "-b", UDP_OFFERED, "-l", String(DATAGRAM_BYTES)] : [];
		const client = await background(from, [...bounded, "-c", to.ip, "-t", String(BOUND_S), ...datagrams]);
		return new Stream(protocol, server, client);
	}

	/**
	 * Bytes of the frames that the receiving pod has got, each with its Ethernet header. The pod's own counters say how
	 * many bytes of IP it got in how many packets, where several TCP segments may be one packet (GRO).
	 */
	received(): number {
		const packets = counter(this.#server, "snmp", "Ip", "InReceives");
		const bytes = counter(this.#server, "netstat", "IpExt", "InOctets");
		if (this.protocol === "udp") return bytes + packets * ETHERNET_BYTES;
		const segment = MTU - TCP_HEADERS_BYTES;
		return ((bytes - packets * TCP_HEADERS_BYTES) / segment) * (MTU + ETHERNET_BYTES);
	}

	/** Waits until so many bytes more have arrived. */
	async receives(bytes: number): Promise<void> {
		const until = this.received() + bytes;
		await eventually(`${bytes} bytes of ${this.protocol} arrive`, () => this.received() >= until, 20_000);
	}

	/** Of so many seconds, bit/s. */
	async rate(seconds: number, signal: AbortSignal): Promise<number> {
		const started = performance.now();
		const before = this.received();
		await setTimeout(seconds * 1000, undefined, { signal });
		const bytes = this.received() - before;
		return (bytes * 8000) / (performance.now() - started);
	}

	async stop(): Promise<void> {
		await Promise.all([end(this.#client), end(this.#server)]);
	}
}

/** One of the counters of the network namespace that a process is in. */
function counter(process: ChildProcess, file: "snmp" | "netstat", group: string, name: string): number {
	const lines = readFileSync(`/proc/${process.pid}/net/${file}`, "utf8").split("\n");
	const [names = [], values = []] = lines
		.filter((line) => line.startsWith(`${group}: `))
		.map((line) => line.split(" "));
	return Number(values[names.indexOf(name)]);
}
