// Pods by the dozen from a real containerd, through the CRI, with ONCache's CNI plugin in the chain: all of them fast, none of them
// disturbed when the agent is killed, addresses handed on, and nothing left in the agent or the kernel when they have gone.
import { readdirSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { summarise } from "../../src/bench/statistics.js";
import { Datapath } from "../../src/datapath/datapath.js";
import { type LabAgent, startAgent } from "../../src/lab/agent.js";
import { startContainerd } from "../../src/lab/containerd.js";
import { labDown, labUp } from "../../src/lab/lab.js";
import { patiently } from "../../src/lab/patience.js";
import { type LabHost, specOf } from "../../src/lab/topology.js";
import { eventually, ping, statusOf } from "../e2e/world.js";
import { Cri, type RunningPod } from "../runtime/cri.js";
import type { Proof, ProofOptions } from "./proof.js";

const NAME = "prf-runtime";
const PLUGIN = fileURLToPath(new URL("../../../bin/oncache-cni", import.meta.url));
/** At a time, as a kubelet does. */
const AT_ONCE = 4;
/** Of each pod. */
const PINGS = 50;
const LEAST_SHARE = 0.9;
/** While the agent is away and comes back. */
const LONG_PINGS = 200;
const LIMIT_MS = patiently(60_000);

export const runtime: Proof = {
	name: "runtime",
	claim: "pods of containerd are fast from the start, undisturbed by the agent's death, and leave nothing",
	unit: "pods",
	small: 10,
	full: 100,
	run: proveRuntime,
};

async function proveRuntime({ amount, signal, progress }: ProofOptions) {
	await labDown(NAME);
	const lab = await labUp(specOf({ name: NAME, pods: 1 }), { signal });
	const [h1, h2] = lab.hosts as [LabHost, LabHost];
	const failures: string[] = [];
	const startMs: number[] = [];
	const removeMs: number[] = [];
	const clients: Cri[] = [];
	let datapath: Datapath | undefined;
	let agent: LabAgent | undefined;
	try {
		agent = await startAgent(h1, { signal });
		const other = await startAgent(h2, { signal });
		const containerds = await Promise.all(
			[h1, h2].map((host) =>
				startContainerd(host, lab, {
					...{ addresses: amount, programs: [PLUGIN], signal },
					chained: [{ type: "oncache-cni", socket: host.socket, last: true }],
				}),
			),
		);
		for (const containerd of containerds) clients.push(await Cri.connect(containerd));
		const [near, far] = clients as [Cri, Cri];
		const target = await far.runPod({ name: "target" });
		datapath = Datapath.openPinned(h1.bpffs);
		const opened = datapath as Datapath;
		const look = () => ({ pins: readdirSync(`${h1.bpffs}/links`).length, veths: opened.veths().length });
		const before = look();

		const makePods = (generation: string, count: number): Promise<RunningPod[]> =>
			inTurn(count, async (i) => {
				signal.throwIfAborted();
				const started = performance.now();
				const pod = await near.runPod({ name: `${generation}${i}` });
				startMs.push(performance.now() - started);
				progress(`${startMs.length} pods`);
				return pod;
			});
		const removePods = async (pods: readonly RunningPod[]): Promise<void> => {
			await inTurn(pods.length, async (i) => {
				const started = performance.now();
				await near.removePod(pods[i] as RunningPod);
				removeMs.push(performance.now() - started);
			});
		};
		/** All at once. @returns the share of their packets that this host carried fast */
		const talk = async (
			pods: readonly RunningPod[],
			count: number,
			meanwhile?: () => Promise<void>,
		): Promise<number> => {
			const sums = async () => {
				const { egress, ingress } = (await statusOf(h1)).packets;
				return egress.fast + ingress.fast;
			};
			const fast = await sums();
			const [results] = await Promise.all([
				Promise.all(pods.map((pod) => ping(pod, target, "-c", String(count), "-i", "0.02", "-W", "1"))),
				meanwhile?.(),
			]);
			for (const [i, { sent, received }] of results.entries())
				if (received < sent) failures.push(`${pods[i]?.name}: ${received} of ${sent} answers`);
			return ((await sums()) - fast) / (2 * pods.length * count);
		};

		const first = await makePods("a", amount);
		const shares = [await talk(first, PINGS)];

		shares.push(
			await talk(first, LONG_PINGS, async () => {
				await agent?.kill();
				agent = await startAgent(h1, { signal, limitMs: LIMIT_MS });
			}),
		);

		// There are no more addresses than pods: half of them are handed on.
		const [gone, kept] = [first.slice(0, Math.floor(amount / 2)), first.slice(Math.floor(amount / 2))];
		await removePods(gone);
		const heirs = await makePods("b", gone.length);
		const inherited = heirs.filter(({ ip }) => gone.some((pod) => pod.ip === ip)).length;
		if (inherited < heirs.length) failures.push(`${heirs.length - inherited} pods have an address of nobody`);
		shares.push(await talk(heirs, PINGS));
		for (const share of shares)
			if (share < LEAST_SHARE) failures.push(`${(share * 100).toFixed(1)} % of the packets were fast`);

		await removePods([...kept, ...heirs]);
		await eventually("the agent has forgotten them", () => JSON.stringify(look()) === JSON.stringify(before), LIMIT_MS);
		const left = await near.pods();
		if (left.length > 0) failures.push(`containerd still knows ${left.join(", ")}`);
		const rss = Math.round(
			Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${agent.pid}/status`, "utf8"))?.[1]) / 1024,
		);
		await agent.stop();
		await other.stop();
		await Promise.all(containerds.map((containerd) => containerd.stop()));
		return {
			figures: {
				"pods made, and of these with the address of an earlier one": `${startMs.length}, ${inherited}`,
				"pod up, ms, median and longest": spread(startMs),
				"pod removed, ms, median and longest": spread(removeMs),
				"fast packets, %, of new pods, while the agent is killed, of the heirs": shares
					.map((share) => (share * 100).toFixed(1))
					.join(", "),
				"RSS of the agent at the end, MiB": rss,
			},
			failures,
		};
	} finally {
		for (const client of clients) client.close();
		datapath?.close();
		await labDown(NAME);
	}
}

function spread(valuesMs: readonly number[]): string {
	const { median, max } = summarise(valuesMs);
	return `${Math.round(median)}, ${Math.round(max)}`;
}

/** A few at a time, all of `count`. */
async function inTurn<Result>(count: number, body: (i: number) => Promise<Result>): Promise<Result[]> {
	const results: Result[] = [];
	let next = 0;
	const worker = async (): Promise<void> => {
		for (let i = next++; i < count; i = next++) results[i] = await body(i);
	};
	await Promise.all(Array.from({ length: AT_ONCE }, worker));
	return results;
}
