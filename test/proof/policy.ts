// Rules that forbid and allow warm flows at random, with the agents alive and dead, against an oracle that knows the rules:
// nothing that is forbidden passes later than the bound, nothing that is allowed is lost.
import { setTimeout } from "node:timers/promises";
import { type LabAgent, startAgent } from "../../src/lab/agent.js";
import { inNetns, run } from "../../src/lab/command.js";
import { labDown, labUp } from "../../src/lab/lab.js";
import { DEFAULT_SPEC, type LabHost, type LabPod } from "../../src/lab/topology.js";
import { monotonicMs } from "./beacon.js";
import { type Proof, type ProofOptions, random } from "./proof.js";
import { Beacon } from "./sightings.js";

const NAME = "prf-policy";
const PORT = 7200;
const SOURCES = Array.from({ length: 8 }, (_, i) => 7300 + i);
const INTERVAL_MS = 4;
/** Short, so that flips with dead agents do not take long. */
const BOUND_MS = 400;
/** The programs reckon in ticks, and a datagram is under way for a moment. */
const TICK_MS = 12;
const WARM_UP = 100;
/** One flip in so many happens while no agent is alive. */
const DEAD_EVERY = 10;

interface Denial {
	source: number;
	how: string;
	isDead: boolean;
	/** When the rule was there for certain, and when it may have been taken away. */
	fromMs: number;
	untilMs: number;
	/** When it was asked for, and when it was gone for certain. */
	earliestMs: number;
	latestMs: number;
}

export const policy: Proof = {
	name: "policy",
	claim: "what a rule forbids stops within the bound, what no rule forbids is not lost",
	unit: "flips",
	small: 12,
	full: 400,
	run: provePolicy,
};

async function provePolicy({ seed, amount, signal, progress }: ProofOptions) {
	const next = random(seed);
	await labDown(NAME);
	const lab = await labUp({ ...DEFAULT_SPEC, name: NAME }, { signal });
	const [h1, h2] = lab.hosts as [LabHost, LabHost];
	const [client, server] = [h1.pods[0], h2.pods[0]] as [LabPod, LabPod];
	const args = ["--max-staleness-ms", String(BOUND_MS)];
	let agents: LabAgent[] = [];
	const startAgents = async (): Promise<void> => {
		agents = await Promise.all(lab.hosts.map((host) => startAgent(host, { args, signal })));
	};
	const beacons: Beacon[] = [];
	const denials: Denial[] = [];
	const hosts = [h1, h2];
	try {
		await startAgents();
		for (const host of hosts)
			await run(
				inNetns(host.netns, [
					"nft",
					"add table ip proof; add chain ip proof f { type filter hook forward priority 0; }",
				]),
			);
		const echo = await Beacon.echo(server.netns, PORT);
		const sender = Beacon.send(client.netns, server.ip, PORT, INTERVAL_MS, SOURCES);
		beacons.push(echo, sender);
		while (sender.answered.length < WARM_UP * SOURCES.length) await sender.reported();
		for (let flip = 0; flip < amount; flip++) {
			signal.throwIfAborted();
			const isDead = flip % DEAD_EVERY === DEAD_EVERY - 1;
			if (isDead) for (const agent of agents) await agent.kill();
			const source = SOURCES[Math.floor(next() * SOURCES.length)] as number;
			const host = hosts[Math.floor(next() * 2)] as LabHost;
			const ways = rules(source);
			const { how, add, remove } = ways[Math.floor(next() * ways.length)] as Rule;
			const earliestMs = monotonicMs();
			await run(inNetns(host.netns, add));
			const fromMs = monotonicMs();
			await setTimeout((isDead || how === "iptables-legacy" ? BOUND_MS : 0) + 100 + next() * 200);
			const untilMs = monotonicMs();
			await run(inNetns(host.netns, remove));
			denials.push({ source, how, isDead, fromMs, untilMs, earliestMs, latestMs: monotonicMs() });
			if (isDead) await startAgents();
			await setTimeout(50 + next() * 150);
			progress(`${flip + 1} of ${amount} flips`);
		}
		await sender.reported();
		for (let i = 0; i < 3; i++) await echo.reported();
		return judge(denials, sender, echo);
	} finally {
		for (const beacon of beacons) await beacon.stop();
		for (const agent of agents) await agent.stop();
		await labDown(NAME);
	}
}

interface Rule {
	how: string;
	add: string[];
	remove: string[];
}

function rules(source: number): Rule[] {
	const match = `-p udp --sport ${source} -j DROP`.split(" ");
	return [
		{
			how: "iptables",
			add: ["iptables", "-I", "FORWARD", ...match],
			remove: ["iptables", "-D", "FORWARD", ...match],
		},
		{
			how: "iptables-legacy",
			add: ["iptables-legacy", "-I", "FORWARD", ...match],
			remove: ["iptables-legacy", "-D", "FORWARD", ...match],
		},
		{
			how: "nft",
			add: ["nft", `add rule ip proof f udp sport ${source} drop`],
			remove: ["nft", "flush chain ip proof f"],
		},
	];
}

function judge(denials: readonly Denial[], sender: Beacon, echo: Beacon) {
	const failures: string[] = [];
	const latest = { told: [] as number[], untold: [] as number[] };
	for (const { source, how, isDead, fromMs, untilMs } of denials) {
		const passed = echo.arrived.filter(([port, , at]) => port === source && at > fromMs && at < untilMs);
		const lateMs = Math.max(0, ...passed.map(([, , at]) => at - fromMs));
		// The kernel does not tell of rules of the old iptables: the bound holds for them.
		latest[isDead || how === "iptables-legacy" ? "untold" : "told"].push(lateMs);
		if (lateMs > BOUND_MS + TICK_MS)
			failures.push(
				`${how}: a datagram passed ${Math.round(lateMs)} ms after it was forbidden, agents ${isDead ? "dead" : "alive"}`,
			);
	}
	const arrived = new Set(echo.arrived.map(([port, number]) => `${port} ${number}`));
	const end = sender.sent.at(-1)?.[2] ?? 0;
	const isAllowed = (source: number, at: number): boolean =>
		at < end - 1000 &&
		!denials.some((each) => each.source === source && at >= each.earliestMs - TICK_MS && at <= each.latestMs);
	const allowed = sender.sent.filter(([source, , at]) => isAllowed(source, at));
	const lost = allowed.filter(([source, number]) => !arrived.has(`${source} ${number}`));
	for (const [source, number, at] of lost.slice(0, 10))
		failures.push(`datagram ${number} from port ${source} was lost at ${at.toFixed(0)} ms although nothing forbade it`);
	const most = (values: readonly number[]): string => (values.length > 0 ? Math.max(...values).toFixed(1) : "-");
	const sorted = [...latest.told].sort((a, b) => a - b);
	return {
		figures: {
			"bound, ms": BOUND_MS,
			"flips that the kernel told a living agent": latest.told.length,
			"of them, last datagram after the rule, ms (median, max)": `${sorted[sorted.length >> 1]?.toFixed(1)}, ${most(latest.told)}`,
			"flips with dead agents or the old iptables": latest.untold.length,
			"of them, last datagram after the rule, ms (max)": most(latest.untold),
			"datagrams that were allowed": allowed.length,
			"of them lost": lost.length,
		},
		failures,
	};
}
