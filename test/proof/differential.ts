// The same packets through the plain overlay and through ONCache: what either pod and the wire see must be the same, byte for byte.
import { setImmediate } from "node:timers/promises";
import { applyServices } from "../../src/lab/services.js";
import { type Family, type LabHost, type LabPod, type LabSpec, podMtu } from "../../src/lab/topology.js";
import { type Case, endsOf, type Flow, Generator, type Protocol, SERVER_PORT, type Way } from "./cases.js";
import { Generator6 } from "./cases6.js";
import { type Proof, type ProofOptions, type ProofResult, random } from "./proof.js";
import { stayOnOneCpu } from "./raw-socket.js";
import { compare, fastPackets, gatewayMacs, openTwins } from "./twins.js";

/** Cases until the flows are replaced by new ones. */
const FLOW_LIFE = 500;
/** Places of the first pods of both hosts, and of the second pod of the first host. */
const [HERE, THERE, NEAR] = [0, 1, 2];
const CLUSTER_IP = {
	4: { there: "10.96.0.10", near: "10.96.0.20" },
	6: { there: "fd00:10:96::10", near: "fd00:10:96::20" },
} as const;
const SERVICE_PORT = 80;
const SHARES: Protocol[][] = [["tcp", "tcp", "tcp", "udp", "udp", "udp", "icmp", "icmp"], ["tcp", "udp", "icmp"], ["tcp", "udp"], ["tcp", "udp"]]; // biome-ignore format: a table

/** In the order of SHARES. */
function waysOf(family: Family): Way[] {
	const { there, near } = CLUSTER_IP[family];
	const title = (name: string): string => (family === 4 ? name : `IPv6 ${name}`.trim());
	const service = (ip: string): Way["service"] => ({ ip, port: SERVICE_PORT });
	return [
		{ name: title(""), ends: [HERE, THERE] },
		{ name: title("same host"), ends: [HERE, NEAR] },
		{ name: title("Service"), ends: [HERE, THERE], service: service(there) },
		{ name: title("Service on the same host"), ends: [HERE, NEAR], service: service(near) },
	] as Way[];
}
const FAMILIES: Family[] = [4, 6];
const IPV6_SHARE = 0.35;
const MOST_FAILURES = 20;
/** Connection tracking drops what has a wrong checksum; the fast path leaves that to the receiver (README, limits). */
const KNOWN = /L4 checksum$/;
const KNOWN_LATE_MS = 5;

export const differential: Proof = {
	name: "differential",
	claim: "pods and wire see the same packets, byte for byte, with ONCache and without",
	unit: "cases",
	small: 2500,
	full: 120_000,
	run: (options) => proveDifferential(options, "ipv4"),
};

export const differential6: Proof = {
	...differential,
	name: "differential6",
	claim: `${differential.claim}, over an IPv6 underlay`,
	small: 600,
	full: 40_000,
	run: (options) => proveDifferential(options, "ipv6"),
};

