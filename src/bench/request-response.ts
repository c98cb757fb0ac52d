// One message back and forth at a time over one flow, by sockperf. The rate is the work that a packet costs when both
// ends share a CPU: nobody sleeps, nothing is woken up elsewhere.
import { run as runCommand } from "../lab/command.js";
import { BenchError } from "./error.js";
import { Listener } from "./listener.js";
import { commandAt, type Workload } from "./workload.js";

export function requestResponse(protocol: "tcp" | "udp"): Workload {
	return async ({ client, server, target, cpus, port, seconds, signal }) => {
		const at = (ip: string): string[] => [...(protocol === "tcp" ? ["--tcp"] : []), "-i", ip, "-p", String(port)];
		const argv = commandAt(server, cpus.server, seconds, ["sockperf", "server", ...at(server.ip)]);
		const listener = await Listener.start({ argv, ip: server.ip, port, protocol, signal });
		try {
			const ping = ["sockperf", "ping-pong", ...at(target), "-t", String(seconds)];
			const { stdout } = await runCommand(commandAt(client, cpus.client, seconds, ping), { signal });
			return { value: parseSockperf(stdout), unit: "messages/s" };
		} finally {
			await listener.stop();
		}
	};
}

/** Round trips per second in the "valid duration": without sockperf's own warm-up of 400 ms and its last 50 ms. */
export function parseSockperf(text: string): number {
	const match = /\[Valid Duration\] RunTime=([\d.]+) sec; SentMessages=\d+; ReceivedMessages=(\d+)/.exec(text);
	const [seconds, messages] = [Number(match?.[1]), Number(match?.[2])];
	if (!(seconds > 0 && messages > 0))
		throw new BenchError(`Cannot read the result of sockperf: ${text.trim().split("\n").slice(-3).join("; ")}`);
	return messages / seconds;
}
