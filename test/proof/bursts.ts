// Storms of changes: a ruleset rewritten ten times a second as kube-proxy may, and pods starting by the hundred. What is left of the
// fast path, and what the agent costs meanwhile.
import { readFileSync } from "node:fs";
import { setTimeout } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import type { Status } from "../../src/agent/api.js";
import { agentRequest } from "../../src/agent/client.js";
import { type LabAgent, startAgent } from "../../src/lab/agent.js";
import { inNetns, run } from "../../src/lab/command.js";
import { labDown, labUp } from "../../src/lab/lab.js";
import { DEFAULT_SPEC, type LabHost, type LabPod } from "../../src/lab/topology.js";
import { background, end } from "../e2e/world.js";
import { openCrowd } from "./crowd.js";
import type { Proof, ProofOptions } from "./proof.js";
import type { Talk } from "./talk.js";

const NAME = "prf-burst";
const TALK = fileURLToPath(new URL("./talk.js", import.meta.url));
const REWRITE_MS = 100;
/** USER_HZ. */
const TICKS_PER_S = 100;

export const bursts: Proof = {
	name: "bursts",
	claim: "storms of changes leave most of the fast path, and cost the agent a part of one CPU",
	unit: "seconds",
	small: 3,
	full: 30,
	run: proveBursts,
};

async function proveBursts({ amount, signal, progress }: ProofOptions) {
	const failures: string[] = [];
	const figures: Record<string, string | number> = {};
	await labDown(NAME);
	const lab = await labUp({ ...DEFAULT_SPEC, name: NAME }, { signal });
	const [h1, h2] = lab.hosts as [LabHost, LabHost];
	const [client, server] = [h1.pods[0], h2.pods[0]] as [LabPod, LabPod];
	const crowd = await openCrowd(NAME);
	const agents: LabAgent[] = [];
	try {
		for (const host of lab.hosts) agents.push(await startAgent(host, { signal }));
		const child = await background(server, [process.execPath, TALK, "serve"], /listening/);
		try {
			const storms: Record<string, (isOver: () => boolean) => Promise<string>> = {
				calm: async () => "",
				"10 rulesets a second": async (isOver) => {
					let changes = 0;
					for (; !isOver(); changes++) {
						await run(inNetns(h1.netns, ["iptables-restore", "--noflush"]), {
							input:
								"*nat\n:KUBE-SERVICES - [0:0]\n-F KUBE-SERVICES\n-A KUBE-SERVICES -d 10.96.0.1/32 -p tcp --dport 443 -j RETURN\nCOMMIT\n",
						});
						await setTimeout(REWRITE_MS);
					}
					return `, ${changes} rewrites`;
				},
				"pods starting": async (isOver) => {
					let pods = 0;
					for (; !isOver() && pods < 1000; pods++)
						await run(inNetns(h1.netns, ["ip", "-batch", "-"]), {
							input: `link add burst${pods} mtu 1450 type veth peer name eth${pods} netns ${crowd.netns}\nlink set burst${pods} master cni0 up\n`,
						});
					return `, ${pods} pods`;
				},
			};
			for (const [name, storm] of Object.entries(storms)) {
				progress(name);
				let isOver = false;
				const before = await look(h1, agents[0]?.pid ?? 0);
				const talking = run(inNetns(client.netns, [process.execPath, TALK, "ask", server.ip, String(amount)]), {
					signal,
				}).finally(() => {
					isOver = true;
				});
				const [{ stdout }, note] = await Promise.all([talking, storm(() => isOver)]);
				const after = await look(h1, agents[0]?.pid ?? 0);
				const { stream, tcp, udp, connections } = JSON.parse(stdout) as Talk;
				for (const { failed } of [stream, tcp, connections]) if (failed !== null) failures.push(`${name}: ${failed}`);
				if (udp.lost > 0) failures.push(`${name}: ${udp.lost} datagrams were lost`);
				const fast = after.fast - before.fast;
				const share = (100 * fast) / (fast + after.slow - before.slow);
				figures[`${name}: fast, %; agent, % of a CPU`] =
					`${share.toFixed(1)}; ${((100 * (after.cpuS - before.cpuS)) / (after.atS - before.atS)).toFixed(1)}${note}`;
				figures[`${name}: TCP answers, UDP answers, connections a second`] = [
					tcp.answers,
					udp.answers,
					connections.done,
				]
					.map((n) => Math.round(n / amount))
					.join(", ");
				if (fast === 0) failures.push(`${name}: no packet took the fast path`);
			}
		} finally {
			await end(child);
		}
		return { figures, failures };
	} finally {
		for (const agent of agents) await agent.stop();
		await labDown(NAME);
		await crowd.close();
	}
}

async function look(host: LabHost, pid: number) {
	const { packets } = await agentRequest<Status>(host.socket, "GET", "/v1/status", undefined, { timeoutMs: 60_000 });
	const both = [packets.egress, packets.ingress];
	const stat = readFileSync(`/proc/${pid}/stat`, "utf8").split(") ")[1]?.split(" ") ?? [];
	return {
		fast: both.reduce((sum, { fast }) => sum + fast, 0),
		slow: both.reduce((sum, { fallback }) => sum + Object.values(fallback).reduce((a, b) => a + b, 0), 0),
		cpuS: (Number(stat[11]) + Number(stat[12])) / TICKS_PER_S,
		atS: performance.now() / 1000,
	};
}
