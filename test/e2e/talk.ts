// Conversations between pods that say who answered.
import { isIPv6 } from "node:net";
import { fileURLToPath } from "node:url";
import type { Worker } from "node:worker_threads";
import type { LabPod } from "../../src/lab/topology.js";
import type { Answer } from "./talker.js";
import { runThread, startThread } from "./thread.js";

const TALKER = fileURLToPath(new URL("./talker.js", import.meta.url));

/** Answers TCP and UDP until it is ended. */
export function serve(pod: Pick<LabPod, "name" | "netns" | "addresses">, port: number): Promise<Worker> {
	const host = pod.addresses.some((ip) => isIPv6(ip)) ? "::" : "0.0.0.0";
	return startThread(pod, TALKER, ["serve", pod.name, String(port), host], /listening/);
}

/** `count` conversations, each from a port of its own, of `bytes` both ways. */
export async function ask(
	from: { netns: string },
	protocol: "tcp" | "udp",
	ip: string,
	port: number,
	{ bytes = 100, count = 1 }: { bytes?: number; count?: number } = {},
): Promise<Answer[]> {
	const { stdout } = await runThread(from, TALKER, ["ask", protocol, ip, ...[port, bytes, count].map(String)]);
	return JSON.parse(stdout) as Answer[];
}
