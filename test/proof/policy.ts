// Rules that forbid and allow warm flows at random, with the agents alive and dead, against an oracle that knows the rules:
// nothing that is forbidden passes later than the bound, nothing that is allowed is lost.
import { setTimeout } from "node:timers/promises";
import type { Status } from "../../src/agent/api.js";
import { agentRequest } from "../../src/agent/client.js";
import { type LabAgent, startAgent } from "../../src/lab/agent.js";
import { inNetns, run } from "../../src/lab/command.js";
import { labDown, labUp } from "../../src/lab/lab.js";
import { applyServices } from "../../src/lab/services.js";
import { DEFAULT_SPEC, type LabHost, type LabPod } from "../../src/lab/topology.js";
import { monotonicMs, type Sighting } from "./beacon.js";
import { type Proof, type ProofOptions, random } from "./proof.js";
import { Beacon } from "./sightings.js";

const NAME = "prf-policy";
const PORT = 7200;
const FLOWS_PER_WAY = 3;
const [CLUSTER_IP, CLUSTER_IP6] = ["10.96.0.10", "fd00:10:96::10"];
const INTERVAL_MS = 10;
/** Short, so that flips with dead agents do not take long. */
const BOUND_MS = 400;
/** The programs reckon in ticks, and a datagram is under way for a moment. */
const TICK_MS = 12;
const WARM_UP = 50;
/** One flip in so many happens while no agent is alive. */
const DEAD_EVERY = 10;

/** Who calls whom, and which rules on which hosts its packets pass. */
interface Way {
	name: string;
	client: LabPod;
	called: string;
	sources: number[];
	hosts: LabHost[];
	family: 4 | 6;
}

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
	const lab = await labUp({ ...DEFAULT_SPEC, name: NAME, family: "dual", podNetwork: "ptp" }, { signal });
	const [h1, h2] = lab.hosts as [LabHost, LabHost];
	const [client, neighbour, server] = [h1.pods[0], h1.pods[1], h2.pods[0]] as [LabPod, LabPod, LabPod];
	const ways = waysOf({ h1, h2, client, neighbour, server });
	const args = ["--max-staleness-ms", String(BOUND_MS)];
	let agents: LabAgent[] = [];
	const startAgents = async (): Promise<void> => {
		agents = await Promise.all(lab.hosts.map((host) => startAgent(host, { args, signal })));
	};
	const beacons: Beacon[] = [];
	const denials: Denial[] = [];
	const sources = ways.flatMap((way) => way.sources);
	try {
		await startAgents();
		const backends = (ip: string | undefined) => [{ ip: ip as string, port: PORT }];
		const service = { port: PORT, protocol: "udp" as const };
		const services = [
			{ ...service, name: "default/four:udp", clusterIp: CLUSTER_IP, backends: backends(server.ip) },
			{ ...service, name: "default/six:udp", clusterIp: CLUSTER_IP6, backends: backends(server.addresses[1]) },
		];
		for (const host of lab.hosts) {
			await applyServices(host, services, "nftables");
			await run(
				inNetns(host.netns, [
					"nft",
					"add table inet proof; add chain inet proof f { type filter hook forward priority 0; }",
				]),
			);
		}
		const echoes = await Promise.all([server, neighbour].map(({ netns }) => Beacon.echo(netns, PORT)));
		const senders = ways.map((way) => Beacon.send(way.client.netns, way.called, PORT, INTERVAL_MS, way.sources));
		beacons.push(...echoes, ...senders);
		for (const sender of senders) while (sender.answered.length < WARM_UP * FLOWS_PER_WAY) await sender.reported();
		for (let flip = 0; flip < amount; flip++) {
			signal.throwIfAborted();
			const isDead = flip % DEAD_EVERY === DEAD_EVERY - 1;
			if (isDead) for (const agent of agents) await agent.kill();
			const source = sources[Math.floor(next() * sources.length)] as number;
			const { hosts, family, name } = ways.find((way) => way.sources.includes(source)) as Way;
			const host = hosts[Math.floor(next() * hosts.length)] as LabHost;
			const choice = rules(source, family);
			const { how, add, remove } = choice[Math.floor(next() * choice.length)] as Rule;
			const earliestMs = monotonicMs();
			await run(inNetns(host.netns, add));
			const fromMs = monotonicMs();
			await setTimeout((isDead ? BOUND_MS : 0) + 100 + next() * 200);
			const untilMs = monotonicMs();
			await run(inNetns(host.netns, remove));
			denials.push({
				source,
				how: `${how}, ${name}`,
				isDead,
				fromMs,
				untilMs,
				earliestMs,
				latestMs: monotonicMs(),
			});
			if (isDead) await startAgents();
			await setTimeout(50 + next() * 150);
			progress(`${flip + 1} of ${amount} flips`);
		}
		for (const sender of senders) await sender.reported();
		for (let i = 0; i < 3; i++) for (const echo of echoes) await echo.reported();
		const arrived = echoes.flatMap((echo) => echo.arrived);
		const fast = await fastOf(lab.hosts);
		return judge(denials, { sent: senders.flatMap(({ sent }) => sent), arrived, fast, ways: ways.length });
	} finally {
		for (const beacon of beacons) await beacon.stop();
		for (const agent of agents) await agent.stop();
		await labDown(NAME);
	}
}

