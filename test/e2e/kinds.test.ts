// Every kind of pod network and overlay is accelerated, between hosts and on one host: seen by the counters, not only by the answers.
import assert from "node:assert/strict";
import { after, describe, test } from "node:test";
import type { Worker } from "node:worker_threads";
import { type LabAgent, startAgent } from "../../src/lab/agent.js";
import { labDown, labUp } from "../../src/lab/lab.js";
import { PATIENCE } from "../../src/lab/patience.js";
import { type Lab, type LabHost, type LabPod, type LabSpec, specOf } from "../../src/lab/topology.js";
import { answerAll, EXCHANGES, fastShare, MOST } from "./exchange.js";
import { end, statusOf } from "./world.js";

const NAME = "e2e-kind";
const KINDS: Record<string, Partial<LabSpec>> = {
	"Flannel, bridge": {},
	"Flannel, hairpin bridge": { podNetwork: "hairpin" },
	"Flannel, routed pods (Canal)": { podNetwork: "routed" },
	"Flannel, ptp pods": { podNetwork: "ptp" },
	"Calico VXLAN": { overlay: "calico" },
	"Calico VXLAN, netkit pods": { overlay: "calico", podNetwork: "netkit" },
	"bridged, as Docker's and Swarm's": { overlay: "bridged" },
	"bridged, learning": { overlay: "bridged", fdb: "learning" },
	"two tunnel devices": { hosts: 3, tunnels: 2 },
	"uplink on macvlan": { uplink: "macvlan" },
	"uplink with several addresses": { uplink: "aliased" },
	"uplink on a VLAN": { uplink: "vlan" },
	"bonded uplink": { uplink: "bond" },
	Geneve: { overlay: "geneve" },
	"Flannel, IPv6": { family: "ipv6" },
	"Flannel, dual stack": { family: "dual" },
	"Flannel, dual stack, routed pods (Canal)": { family: "dual", podNetwork: "routed" },
	"Flannel, dual stack, ptp pods": { family: "dual", podNetwork: "ptp" },
	"Calico VXLAN, dual stack": { overlay: "calico", family: "dual" },
	"bridged, dual stack": { overlay: "bridged", family: "dual" },
	"bridged, learning, dual stack": { overlay: "bridged", fdb: "learning", family: "dual" },
	"Geneve, dual stack": { overlay: "geneve", family: "dual" },
};

describe("on the fast path, both ways", () => {
	after(() => labDown(NAME));
	for (const [title, given] of Object.entries(KINDS))
		test(title, async (t) => {
			const world = await up(given);
			if (typeof world === "string") return t.skip(world);
			const { lab, from, others } = world;
			try {
				for (const to of others) {
					const where = lab.hosts[0]?.pods.includes(to) ? "same host" : "another host";
					for (const ip of to.addresses)
						for (const [protocol, exchange] of Object.entries(EXCHANGES)) {
							const share = await fastShare(lab.hosts[0] as LabHost, () => exchange(from, { ip }));
							assert.ok(share > MOST, `${protocol} to ${ip}, ${where}: only ${(100 * share).toFixed(1)} % fast`);
						}
				}
			} finally {
				await world.down();
			}
		});
});

describe("peers that are routed directly", () => {
	after(() => labDown(NAME));
	for (const overlay of ["flannel", "calico"] as const)
		test(`${overlay}: are left to the fallback, those behind the tunnel are fast`, async (t) => {
			const world = await up({ overlay, hosts: 3, direct: true });
			if (typeof world === "string") return t.skip(world);
			try {
				const { lab, from, others } = world;
				const shares: number[] = [];
				for (const to of others.slice(1))
					shares.push(await fastShare(lab.hosts[0] as LabHost, () => EXCHANGES.udp(from, to)));
				assert.deepEqual(shares.map((share) => (share > MOST ? "fast" : share === 0 ? "fallback" : share)).sort(), [
					"fallback",
					"fast",
				]);
			} finally {
				await world.down();
			}
		});
});

describe("a tunnel over IPv6", () => {
	after(() => labDown(NAME));
	for (const overlay of ["flannel", "calico"] as const)
		test(`${overlay}: is left to the fallback, and says why; the one over IPv4 beside it is fast`, async (t) => {
			const world = await up({ overlay, family: "dual", underlay: "dual" });
			if (typeof world === "string") return t.skip(world);
			try {
				const { lab, from, others } = world;
				const host = lab.hosts[0] as LabHost;
				const [ipv4 = "", ipv6 = ""] = others.at(-1)?.addresses ?? [];
				for (const [protocol, exchange] of Object.entries(EXCHANGES)) {
					assert.ok((await fastShare(host, () => exchange(from, { ip: ipv4 }))) > MOST, protocol);
					assert.equal(await fastShare(host, () => exchange(from, { ip: ipv6 })), 0, protocol);
				}
				const { tunnels } = await statusOf(host);
				assert.deepEqual(
					tunnels.map(({ name, why }) => [name, why]),
					host.tunnels.map(({ name, underlay }) => [
						name,
						underlay === 4 ? null : `Tunnel device "${name}" has an IPv6 underlay`,
					]),
				);
			} finally {
				await world.down();
			}
		});
});

/** A pod, and one to talk to on its host and on each of the others; or why this kernel cannot have it. */
async function up(
	given: Partial<LabSpec>,
): Promise<{ lab: Lab; from: LabPod; others: LabPod[]; down(): Promise<void> } | string> {
	await labDown(NAME);
	let lab: Lab;
	try {
		lab = await labUp(specOf({ ...given, name: NAME }));
	} catch (error) {
		const why = /.*this kernel has none.*/.exec((error as Error).message);
		if (why) return why[0];
		throw error;
	}
	const [from, ...others] = [
		...(lab.hosts[0]?.pods ?? []).slice(0, 2),
		...lab.hosts.slice(1).map(({ pods }) => pods[0]),
	];
	const agents: LabAgent[] = [];
	const servers: Worker[] = [];
	const down = async (): Promise<void> => {
		await Promise.all(servers.map(end));
		for (const agent of agents) await agent.stop();
		await labDown(NAME);
	};
	try {
		// An emulated CPU takes half a minute to start one: there only the host that is looked at has one.
		const watched = PATIENCE < 10 ? lab.hosts : lab.hosts.slice(0, 1);
		agents.push(...(await Promise.all(watched.map((host) => startAgent(host, { args: [] })))));
		servers.push(...(await Promise.all((others as LabPod[]).map(answerAll))).flat());
	} catch (error) {
		await down();
		throw error;
	}
	return { lab, from: from as LabPod, others: others as LabPod[], down };
}
