// Everything is evicted at random, in every way there is, under every kind of traffic: nobody notices.
import { setTimeout } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import type { Status } from "../../src/agent/api.js";
import { agentRequest } from "../../src/agent/client.js";
import { flush } from "../../src/agent/flush.js";
import { Datapath } from "../../src/datapath/datapath.js";
import { FlowKeys } from "../../src/datapath/flows.js";
import { startAgent } from "../../src/lab/agent.js";
import { inNetns, run } from "../../src/lab/command.js";
import { labDown, labUp } from "../../src/lab/lab.js";
import { patiently } from "../../src/lab/patience.js";
import { applyServices, type Service } from "../../src/lab/services.js";
import { DEFAULT_SPEC, type LabHost, type LabPod } from "../../src/lab/topology.js";
import { parseIpv4 } from "../../src/net/ipv4.js";
import { background, end } from "../e2e/world.js";
import { type Proof, type ProofOptions, random } from "./proof.js";
import type { Talk } from "./talk.js";
import { TALK_PORTS } from "./talk-ports.js";

const NAME = "prf-chaos";
const CLUSTER_IP = { there: "10.96.0.10", near: "10.96.0.20", there6: "fd00:10:96::10" };
const TALK = fileURLToPath(new URL("./talk.js", import.meta.url));
/** The longest pause between two evictions; the shortest is none. */
const CALM_MS = 300;
/** Half of the pauses are shorter than this. */
const STORM_MS = 5;
const STALL_MS = patiently(1000);

export const chaos: Proof = {
	name: "chaos",
	claim: "evictions at random under traffic: no reset, no byte lost, no stall over 1 s",
	unit: "seconds",
	small: 10,
	full: 240,
	run: proveChaos,
};

/** With the same ports as the pods themselves. */
function servicesOf(name: string, clusterIp: string, ip: string): Service[] {
	return [
		...TALK_PORTS.tcp.map((port) => ["tcp", port] as const),
		...TALK_PORTS.udp.map((port) => ["udp", port] as const),
	].map(([protocol, port]) => ({
		name: `default/${name}:${protocol}-${port}`,
		clusterIp,
		port,
		protocol,
		backends: [{ ip, port }],
	}));
}

const ipv6Of = ({ addresses }: LabPod): string => addresses[1] as string;