const sourcesOf = (sightings: readonly Sighting[]): number[] => [...new Set(sightings.map(([source]) => source))];

async function fastOf(hosts: readonly LabHost[]): Promise<number> {
	const statuses = await Promise.all(hosts.map(({ socket }) => agentRequest<Status>(socket, "GET", "/v1/status")));
	return statuses.reduce((sum, { packets }) => sum + packets.egress.fast + packets.ingress.fast, 0);
}

function waysOf(given: { h1: LabHost; h2: LabHost; client: LabPod; neighbour: LabPod; server: LabPod }): Way[] {
	const { h1, h2, client, neighbour, server } = given;
	const both = [h1, h2];
	const called: [string, string[], LabHost[]][] = [
		["to another host", server.addresses, both],
		["to the same host", neighbour.addresses, [h1]],
		["to a Service", [CLUSTER_IP, CLUSTER_IP6], both],
	];
	let port = 7300;
	return called.flatMap(([name, addresses, hosts]) =>
		addresses.map((ip) => {
			const family = ip.includes(":") ? 6 : 4;
			const sources = Array.from({ length: FLOWS_PER_WAY }, () => port++);
			return { name: `IPv${family} ${name}`, client, called: ip, sources, hosts, family };
		}),
	);
}

interface Rule {
	how: string;
	add: string[];
	remove: string[];
}

function rules(source: number, family: 4 | 6): Rule[] {
	const match = `-p udp --sport ${source} -j DROP`.split(" ");
	const tool = family === 4 ? "iptables" : "ip6tables";
	return [
		{ how: "iptables", add: [tool, "-I", "FORWARD", ...match], remove: [tool, "-D", "FORWARD", ...match] },
		{
			how: "iptables-legacy",
			add: [`${tool}-legacy`, "-I", "FORWARD", ...match],
			remove: [`${tool}-legacy`, "-D", "FORWARD", ...match],
		},
		{
			how: "nft",
			add: ["nft", `add rule inet proof f udp sport ${source} drop`],
			remove: ["nft", "flush chain inet proof f"],
		},
	];
}

interface Seen {
	sent: readonly Sighting[];
	arrived: readonly Sighting[];
	/** Packets. */
	fast: number;
	ways: number;
}

function judge(denials: readonly Denial[], { sent, arrived, fast, ways }: Seen) {
	const failures: string[] = [];
	const latest = { alive: [] as number[], dead: [] as number[] };
	if (fast === 0) failures.push("no packet took the fast path: this has proved nothing");
	for (const { source, how, isDead, fromMs, untilMs } of denials) {
		const passed = arrived.filter(([port, , at]) => port === source && at > fromMs && at < untilMs);
		const lateMs = Math.max(0, ...passed.map(([, , at]) => at - fromMs));
		latest[isDead ? "dead" : "alive"].push(lateMs);
		if (lateMs > BOUND_MS + TICK_MS)
			failures.push(
				`${how}: a datagram passed ${Math.round(lateMs)} ms after it was forbidden, agents ${isDead ? "dead" : "alive"}`,
			);
	}
	const known = new Set(arrived.map(([port, number]) => `${port} ${number}`));
	const end = Math.min(...sourcesOf(sent).map((source) => sent.findLast(([port]) => port === source)?.[2] ?? 0));
	const isAllowed = (source: number, at: number): boolean =>
		at < end - 1000 &&
		!denials.some((each) => each.source === source && at >= each.earliestMs - TICK_MS && at <= each.latestMs);
	const allowed = sent.filter(([source, , at]) => isAllowed(source, at));
	const lost = allowed.filter(([source, number]) => !known.has(`${source} ${number}`));
	for (const [source, number, at] of lost.slice(0, 10))
		failures.push(`datagram ${number} from port ${source} was lost at ${at.toFixed(0)} ms although nothing forbade it`);
	const most = (values: readonly number[]): string => (values.length > 0 ? Math.max(...values).toFixed(1) : "-");
	const sorted = [...latest.alive].sort((a, b) => a - b);
	return {
		figures: {
			"bound, ms": BOUND_MS,
			"ways: IPv4 and IPv6, to another host, the same one, and a Service": ways,
			"packets on the fast path": fast,
			"flips with agents alive": latest.alive.length,
			"of them, last datagram after the rule, ms (median, max)": `${sorted[sorted.length >> 1]?.toFixed(1)}, ${most(latest.alive)}`,
			"flips with agents dead": latest.dead.length,
			"of them, last datagram after the rule, ms (max)": most(latest.dead),
			"datagrams that were allowed": allowed.length,
			"of them lost": lost.length,
		},
		failures,
	};
}
