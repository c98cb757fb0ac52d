// As much as one sender gets through, by iperf3; what counts is what the receiver got.
import { run as runCommand } from "../lab/command.js";
import { BenchError } from "./error.js";
import { Listener } from "./listener.js";
import { commandAt, type Workload } from "./workload.js";

/** Of UDP: fits a pod's MTU with any tunnel header. */
const DATAGRAM_BYTES = 1400;
const INTERVAL_S = 0.1;
const WARM_UP_S = 0.3;

export function stream(protocol: "tcp" | "udp"): Workload {
	return async ({ client, server, target, cpus, port, seconds, flows, signal }) => {
		const serve = ["iperf3", "-s", "-1", "-J", "-i", String(INTERVAL_S), "-B", server.ip, "-p", String(port)];
		const argv = commandAt(server, cpus.server, seconds, serve);
		// UDP tests are negotiated over TCP as well.
		const listener = await Listener.start({ argv, ip: server.ip, port, protocol: "tcp", signal });
		try {
			const to = ["-c", target, "-p", String(port), "-t", String(seconds), "-P", String(flows)];
			const datagrams = protocol === "udp" ? ["-u", "-b", "0", "-l", String(DATAGRAM_BYTES)] : [];
			const send = ["iperf3", ...to, ...datagrams];
			await runCommand(commandAt(client, cpus.client, seconds, send), { signal });
			return { value: parseIperf3(await listener.output()), unit: "bit/s" };
		} finally {
			await listener.stop();
		}
	};
}

interface Iperf3Server {
	error?: string;
	intervals?: { sum: { start: number; seconds: number; bytes: number; sender: boolean } }[];
}

/** Payload bits per second received after the warm-up, from the server's JSON. */
export function parseIperf3(text: string): number {
	let server: Iperf3Server;
	try {
		server = JSON.parse(text);
	} catch {
		throw new BenchError(`Cannot read the result of iperf3: it is not JSON: "${text.slice(0, 200)}"`);
	}
	const intervals = (server.intervals ?? []).map(({ sum }) => sum).filter(({ start }) => start >= WARM_UP_S);
	const seconds = intervals.reduce((total, sum) => total + sum.seconds, 0);
	const bytes = intervals.reduce((total, sum) => total + sum.bytes, 0);
	if (!(seconds > 0 && bytes > 0))
		throw new BenchError(`Cannot read the result of iperf3: ${server.error ?? "the server received nothing"}`);
	return (bytes * 8) / seconds;
}