async function proveChaos({ seed, amount, signal, progress }: ProofOptions) {
	const next = random(seed);
	await labDown(NAME);
	const lab = await labUp({ ...DEFAULT_SPEC, name: NAME, family: "dual" }, { signal });
	const [h1, h2] = lab.hosts as [LabHost, LabHost];
	const opened: Datapath[] = [];
	const evictions: Record<string, number> = {};
	const failures: string[] = [];
	const stop: (() => Promise<unknown>)[] = [];
	try {
		for (const host of lab.hosts) {
			const agent = await startAgent(host, { signal });
			stop.push(() => agent.stop());
			const datapath = Datapath.openPinned(host.bpffs);
			if (datapath) opened.push(datapath);
		}
		// Called are another host's pod, one of the same host, and a Service in front of either, over IPv4 and IPv6.
		const [[a, b], [c, d]] = lab.hosts.map(({ pods }) => pods) as [[LabPod, LabPod], [LabPod, LabPod]];
		const ways: [LabPod, string, "briefly"?][] = [
			[a, c.ip],
			[d, b.ip, "briefly"],
			[a, b.ip],
			[c, CLUSTER_IP.there],
			[b, CLUSTER_IP.near, "briefly"],
			[a, ipv6Of(c)],
			[a, ipv6Of(b), "briefly"],
			[c, CLUSTER_IP.there6, "briefly"],
		];
		const services = [
			...servicesOf("there", CLUSTER_IP.there, a.ip),
			...servicesOf("near", CLUSTER_IP.near, a.ip),
			...servicesOf("there6", CLUSTER_IP.there6, ipv6Of(a)),
		];
		for (const host of lab.hosts) await applyServices(host, services, "nftables");
		for (const server of [a, b, c]) {
			const child = await background(server, [process.execPath, TALK, "serve"], /listening/);
			stop.push(() => end(child));
		}
		let isOver = false;
		const talks = Promise.all(
			ways.map(async ([client, ip, manner]) => {
				const argv = inNetns(client.netns, [
					process.execPath,
					TALK,
					"ask",
					ip,
					String(amount),
					...(manner ? [manner] : []),
				]);
				return JSON.parse((await run(argv, { signal })).stdout) as Talk;
			}),
		).finally(() => {
			isOver = true;
		});
		const pick = <T>(list: readonly T[]): T => list[Math.floor(next() * list.length)] as T;
		const ips = [a, b, c, d].flatMap(({ addresses }) => addresses);
		const evict: Record<string, (datapath: Datapath) => Promise<unknown> | unknown> = {
			everything: (datapath) => datapath.flushAll(),
			"a pod": (datapath) => flush(datapath, { pod: pick(ips) }),
			"a host": (datapath) => datapath.flushHost(parseIpv4(pick([h1, h2]).ip)),
			"a slot of the egress cache": (datapath) =>
				datapath.retireHosts((_, slot) => slot === pick(datapath.hosts())?.slot),
			"a slot of the ingress cache": (datapath) =>
				datapath.retirePods((_, slot) => slot === pick(datapath.pods())?.slot),
			"random flows": async (datapath) => {
				const keys = new FlowKeys();
				await datapath.scanFlows((chunk) => {
					for (let i = 0; i < chunk.count; i++) if (next() < 0.3) keys.add(chunk, i);
				});
				datapath.evictFlows(keys);
			},
			"use switched off and on": async (datapath) => {
				datapath.using = false;
				await setTimeout(next() * 20);
				datapath.using = true;
			},
			"learning held": (datapath) => datapath.holdLearning(next() * 100),
		};
		const started = performance.now();
		while (!isOver) {
			signal.throwIfAborted();
			const way = pick(Object.keys(evict));
			await evict[way]?.(pick(opened));
			evictions[way] = (evictions[way] ?? 0) + 1;
			await setTimeout(next() < 0.5 ? next() * STORM_MS : next() * CALM_MS);
			progress(`${Math.round((performance.now() - started) / 1000)} of ${amount} s`);
		}
		const seen = await talks;
		const statuses = await Promise.all(
			lab.hosts.map(({ socket }) => agentRequest<Status>(socket, "GET", "/v1/status")),
		);
		const counts = statuses.flatMap(({ packets }) => [packets.egress, packets.ingress]);
		const fast = counts.reduce((sum, { fast: one }) => sum + one, 0);
		const slow = counts.reduce((sum, { fallback }) => sum + Object.values(fallback).reduce((a, b) => a + b, 0), 0);
		for (const [i, { stream, tcp, udp, connections }] of seen.entries()) {
			const way = `${ways[i]?.[0].name} to ${ways[i]?.[1]}`;
			const fail = (what: string): void => void failures.push(`${way}, ${what}`);
			for (const [what, { failed }] of Object.entries({ stream, tcp, connections }))
				if (failed !== null) fail(`${what}: ${failed}`);
			if (stream.wrongBytes > 0) fail(`stream: ${stream.wrongBytes} bytes arrived wrong`);
			if (udp.lost > 0) fail(`udp: ${udp.lost} datagrams or their answers were lost`);
			const longest = {
				stream: stream.longestStallMs,
				tcp: tcp.longestMs,
				udp: udp.longestMs,
				connection: connections.longestMs,
			};
			for (const [what, ms] of Object.entries(longest))
				if (ms > STALL_MS)
					fail(
						`${what}: stood still for ${Math.round(ms)} ms${what === "connection" ? ` (${connections.longest})` : ""}`,
					);
		}
		if (fast === 0) failures.push("no packet took the fast path: this has proved nothing");
		const sum = (of: (talk: Talk) => number): number => seen.reduce((total, talk) => total + of(talk), 0);
		const most = (of: (talk: Talk) => number): string => Math.max(...seen.map(of)).toFixed(0);
		return {
			figures: {
				evictions: Object.values(evictions).reduce((a, b) => a + b, 0),
				"packets on the fast path": fast,
				"share of the fast path, %": ((100 * fast) / (fast + slow)).toFixed(1),
				"streamed, GB": (sum(({ stream }) => stream.bytes) / 1e9).toFixed(2),
				"TCP answers": sum(({ tcp }) => tcp.answers),
				"UDP answers": sum(({ udp }) => udp.answers),
				connections: sum(({ connections }) => connections.done),
				"longest stall: stream, TCP answer, UDP answer, connection, ms": [
					most(({ stream }) => stream.longestStallMs),
					most(({ tcp }) => tcp.longestMs),
					most(({ udp }) => udp.longestMs),
					most(({ connections }) => connections.longestMs),
				].join(", "),
				"resets, wrong bytes, lost datagrams": failures.length,
			},
			failures,
		};
	} finally {
		for (const datapath of opened) datapath.close();
		for (const each of stop.reverse()) await each();
		await labDown(NAME);
	}
}
