// Limits that the CNI bandwidth plugin sets on a pod: a TBF on its host veth for what it receives, and for what it sends
// a redirect from the veth's ingress to the TBF of an IFB. Does a stream that would be faster keep to them with ONCache?
import type { Counts } from "../../src/agent/api.js";
import { agentRequest } from "../../src/agent/client.js";
import { median } from "../../src/bench/statistics.js";
import { Datapath } from "../../src/datapath/datapath.js";
import { type LabAgent, startAgent } from "../../src/lab/agent.js";
import { labDown, labUp } from "../../src/lab/lab.js";
import { DEFAULT_SPEC, type Lab, type LabHost, type LabPod } from "../../src/lab/topology.js";
import { eventually, inside, ping, statusOf } from "../e2e/world.js";
import { addLimits, BURST_S, type Limits, removeLimits } from "./cni.js";
import type { Proof, ProofOptions, ProofResult } from "./proof.js";
import { type Protocol, Stream } from "./stream.js";

const NAME = "p-bandwidth";
const TOLERANCE = 0.05;
/** With fewer rounds a busy machine may be slower than a limit; faster it must never be. */
const ROUNDS_FOR_MEDIAN = 3;
/** Of what a limit lets through later: a full bucket, and the plugin's queue. */
const BACKLOG_S = BURST_S + 0.025;
const WINDOW_S = { short: 0.5, long: 2 };

const INTO_POD = 200_000_000;
const OUT_OF_POD = 500_000_000;
const CASES: { name: string; limits: Limits }[] = [
	{ name: "both limited", limits: { ingressRate: INTO_POD, egressRate: OUT_OF_POD } },
	{ name: "ingress limited", limits: { ingressRate: INTO_POD, egressRate: 0 } },
];

/** As the pod sees it. */
type Way = "ingress" | "egress";
type WorldName = "oncache" | "overlay";

interface Place {
	lab: Lab;
	host: LabHost;
	pod: LabPod;
	remote: LabPod;
	neighbours: [LabPod, LabPod];
	vethIndex: number;
}

export const bandwidth: Proof = {
	name: "bandwidth",
	claim: "a pod keeps to the limits of the CNI bandwidth plugin",
	unit: "rounds",
	small: 1,
	full: 5,
	run: async (options) => {
		await labDown(NAME);
		const lab = await labUp({ ...DEFAULT_SPEC, name: NAME }, { signal: options.signal });
		const agents = new Agents(lab);
		try {
			return await rounds(await placeIn(lab), agents, options);
		} finally {
			await agents.stop();
			await labDown(NAME);
		}
	},
};

async function placeIn(lab: Lab): Promise<Place> {
	const [host, other] = lab.hosts as [LabHost, LabHost];
	const [pod, neighbour] = host.pods as [LabPod, LabPod];
	const [remote, remoteNeighbour] = other.pods as [LabPod, LabPod];
	const [link] = JSON.parse(await inside(host, "ip", "-j", "link", "show", pod.veth)) as [{ ifindex: number }];
	return { lab, host, pod, remote, neighbours: [neighbour, remoteNeighbour], vethIndex: link.ifindex };
}

