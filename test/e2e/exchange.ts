// Exchanges between pods that are long enough to become fast, and how much of them did.
import assert from "node:assert/strict";
import { isIPv6 } from "node:net";
import type { Worker } from "node:worker_threads";
import type { Reason } from "../../src/datapath/layout.js";
import { PATIENCE } from "../../src/lab/patience.js";
import type { LabHost, LabPod } from "../../src/lab/topology.js";
import { ask, serve } from "./talk.js";
import { runThread, startThread } from "./thread.js";
import { PEER, ping, statusOf } from "./world.js";

/** Of the packets in both directions: the first ones teach. */
export const MOST = 0.8;
export const [TCP_PORT, UDP_PORT] = [8080, 7000];
/** Packets each way, at least. */
export const ROUNDS = 60;
/** Long enough that the first packets, which teach, are few of them: as the stack hands them over, each has up to 64 KiB. */
const STREAM_BYTES = Math.max(1_500_000, Math.floor(8_000_000 / PATIENCE));

export interface Target {
	ip: string;
	tcpPort?: number;
	udpPort?: number;
}

/** Until they are ended. */
export function answerAll(pod: LabPod): Promise<Worker[]> {
	const any = pod.addresses.some((ip) => isIPv6(ip)) ? "::" : "0.0.0.0";
	return Promise.all([serve(pod, TCP_PORT), startThread(pod, PEER, ["echo", String(UDP_PORT), any], /listening/)]);
}

/** Each fails when something does not come back as it was sent. */
export const EXCHANGES = {
	udp: async (from: LabPod, { ip, udpPort = UDP_PORT }: Target): Promise<void> => {
		const sizes = Array.from({ length: ROUNDS }, (_, i) => String(1 + i * 20));
		const { stdout } = await runThread(from, PEER, ["ask", ip, String(udpPort), "0", ...sizes]);
		assert.equal(stdout.trim(), String(ROUNDS));
	},
	tcp: async (from: LabPod, { ip, tcpPort = TCP_PORT }: Target): Promise<void> => {
		const [answer] = await ask(from, "tcp", ip, tcpPort, { bytes: STREAM_BYTES });
		assert.equal(answer?.bytes, STREAM_BYTES);
	},
	icmp: async (from: LabPod, { ip }: Target): Promise<void> => {
		const { sent, received } = await ping(from, { ip } as LabPod, "-c", String(ROUNDS), "-i", "0.005", "-W", "1");
		assert.equal(received, sent);
	},
};

/** After an eviction nothing is learned for the guard time, which may be as long as a whole exchange. */
const ATTEMPTS = 3;

/**
 * Of the packets of pods that this host saw meanwhile, in both directions; those that took the fallback for reason `but` are
 * left out. Again when an eviction came in between: anything that happens on the machine may cause one.
 */
export async function fastShare(
	host: LabHost,
	body: () => Promise<void>,
	but: readonly Reason[] = [],
): Promise<number> {
	const isLeftOut = (why: string): boolean => ["not_ipv4", ...but].includes(why);
	const look = async (): Promise<{ fast: number; all: number; paused: number }> => {
		const { packets, lessons } = await statusOf(host);
		const sums = [packets.egress, packets.ingress].map(({ fast, fallback }) => ({
			fast,
			all: fast + Object.entries(fallback).reduce((sum, [why, count]) => sum + (isLeftOut(why) ? 0 : count), 0),
		}));
		return {
			fast: sums.reduce((sum, { fast }) => sum + fast, 0),
			all: sums.reduce((sum, { all }) => sum + all, 0),
			paused: (lessons.egress.paused ?? 0) + (lessons.ingress.paused ?? 0),
		};
	};
	for (let attempt = 1; ; attempt++) {
		const before = await look();
		await body();
		const after = await look();
		if (after.paused === before.paused || attempt === ATTEMPTS)
			return (after.fast - before.fast) / (after.all - before.all);
	}
}
