// What the tests of Antrea share: a lab with a real Open vSwitch, and looks at it.
import { type LabAgent, startAgent } from "../../src/lab/agent.js";
import { numbered } from "../../src/lab/antrea.js";
import { labDown, labUp } from "../../src/lab/lab.js";
import { ovs } from "../../src/lab/switch.js";
import { type Lab, type LabHost, type LabPod, type LabSpec, SWITCH, specOf } from "../../src/lab/topology.js";
import { UDP_PORT } from "./exchange.js";
import { runThread } from "./thread.js";
import { inside, PEER, watchedHosts } from "./world.js";

export const NAME = "e2e-antrea";
const COOKIE = "cookie=0x6f6e636163686500/-1";
export const MARK_FLOWS = 16;

export interface World {
	lab: Lab;
	h1: LabHost;
	h2: LabHost;
	from: LabPod;
	beside: LabPod;
	to: LabPod;
	agents: LabAgent[];
	down(): Promise<void>;
}

/** Or why this kernel cannot have it. */
export async function up(given: Partial<LabSpec>, args?: readonly string[]): Promise<World | string> {
	await labDown(NAME);
	let lab: Lab;
	try {
		lab = await labUp(specOf({ overlay: "antrea", ...given, name: NAME }));
	} catch (error) {
		const { message } = error as Error;
		if (/this kernel has none/.test(message)) return message;
		throw error;
	}
	const [h1, h2] = lab.hosts as [LabHost, LabHost];
	const agents: LabAgent[] = [];
	const down = async (): Promise<void> => {
		for (const agent of agents) await agent.stop();
		await labDown(NAME);
	};
	try {
		if (args) agents.push(...(await Promise.all(watchedHosts(lab).map((host) => startAgent(host, { args })))));
	} catch (error) {
		await down();
		throw error;
	}
	const [from, beside] = h1.pods as [LabPod, LabPod];
	return { lab, h1, h2, from, beside, to: h2.pods[0] as LabPod, agents, down };
}

export async function markFlows(host: LabHost): Promise<number> {
	const { stdout } = await ovs(host, ["ovs-ofctl", "--no-stats", "dump-flows", SWITCH, COOKIE]);
	return stdout.split("\n").filter((line) => line.includes("actions=")).length;
}

export async function addFlow(host: LabHost, flow: string): Promise<void> {
	await ovs(host, ["ovs-ofctl", "add-flow", SWITCH, numbered(flow)]);
}

/** UDP datagrams that sockets of this pod have got. */
export async function received({ netns }: LabPod): Promise<number> {
	const lines = (await inside({ netns }, "cat", "/proc/net/snmp"))
		.split("\n")
		.filter((line) => line.startsWith("Udp:"));
	const [names = [], values = []] = lines.map((line) => line.split(" "));
	return Number(values[names.indexOf("InDatagrams")]);
}

/** @returns how many of `count` datagrams came back */
export const ask = async (from: LabPod, to: LabPod, sourcePort: number, count: number): Promise<number> =>
	Number(
		(await runThread(from, PEER, ["ask", to.ip, String(UDP_PORT), String(sourcePort), ...Array(count).fill("100")]))
			.stdout,
	);
