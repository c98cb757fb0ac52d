// What the end-to-end tests share: a lab with agents, and looks at it from the outside.
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { setTimeout } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { Worker } from "node:worker_threads";
import type { Status } from "../../src/agent/api.js";
import { agentRequest } from "../../src/agent/client.js";
import { addressOf, bpfSyscall } from "../../src/datapath/libbpf.js";
import { type LabAgent, ONCACHE, startAgent } from "../../src/lab/agent.js";
import { type Finished, inNetns, run } from "../../src/lab/command.js";
import { labDown, labUp } from "../../src/lab/lab.js";
import { PATIENCE, patiently } from "../../src/lab/patience.js";
import { isBridged, type Lab, type LabHost, type LabPod, type LabSpec, specOf } from "../../src/lab/topology.js";
import { endRunning, noteStarted } from "./running.js";

export interface TestLab {
	lab: Lab;
	h1: LabHost;
	h2: LabHost;
	p1: LabPod;
	p2: LabPod;
	agents: LabAgent[];
	/** Whatever tests have left: what still runs in the background ends, too. */
	down(): Promise<void>;
}

/** Two hosts; agents with `args` unless undefined. */
export async function upWithAgents(
	name: string,
	args: readonly string[] | undefined,
	given: Partial<LabSpec> = {},
): Promise<TestLab> {
	await labDown(name);
	const lab = await labUp(specOf({ ...given, name }));
	const [h1, h2] = lab.hosts as [LabHost, LabHost];
	const agents: LabAgent[] = [];
	const down = async (): Promise<void> => {
		await endRunning();
		try {
			for (const agent of agents) await agent.stop();
		} finally {
			await labDown(name);
		}
	};
	try {
		if (args) for (const host of lab.hosts) agents.push(await startAgent(host, { args }));
	} catch (error) {
		await down();
		throw error;
	}
	return { lab, h1, h2, p1: h1.pods[0] as LabPod, p2: h2.pods[0] as LabPod, agents, down };
}

/** An emulated CPU takes half a minute to start an agent: there only the host that is looked at has one. */
export function watchedHosts({ hosts }: Lab): LabHost[] {
	return PATIENCE < 10 ? hosts : hosts.slice(0, 1);
}

export async function inside(place: { netns: string }, ...argv: string[]): Promise<string> {
	return (await run(inNetns(place.netns, argv))).stdout;
}

export async function statusOf(host: LabHost): Promise<Status> {
	return agentRequest<Status>(host.socket, "GET", "/v1/status", undefined, { timeoutMs: patiently(5000) });
}

/** Packets that the tunnel device itself has carried: what took the fallback, by the kernel's own count. */
export async function tunnelPackets(host: LabHost): Promise<number> {
	const { rx, tx } = await deviceCounters(host, host.tunnel);
	return rx + tx;
}

export async function deviceCounters(place: { netns: string }, device: string): Promise<{ rx: number; tx: number }> {
	const [link] = JSON.parse(await inside(place, "ip", "-s", "-j", "link", "show", device)) as [
		{ stats64: { rx: { packets: number }; tx: { packets: number } } },
	];
	return { rx: link.stats64.rx.packets, tx: link.stats64.tx.packets };
}

/** Pings; the share of answers. */
export async function ping(
	from: { netns: string },
	to: { ip: string },
	...options: string[]
): Promise<{ sent: number; received: number }> {
	const { stdout } = await run(inNetns(from.netns, ["ping", "-n", ...options, to.ip]), { anyCode: true });
	const [, sent, received] = /(\d+) packets transmitted, (\d+) received/.exec(stdout) ?? [];
	return { sent: Number(sent), received: Number(received) };
}

/** Pings a hundred times a second until stopped; the identifier stays the same, so it is one flow. */
export function pinging(from: { netns: string }, ip: string): { stop(): Promise<void> } {
	const [file = "", ...args] = inNetns(from.netns, ["ping", "-n", "-q", "-i", "0.01", ip]);
	const child = spawn(file, args, { stdio: "ignore" });
	return {
		stop: async () => {
			const exited = once(child, "exit");
			child.kill("SIGINT");
			await exited;
		},
	};
}

/** Likewise while `body` runs; before it and after it the flow is fast on this host. */
export async function whilePinging(
	host: LabHost,
	from: { netns: string },
	ip: string,
	body: () => Promise<void>,
): Promise<void> {
	const fast = async (): Promise<number> => (await statusOf(host)).packets.egress.fast;
	const isFast = async (when: string): Promise<void> => {
		const then = await fast();
		await eventually(`the flow is fast ${when}`, async () => (await fast()) > then + 10);
	};
	const traffic = pinging(from, ip);
	try {
		await isFast("at first");
		await body();
		await isFast("again");
	} finally {
		await traffic.stop();
	}
}