async function proveDifferential(
	{ seed, amount, signal, progress }: ProofOptions,
	underlay: LabSpec["underlay"],
): Promise<ProofResult> {
	const failures: string[] = [];
	const frames: Record<string, number> = {};
	const known: Record<string, number> = {};
	const twins = await openTwins({
		spec: { name: underlay === "ipv6" ? "prf-d6" : "prf-d", hosts: 2, underlay },
		args: ["--max-staleness-ms", "20000"],
		places: ({ hosts }) => [
			...[0, 1].flatMap((pod) =>
				hosts.map(({ pods }) => {
					const { name, netns } = pods[pod] as LabPod;
					return { name, netns, device: "eth0", isWire: false };
				}),
			),
			...hosts.map(({ name, netns, uplink }) => ({
				name: `wire towards ${name}`,
				netns,
				device: uplink,
				isWire: true,
			})),
		],
		signal,
	});
	try {
		stayOnOneCpu();
		const hosts = twins.plain.lab.hosts as LabHost[];
		const macs = await gatewayMacs(twins.plain.lab);
		const next = random(seed);
		const mtu = podMtu(twins.plain.lab.spec);
		const generators = {
			4: new Generator(next, endsOf(hosts, macs, 4), mtu),
			6: new Generator6(next, endsOf(hosts, macs, 6), mtu),
		};
		for (const { lab } of [twins.plain, twins.cached]) await offerServices(lab.hosts);
		const fastIn: Record<string, number> = {};
		const before = await fastPackets(twins.cached);
		const one = async (each: Case): Promise<void> => {
			const isKnown = KNOWN.test(each.sort);
			const result = await compare(each, twins, isKnown ? KNOWN_LATE_MS : undefined);
			frames[each.sort] = (frames[each.sort] ?? 0) + result.frames;
			if (result.differences.length === 0) return;
			if (isKnown) known[each.sort] = (known[each.sort] ?? 0) + 1;
			else failures.push(...result.differences);
		};
		const flows: Record<Family, Flow[]> = { 4: [], 6: [] };
		for (let n = 0; n < amount && failures.length < MOST_FAILURES; n++) {
			signal.throwIfAborted();
			if (n % FLOW_LIFE === 0) {
				for (const family of FAMILIES) {
					const generator = generators[family];
					flows[family] = waysOf(family).flatMap((way, i) =>
						(SHARES[i] ?? []).map((protocol) => generator.newFlow(protocol, way)),
					);
					for (const flow of flows[family]) {
						const title = `${flow.way.name || "direct"}, ${flow.protocol}`;
						const earlier = await fastPackets(twins.cached);
						await one({ sort: `${title} beginning`, frames: generator.begin(flow) });
						fastIn[title] = (fastIn[title] ?? 0) + (await fastPackets(twins.cached)) - earlier;
					}
				}
				progress(`${n} of ${amount} cases`);
				await setImmediate();
			}
			const family = next() < IPV6_SHARE ? 6 : 4;
			await one(generators[family].next(flows[family]));
		}
		const fast = (await fastPackets(twins.cached)) - before;
		for (const [title, count] of Object.entries(fastIn))
			if (count === 0) failures.push(`${title}: no packet took the fast path: this has proved nothing`);
		const nowhere = Object.entries(frames).flatMap(([sort, count]) => (count === 0 ? [sort] : []));
		return {
			figures: {
				cases: amount,
				sorts: Object.keys(frames).length,
				"of them dropped by both": nowhere.length,
				"frames seen and compared": sum(frames),
				"packets on the fast path": fast,
				"known differences, all with a wrong L4 checksum": sum(known),
				"other differences": failures.length,
			},
			details: {
				"dropped by both": nowhere.sort(),
				"known differences": Object.entries(known).map(([sort, count]) => `${count} ${sort}`),
			},
			failures,
		};
	} finally {
		await twins.close();
	}
}

const sum = (counts: Record<string, number>): number => Object.values(counts).reduce((all, count) => all + count, 0);

/** Of the second end's pods on this host and on the other one; the same in both labs. */
async function offerServices(hosts: readonly LabHost[]): Promise<void> {
	const [first, second] = hosts as [LabHost, LabHost];
	const backends = { there: second.pods[0] as LabPod, near: first.pods[1] as LabPod };
	const services = FAMILIES.flatMap((family) =>
		(["there", "near"] as const).flatMap((where) =>
			(["tcp", "udp"] as const).map((protocol) => ({
				name: `default/${where}-${family}:${protocol}`,
				clusterIp: CLUSTER_IP[family][where],
				port: SERVICE_PORT,
				protocol,
				backends: [{ ip: backends[where].addresses[FAMILIES.indexOf(family)] as string, port: SERVER_PORT }],
			})),
		),
	);
	for (const host of hosts) await applyServices(host, services, "iptables");
}
