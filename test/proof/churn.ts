// Pods come and go by the thousand: the agent's descriptors, pins, map entries and memory stay what they were.
import { readdirSync, readFileSync } from "node:fs";
import { Datapath } from "../../src/datapath/datapath.js";
import { startAgent } from "../../src/lab/agent.js";
import { inNetns, run } from "../../src/lab/command.js";
import { labDown, labUp } from "../../src/lab/lab.js";
import { DEFAULT_SPEC, type LabHost, type LabPod } from "../../src/lab/topology.js";
import { eventually, ping } from "../e2e/world.js";
import { openCrowd } from "./crowd.js";
import type { Proof, ProofOptions } from "./proof.js";

const NAME = "prf-churn";
const BATCH = 50;
/** Of devices: removed all together, which the kernel does in one go. */
const GROUP = 77;
const LIMIT_MS = 60_000;
/** A garbage collector takes its time, so memory counts from here on. */
const FIFTHS = 5;
const WARM_UP_SHARE = 1 / FIFTHS;
const MOST_GROWTH = 1.3;

export const churn: Proof = {
	name: "churn",
	claim: "pods that come and go leave nothing in the agent or the kernel",
	unit: "pods",
	small: 100,
	full: 10_000,
	run: proveChurn,
};

async function proveChurn({ amount, signal, progress }: ProofOptions) {
	await labDown(NAME);
	const lab = await labUp({ ...DEFAULT_SPEC, name: NAME }, { signal });
	const [host, other] = lab.hosts as [LabHost, LabHost];
	const crowd = await openCrowd(NAME);
	const failures: string[] = [];
	let datapath: Datapath | undefined;
	try {
		const agents = [await startAgent(host, { signal }), await startAgent(other, { signal })];
		const pid = agents[0]?.pid ?? 0;
		datapath = Datapath.openPinned(host.bpffs);
		const opened = datapath as Datapath;
		const pins = (): string[] => readdirSync(`${host.bpffs}/links`);
		const own = pins().length;
		const look = () => ({
			descriptors: readdirSync(`/proc/${pid}/fd`).length,
			pins: pins().length,
			"veths in the map": opened.veths().length,
			"RSS, MiB": Math.round(Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1]) / 1024),
		});
		await ping(host.pods[0] as LabPod, other.pods[0] as LabPod, "-c", "5", "-i", "0.05", "-W", "1");
		let before = look();
		const fifths: number[] = [];
		for (let done = 0; done < amount; done += BATCH) {
			signal.throwIfAborted();
			const numbers = Array.from({ length: BATCH }, (_, i) => i);
			await batch(host, [
				...numbers.map((i) => `link add churn${i} mtu 1450 type veth peer name eth${i} netns ${crowd.netns}`),
				...numbers.map((i) => `link set churn${i} group ${GROUP} master cni0 up`),
			]);
			await eventually("every pod is attached", () => pins().length === own + 2 * BATCH, LIMIT_MS);
			await batch(host, [`link del group ${GROUP}`]);
			await eventually("every pod is gone", () => pins().length === own, LIMIT_MS);
			if (done < amount * WARM_UP_SHARE) before = look();
			if ((done + BATCH) / (amount / FIFTHS) >= fifths.length + 1) fifths.push(look()["RSS, MiB"]);
			progress(`${done + BATCH} of ${amount} pods`);
		}
		await eventually("the map of veths has followed", () => opened.veths().length === host.pods.length, LIMIT_MS);
		const after = look();
		for (const what of ["descriptors", "pins", "veths in the map"] as const)
			if (after[what] > before[what]) failures.push(`${what}: ${before[what]}, and ${after[what]} at the end`);
		if (after["RSS, MiB"] > before["RSS, MiB"] * MOST_GROWTH)
			failures.push(`RSS: ${before["RSS, MiB"]} MiB, and ${after["RSS, MiB"]} MiB at the end`);
		const { sent, received } = await ping(
			host.pods[0] as LabPod,
			other.pods[0] as LabPod,
			"-c",
			"5",
			"-i",
			"0.05",
			"-W",
			"1",
		);
		if (received < sent) failures.push("pings were lost at the end");
		for (const agent of agents) await agent.stop();
		const figures = Object.entries(before).map(([what, value]) => [
			`${what}, after a fifth and at the end`,
			`${value}, ${after[what as keyof typeof after]}`,
		]);
		return {
			figures: {
				"pods made and removed": amount,
				...Object.fromEntries(figures),
				"RSS, MiB, after each fifth": fifths.join(", "),
			},
			failures,
		};
	} finally {
		datapath?.close();
		await labDown(NAME);
		await crowd.close();
	}
}

async function batch(host: LabHost, lines: readonly string[]): Promise<void> {
	await run(inNetns(host.netns, ["ip", "-batch", "-"]), { input: `${lines.join("\n")}\n` });
}