/** Starts something that runs until end(), or until the lab or this process ends; resolves when it has said `sign`. */
export async function background(place: { netns: string }, argv: string[], sign?: RegExp): Promise<ChildProcess> {
	const [file = "", ...args] = ["setpriv", "--pdeathsig", "KILL", "--", ...inNetns(place.netns, argv)];
	const child = noteStarted(spawn(file, args, { stdio: ["ignore", "pipe", "pipe"] }));
	let said = "";
	const saysIt = new Promise<void>((resolve) => {
		for (const stream of [child.stdout, child.stderr])
			stream.on("data", (text) => {
				said += String(text);
				if (sign?.test(said)) resolve();
			});
	});
	if (sign)
		await Promise.race([
			saysIt,
			setTimeout(patiently(5000), undefined, { ref: false }).then(() =>
				Promise.reject(new Error(`${argv[0]} said "${said}"`)),
			),
		]);
	return child;
}

export async function end(child: ChildProcess | Worker): Promise<void> {
	if (child instanceof Worker) {
		await child.terminate();
		return;
	}
	if (child.exitCode !== null || child.signalCode !== null) return;
	const exited = once(child, "exit");
	child.kill("SIGTERM");
	await exited;
}

export const PEER = fileURLToPath(new URL("./peer.js", import.meta.url));

/** A command of ONCache on a host, whatever its exit code. */
export function oncache(host: LabHost, command: string, ...rest: string[]): Promise<Finished> {
	const place = ["--socket", host.socket, "--bpffs", host.bpffs];
	return run(inNetns(host.netns, [ONCACHE, command, ...place, ...rest]), { anyCode: true });
}

/** Awaits something that becomes true; what it waits for is the subject of the test, so the limit is generous. */
export async function eventually(
	what: string | (() => string),
	isSo: () => boolean | Promise<boolean>,
	limitMs = patiently(10_000),
): Promise<void> {
	const deadline = performance.now() + limitMs;
	while (!(await isSo())) {
		if (performance.now() > deadline)
			throw new Error(`Not within ${limitMs} ms: ${typeof what === "string" ? what : what()}`);
		await setTimeout(patiently(20));
	}
}

/** Why Services of pods on one bridge do not work on this machine, with ONCache or without; else false. For `describe()`. */
export function bridgesSkipIptables(spec: Partial<LabSpec>): string | false {
	if (!isBridged(specOf(spec)) || existsSync("/proc/sys/net/bridge/bridge-nf-call-iptables")) return false;
	return "what bridges forward does not pass iptables here (modprobe br_netfilter)";
}

const NEXT_ID = { programs: 11, maps: 12, links: 31 } as const;

/** Every BPF object that the kernel has, by kind and id. */
export function bpfObjects(): string[] {
	return Object.entries(NEXT_ID).flatMap(([kind, command]) => {
		const ids: string[] = [];
		const attributes = Buffer.alloc(16);
		addressOf(attributes);
		while (bpfSyscall(command, attributes) === 0) {
			const id = attributes.readUInt32LE(4);
			ids.push(`${kind} ${id}`);
			attributes.writeUInt32LE(id, 0);
		}
		return ids;
	});
}

/** Awaits that the kernel has freed every program, map and link but those that it had before. */
export async function freed(before: readonly string[]): Promise<void> {
	const left = () => bpfObjects().filter((each) => !before.includes(each));
	await eventually(
		() => `the kernel frees every program, map and link; there are still ${left().join(", ")}`,
		() => left().length === 0,
	);
}

/** They say what is going on, not what somebody has set. */
const COUNTS = /^net\.netfilter\.nf_conntrack_count\b/;

/** All that ONCache could leave in a host's network namespace. */
export async function traces(host: LabHost): Promise<Record<string, string>> {
	const links = JSON.parse(await inside(host, "ip", "-j", "link")) as { ifname: string }[];
	const filters = links.map(async ({ ifname }) =>
		(
			await Promise.all(["ingress", "egress"].map((hook) => inside(host, "tc", "filter", "show", "dev", ifname, hook)))
		).join(""),
	);
	const settings = await inside(host, "sysctl", "-a", "-r", "^net[.]");
	return {
		links: links
			.map(({ ifname }) => ifname)
			.sort()
			.join("\n"),
		// In the order of names: a device that was made again comes later in the kernel's list.
		qdiscs: (await inside(host, "tc", "qdisc", "show")).split("\n").sort().join("\n"),
		filters: (await Promise.all(filters)).join(""),
		ruleset: await inside(host, "nft", "-s", "list", "ruleset"),
		sysctls: settings
			.split("\n")
			.filter((line) => line !== "" && !COUNTS.test(line))
			.join("\n"),
		rules: await inside(host, "ip", "rule"),
		routes: await inside(host, "ip", "route"),
	};
}
