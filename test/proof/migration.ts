// A pod's address moves between two hosts under load: how long nobody answers, beside the plain overlay's own gap, and whether
// its old owner, or anybody else, ever gets a packet that is not his any more.
import { setTimeout } from "node:timers/promises";
import type { Lease } from "../../src/agent/api.js";
import { agentRequest } from "../../src/agent/client.js";
import { type LabAgent, startAgent } from "../../src/lab/agent.js";
import { inNetns, run } from "../../src/lab/command.js";
import { labDown, labUp } from "../../src/lab/lab.js";
import { DEFAULT_SPEC, type Lab, type LabHost, type LabPod } from "../../src/lab/topology.js";
import { monotonicMs } from "./beacon.js";
import { type Proof, type ProofOptions, random } from "./proof.js";
import { Beacon } from "./sightings.js";

const IP = "10.244.99.9";
const PORT = 7400;
const SOURCES = [7501, 7502, 7503, 7504];
const INTERVAL_MS = 2;
const GATEWAY_MAC = "0a:99:00:00:00:01";
/** Of both owners: as with a virtual machine that moves. */
const OWNER_MAC = "0a:99:00:00:00:09";
const WARM_UP = 50;

/** How the change is made: as it is, with notifications only, or with `oncache apply` around each command. */
type Way = "plain" | "notified" | "applied";

interface World {
	way: Way;
	lab: Lab;
	agents: LabAgent[];
	beacons: Beacon[];
	owners: Beacon[];
	sender: Beacon;
	/** Which of the two hosts has the address. */
	at: 0 | 1;
	gaps: number[];
	/** Packets that were sent after an owner had lost the address, and reached it: how long after, ms. */
	strays: number[];
}

export const migration: Proof = {
	name: "migration",
	claim: "an address that moves to another host reaches its new owner, and never its old one again",
	unit: "moves",
	small: 9,
	full: 600,
	run: proveMigration,
};

async function proveMigration({ seed, amount, signal, progress }: ProofOptions) {
	const next = random(seed);
	const worlds: World[] = [];
	const failures: string[] = [];
	try {
		for (const way of ["plain", "notified", "applied"] as const) worlds.push(await openWorld(way, signal));
		for (let move = 0; move < amount; move++) {
			signal.throwIfAborted();
			const world = worlds[move % worlds.length] as World;
			await moveAddress(world, failures);
			await setTimeout(next() * 100);
			progress(`${move + 1} of ${amount} moves`);
		}
		for (const world of worlds) for (const owner of world.owners) await owner.stop();
	} finally {
		for (const { beacons, agents, lab } of worlds) {
			for (const beacon of beacons) await beacon.stop();
			for (const agent of agents) await agent.stop();
			await labDown(lab.spec.name);
		}
	}
	const figures: Record<string, number | string> = {};
	for (const { way, gaps, strays } of worlds) {
		const sorted = [...gaps].sort((a, b) => a - b);
		figures[`${way}: moves`] = gaps.length / SOURCES.length;
		figures[`${way}: gap of a flow, ms (median, max)`] =
			`${sorted[sorted.length >> 1]?.toFixed(1)}, ${sorted.at(-1)?.toFixed(1)}`;
		figures[`${way}: packets to the old owner`] = strays.length;
		if (strays.length > 0) figures[`${way}: the last of them was sent, ms after`] = Math.max(...strays).toFixed(1);
		if (way !== "notified" && strays.length > 0)
			failures.push(
				`${way}: ${strays.length} packets reached the old owner, the last one sent ${Math.max(...strays)} ms after`,
			);
	}
	return { figures, failures };
}

