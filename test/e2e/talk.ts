// Conversations between pods that say who answered.
import type { ChildProcess } from "node:child_process";
import { isIPv6 } from "node:net";
import { fileURLToPath } from "node:url";
import type { LabPod } from "../../src/lab/topology.js";
import type { Answer } from "./talker.js";
import { background, inside } from "./world.js";

const TALKER = fileURLToPath(new URL("./talker.js", import.meta.url));

/** Answers TCP and UDP until it is ended. */
export function serve(pod: Pick<LabPod, "name" | "netns" | "addresses">, port: number): Promise<ChildProcess> {
	const host = pod.addresses.some((ip) => isIPv6(ip)) ? "::" : "0.0.0.0";
	return background(pod, ["node", TALKER, "serve", pod.name, String(port), host], /listening/);
}

/** `count` conversations, each from a port of its own, of `bytes` both ways. */
export async function ask(
	from: { netns: string },
	protocol: "tcp" | "udp",
	ip: string,
	port: number,
	{ bytes = 100, count = 1 }: { bytes?: number; count?: number } = {},
): Promise<Answer[]> {
	const argv = ["node", TALKER, "ask", protocol, ip, String(port), String(bytes), String(count)];
	return JSON.parse(await inside(from, ...argv)) as Answer[];
}
