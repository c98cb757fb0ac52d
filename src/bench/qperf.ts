// One message back and forth at a time over IPv6, by qperf: Debian's sockperf knows IPv4 only. Like request-response.ts
// otherwise, but not to be compared with it: another tool does other work per message.
import { run as runCommand } from "../lab/command.js";
import { BenchError } from "./error.js";
import { Listener } from "./listener.js";
import { commandAt, type Workload } from "./workload.js";

/** It listens on every address. */
const EVERY_ADDRESS = "::";

export function requestResponse6(protocol: "tcp" | "udp"): Workload {
	return async ({ client, server, target, cpus, port, seconds, signal }) => {
		const argv = commandAt(server, cpus.server, seconds, ["qperf", "-lp", String(port)]);
		// What is to be measured is negotiated over TCP.
		const listener = await Listener.start({ argv, ip: EVERY_ADDRESS, port, protocol: "tcp", signal });
		try {
			const ask = ["qperf", target, "-lp", String(port), "-t", String(seconds), "-e", "5", `${protocol}_lat`];
			const { stdout } = await runCommand(commandAt(client, cpus.client, seconds, ask), { signal });
			return { value: parseQperf(stdout), unit: "messages/s" };
		} finally {
			await listener.stop();
		}
	};
}

const NS_OF: Record<string, number> = { ns: 1, us: 1e3, ms: 1e6, sec: 1e9 };

/** Round trips per second: its latency is that of one way. */
export function parseQperf(text: string): number {
	const [, latency, unit = ""] = /latency\s+=\s+([\d.]+) (\w+)/.exec(text) ?? [];
	const ns = Number(latency) * (NS_OF[unit] ?? Number.NaN);
	if (!(ns > 0))
		throw new BenchError(`Cannot read the result of qperf: ${text.trim().split("\n").slice(-3).join("; ")}`);
	return 1e9 / (2 * ns);
}