async function openWorld(way: Way, signal: AbortSignal): Promise<World> {
	const name = `prf-mv-${way.slice(0, 2)}`;
	await labDown(name);
	const lab = await labUp({ ...DEFAULT_SPEC, name, hosts: 3, pods: 1 }, { signal });
	const world: World = {
		way, lab, agents: [], beacons: [], owners: [], sender: undefined as never, at: 0, gaps: [], strays: [],
	}; // biome-ignore format: one line
	try {
		const [h1, ...homes] = lab.hosts as [LabHost, LabHost, LabHost];
		if (way !== "plain") for (const host of lab.hosts) world.agents.push(await startAgent(host, { signal }));
		for (const [i, home] of homes.entries()) {
			const owner = home.pods[0] as LabPod;
			await batch(owner.netns, [
				`link add move0 address ${OWNER_MAC} mtu 1450 type veth peer name move${i} address ${GATEWAY_MAC} mtu 1450 netns oc-${name}-${home.name}`,
				`link set move0 up`,
				`addr add ${IP}/32 dev move0`,
				`route replace default via 169.254.9.1 dev move0 onlink`,
				`neigh add 169.254.9.1 lladdr ${GATEWAY_MAC} dev move0 nud permanent`,
			]);
			await batch(home.netns, [
				`link set move${i} up`,
				`neigh add ${IP} lladdr ${OWNER_MAC} dev move${i} nud permanent`,
			]);
		}
		for (const host of lab.hosts) await batch(host.netns, [routeOf(host, lab, 0)]);
		for (const home of homes) {
			const echo = await Beacon.echo((home.pods[0] as LabPod).netns, PORT);
			world.owners.push(echo);
			world.beacons.push(echo);
		}
		world.sender = Beacon.send((h1.pods[0] as LabPod).netns, IP, PORT, INTERVAL_MS, SOURCES);
		world.beacons.push(world.sender);
		while (world.sender.answered.length < WARM_UP * SOURCES.length) await world.sender.reported();
		return world;
	} catch (error) {
		for (const beacon of world.beacons) await beacon.stop();
		for (const agent of world.agents) await agent.stop();
		await labDown(name);
		throw error;
	}
}

/** Where a host sends the address while the home with this number has it. */
function routeOf(host: LabHost, lab: Lab, at: 0 | 1): string {
	const home = lab.hosts[at + 1] as LabHost;
	if (host === home) return `route replace ${IP}/32 dev move${at}`;
	return `route replace ${IP}/32 via ${home.podCidr.replace("/24", "")} dev ${host.tunnel} onlink`;
}

/** The old home lets go first, then the new one takes it, then everybody else is told. */
async function moveAddress(world: World, failures: string[]): Promise<void> {
	const { lab, sender } = world;
	const from = world.at;
	const to = from === 0 ? 1 : 0;
	const [oldHome, newHome] = [lab.hosts[from + 1], lab.hosts[to + 1]] as [LabHost, LabHost];
	const others = lab.hosts.filter((host) => host !== oldHome && host !== newHome);
	const startedMs = monotonicMs();
	let leftMs = 0;
	for (const host of [oldHome, newHome, ...others]) {
		const lease =
			world.way === "applied"
				? await agentRequest<Lease>(host.socket, "POST", "/v1/leases", { ttlMs: 5000, evict: [{ pod: IP }] })
				: undefined;
		await batch(host.netns, [routeOf(host, lab, to)]);
		if (host === oldHome) leftMs = monotonicMs();
		if (lease) await agentRequest(host.socket, "POST", "/v1/leases/release", { id: lease.id });
	}
	const movedMs = monotonicMs();
	world.at = to;
	const isBack = (): boolean =>
		SOURCES.every((port) => sender.answered.some(([source, , at]) => source === port && at > movedMs + 20));
	const deadline = movedMs + 5000;
	while (!isBack() && monotonicMs() < deadline) await sender.reported();
	if (!isBack()) failures.push(`${world.way}: nobody answered within 5 s after a move`);
	const [oldOwner, newOwner] = [world.owners[from], world.owners[to]] as [Beacon, Beacon];
	// By then the old owner has reported too, if it has seen anything.
	for (let i = 0; i < 2; i++) await newOwner.reported();
	// By when it was sent: a process may read late what had arrived in time.
	const sentAt = new Map(sender.sent.map(([port, number, at]) => [`${port} ${number}`, at]));
	for (const [port, number] of oldOwner.arrived) {
		const lateMs = (sentAt.get(`${port} ${number}`) ?? 0) - leftMs;
		if (lateMs > 0) world.strays.push(lateMs);
	}
	for (const port of SOURCES) {
		const times = sender.answered
			.filter(([source, , at]) => source === port && at > startedMs - 100)
			.map(([, , at]) => at);
		world.gaps.push(Math.max(...times.slice(1).map((at, i) => at - (times[i] as number))));
	}
	for (const list of [oldOwner.arrived, newOwner.arrived, sender.sent, sender.answered]) list.length = 0;
}

async function batch(netns: string, lines: readonly string[]): Promise<void> {
	await run(inNetns(netns, ["ip", "-batch", "-"]), { input: `${lines.join("\n")}\n` });
}