async function rounds(place: Place, agents: Agents, options: ProofOptions): Promise<ProofResult> {
	const { amount, signal, progress } = options;
	const seconds = amount >= ROUNDS_FOR_MEDIAN ? WINDOW_S.long : WINDOW_S.short;
	const rates = new Rates();
	const paths = new Paths();
	const seenMs: number[] = [];
	const neighbour: number[] = [];

	for (let round = 0; round < amount; round++) {
		for (const { name, limits } of CASES) {
			await addLimits(place.host, place.pod, limits);
			const worlds: WorldName[] = round % 2 === 0 ? ["oncache", "overlay"] : ["overlay", "oncache"];
			for (const world of worlds) {
				await agents.are(world);
				for (const { way, limit, protocol } of streamsOf(limits)) {
					const what = `${name}, ${way}, ${protocol}`;
					progress(`round ${round + 1} of ${amount}: ${what}, ${world}`);
					const before = world === "oncache" ? await counts(place.host, way) : undefined;
					const rate = await limitedRate(place, { way, limit, protocol, seconds, signal });
					rates.add(what, world, limit, rate);
					if (before) paths.add(what, before, await counts(place.host, way));
				}
			}
			await agents.are("oncache");
			progress(`round ${round + 1} of ${amount}: ${name}, the neighbour`);
			const before = await counts(place.host, "ingress");
			neighbour.push(await freeRate(place.neighbours, { seconds, signal }));
			paths.add("not limited beside it, ingress, tcp", before, await counts(place.host, "ingress"));
			await removeLimits(place.host, place.pod, limits);

			for (const { way, limit, protocol } of streamsOf(limits)) {
				const what = `${name}, ${way}, ${protocol}, set on a warm flow`;
				progress(`round ${round + 1} of ${amount}: ${what}`);
				const { rate, seen } = await rateAfterLimiting(place, { limits, way, limit, protocol, seconds, signal });
				rates.add(what, "oncache", limit, rate);
				seenMs.push(seen);
			}
		}
	}
	return {
		figures: {
			...rates.figures(),
			"set on a warm flow: until the agent has acted, at most, ms": Math.ceil(Math.max(...seenMs)),
			"not limited beside it, Mbit/s": Math.round(median(neighbour) / 1e6),
			...paths.figures(),
		},
		failures: [
			...rates.failures(seconds, amount >= ROUNDS_FOR_MEDIAN),
			...(seenMs.every(Number.isFinite) ? [] : ["The agent did not act when a limit was set on a warm flow"]),
		],
	};
}

interface LimitedStream {
	way: Way;
	limit: number;
	protocol: Protocol;
}

function streamsOf({ ingressRate, egressRate }: Limits): LimitedStream[] {
	const ways = (
		[
			["ingress", ingressRate],
			["egress", egressRate],
		] as const
	).filter(([, limit]) => limit > 0);
	return ways.flatMap(([way, limit]) => (["tcp", "udp"] as const).map((protocol) => ({ way, limit, protocol })));
}

interface Measuring {
	seconds: number;
	signal: AbortSignal;
}

let nextPort = 20_000;

function start({ pod, remote }: Place, { way, protocol }: LimitedStream): Promise<Stream> {
	const [from, to] = way === "ingress" ? [remote, pod] : [pod, remote];
	return Stream.start(protocol, from, to, nextPort++);
}

/** What a limit lets through without delay, as a burst, has passed; from then on the rate is the limit's. */
async function steadyRate(stream: Stream, limit: number, { seconds, signal }: Measuring): Promise<number> {
	await stream.receives((2 * limit * BURST_S) / 8);
	return stream.rate(seconds, signal);
}

async function limitedRate(place: Place, options: LimitedStream & Measuring): Promise<number> {
	const stream = await start(place, options);
	try {
		return await steadyRate(stream, options.limit, options);
	} finally {
		await stream.stop();
	}
}

async function freeRate([to, from]: [LabPod, LabPod], { seconds, signal }: Measuring): Promise<number> {
	const stream = await Stream.start("tcp", from, to, nextPort++);
	try {
		await stream.receives(10_000_000);
		return await stream.rate(seconds, signal);
	} finally {
		await stream.stop();
	}
}

/** The stream is on the fast path when the limits come. */
async function rateAfterLimiting(
	place: Place,
	options: LimitedStream & Measuring & { limits: Limits },
): Promise<{ rate: number; seen: number }> {
	const { host, pod, vethIndex } = place;
	const { limits, way, limit } = options;
	await treated(host, vethIndex, "as if free");
	await learns(place);
	const fast = (await counts(host, way)).fast;
	const stream = await start(place, options);
	try {
		await eventually("the stream is on the fast path", async () => (await counts(host, way)).fast > fast + 100);
		await addLimits(host, pod, limits);
		const added = performance.now();
		const seen = await treated(host, vethIndex, limits.egressRate > 0 ? "not at all" : "as shaped").then(
			() => performance.now() - added,
			() => Number.POSITIVE_INFINITY,
		);
		return { rate: await steadyRate(stream, limit, options), seen };
	} finally {
		await stream.stop();
		await removeLimits(host, pod, limits);
	}
}

/**
 * After an eviction nothing is learned for a moment. The only answer of a stream of UDP may fall into it, and then the
 * reverse check keeps the stream on the fallback for good.
 */
