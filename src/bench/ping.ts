// First sign of life: a few echoes, before anything is measured.
import { inNetns, run } from "../lab/command.js";
import { BenchError } from "./error.js";
import type { Place } from "./workload.js";

/** @returns the mean round trip, ms. @throws BenchError when an echo is missing */
export async function ping(client: Place, server: Place, signal: AbortSignal): Promise<number> {
	const argv = inNetns(client.netns, ["ping", "-n", "-q", "-c", "3", "-i", "0.1", "-W", "2", server.ip]);
	const { stdout } = await run(argv, { signal, anyCode: true });
	return parsePing(stdout, server.ip);
}

export function parsePing(text: string, ip: string): number {
	const [, sent, received] = /(\d+) packets transmitted, (\d+) (?:packets )?received/.exec(text) ?? [];
	const mean = Number(/= [\d.]+\/([\d.]+)\//.exec(text)?.[1]);
	if (sent === undefined || sent !== received || Number.isNaN(mean))
		throw new BenchError(`Cannot reach ${ip}: ${received ?? 0} of ${sent ?? "3"} pings were answered`);
	return mean;
}