async function learns({ host, pod, remote }: Place): Promise<void> {
	const { fast } = await counts(host, "ingress");
	await eventually("pings are on the fast path", async () => {
		await ping(remote, pod, "-c", "3", "-i", "0.01");
		return (await counts(host, "ingress")).fast > fast;
	});
}

/** Waits until the agent accelerates a veth as it should. */
async function treated(host: LabHost, ifindex: number, how: "as if free" | "as shaped" | "not at all"): Promise<void> {
	const datapath = Datapath.openPinned(host.bpffs);
	if (!datapath) throw new Error(`Cannot look at the datapath of ${host.name}: it has no pins`);
	try {
		await eventually(`veth ${ifindex} is accelerated ${how}`, () => {
			const entry = datapath.veths().find((veth) => veth.ifindex === ifindex);
			return how === (!entry ? "not at all" : entry.shaped ? "as shaped" : "as if free");
		});
	} finally {
		datapath.close();
	}
}

async function counts(host: LabHost, way: Way): Promise<Counts> {
	return (await statusOf(host)).packets[way];
}

/** The agents of all hosts, running or with all of theirs detached. */
class Agents {
	readonly #lab: Lab;
	#running: LabAgent[] = [];

	constructor(lab: Lab) {
		this.#lab = lab;
	}

	async are(world: WorldName): Promise<void> {
		if ((world === "oncache") === this.#running.length > 0) return;
		if (world === "overlay") {
			for (const host of this.#lab.hosts) await agentRequest(host.socket, "POST", "/v1/detach");
			await this.stop();
		} else for (const host of this.#lab.hosts) this.#running.push(await startAgent(host));
	}

	async stop(): Promise<void> {
		await Promise.all(this.#running.map((agent) => agent.stop()));
		this.#running = [];
	}
}

/** Shares of the limit, by stream and world. */
class Rates {
	readonly #shares = new Map<string, number[]>();

	add(what: string, world: WorldName, limit: number, rate: number): void {
		const key = `${what}, ${world}: rate to limit`;
		this.#shares.set(key, [...(this.#shares.get(key) ?? []), rate / limit]);
	}

	figures(): Record<string, string> {
		return Object.fromEntries(
			[...this.#shares].map(([key, shares]) => [
				key,
				`${median(shares).toFixed(3)} (${Math.min(...shares).toFixed(3)} to ${Math.max(...shares).toFixed(3)})`,
			]),
		);
	}

	/** Of ONCache only: the overlay is there to compare with. */
	failures(seconds: number, isMedianMeaningful: boolean): string[] {
		const most = 1 + TOLERANCE + BACKLOG_S / seconds;
		return [...this.#shares]
			.filter(([key]) => key.includes("oncache"))
			.flatMap(([key, shares]) =>
				[
					...shares.filter((share) => share > most),
					...(isMedianMeaningful ? [median(shares)].filter((share) => Math.abs(share - 1) > TOLERANCE) : []),
				].map((share) => `${key} ${share.toFixed(3)}`),
			);
	}
}

/** Which path the packets of a stream took at the limited pod's host. */
class Paths {
	readonly #counts = new Map<string, Record<string, number>>();

	add(what: string, before: Counts, after: Counts): void {
		const sums = this.#counts.get(what) ?? {};
		const flat = ({ fast, fallback }: Counts): Record<string, number> => ({ fast, ...fallback });
		const earlier = flat(before);
		for (const [path, count] of Object.entries(flat(after)))
			sums[path] = (sums[path] ?? 0) + count - (earlier[path] ?? 0);
		this.#counts.set(what, sums);
	}

	figures(): Record<string, string> {
		return Object.fromEntries([...this.#counts].map(([what, sums]) => [`${what}: path`, shares(sums)]));
	}
}

/** A detached program counts nothing. */
function shares(sums: Record<string, number>): string {
	const total = Object.values(sums).reduce((sum, count) => sum + count, 0);
	if (total === 0) return "overlay, unseen: the veth is left alone";
	return Object.entries(sums)
		.sort(([, a], [, b]) => b - a)
		.filter(([, count]) => count > 0)
		.map(([path, count]) => `${path} ${((100 * count) / total).toFixed(count / total < 0.001 ? 4 : 1)} %`)
		.join(", ");
}
