// Every kind of pod network and overlay is accelerated, between hosts and on one host: seen by the counters, not only by the answers.
import assert from "node:assert/strict";
import { once } from "node:events";
import { after, describe, test } from "node:test";
import type { Worker } from "node:worker_threads";
import { type LabAgent, startAgent } from "../../src/lab/agent.js";
import { labDown, labUp } from "../../src/lab/lab.js";
import { ovs } from "../../src/lab/switch.js";
import { type Lab, type LabHost, type LabPod, type LabSpec, SWITCH, specOf } from "../../src/lab/topology.js";
import { answerAll, EXCHANGES, fastShare, MOST, ROUNDS } from "./exchange.js";
import { background, end, statusOf, watchedHosts } from "./world.js";

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
	"Flannel, dual stack over IPv6": { family: "dual", underlay: "ipv6" },
	"Flannel, dual stack, a tunnel for each": { family: "dual", underlay: "dual" },
	"Calico VXLAN, dual stack, a tunnel for each": { overlay: "calico", family: "dual", underlay: "dual" },
	"bridged over IPv6": { overlay: "bridged", underlay: "ipv6" },
	"Geneve, dual stack over IPv6": { overlay: "geneve", family: "dual", underlay: "ipv6" },
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

describe("a tunnel over IPv6 with outer UDP checksums", () => {
	after(() => labDown(NAME));
	test("is left to the fallback, and says why; the one over IPv4 beside it as well", async (t) => {
		const world = await up({ family: "dual", underlay: "dual", udpChecksum: true });
		if (typeof world === "string") return t.skip(world);
		try {
			const { lab, from, others } = world;
			const host = lab.hosts[0] as LabHost;
			for (const ip of others.at(-1)?.addresses ?? [])
				assert.equal(await fastShare(host, () => EXCHANGES.udp(from, { ip })), 0);
			const { tunnels } = await statusOf(host);
			assert.deepEqual(
				tunnels.map(({ name, why }) => [name, why]),
				host.tunnels.map(({ name, underlay }) => [
					name,
					underlay === 4
						? `Tunnel device "${name}" computes outer UDP checksums; create it with noudpcsum`
						: `Tunnel device "${name}" computes outer UDP checksums over IPv6; create it with udp6zerocsumtx`,
				]),
			);
		} finally {
			await world.down();
		}
	});
});

describe("Geneve options that a switch sets", () => {
	after(() => labDown(NAME));
	test("are on every packet of a fast flow", async (t) => {
		const world = await up({ overlay: "antrea" });
		if (typeof world === "string") return t.skip(world);
		try {
			const { lab, from, others } = world;
			const [host, peer] = lab.hosts as [LabHost, LabHost];
			const { markMode } = await statusOf(host);
			if (markMode === "dscp") return t.skip("dscp mode knows the header without options only");
			for (const host of lab.hosts) await addOption(host);
			const ip = others.at(-1)?.ip as string;
			for (const [protocol, exchange] of Object.entries(EXCHANGES)) {
				const withOption = `udp dst port ${lab.spec.port} and udp[8] & 0x3f = 2 and dst host ${peer.nodeIps[4]}`;
				const atLeast = protocol === "tcp" ? 4 : MOST * ROUNDS; // TCP's are large ones
				const argv = ["tcpdump", "-nlqi", host.uplink, "-c", String(atLeast), withOption];
				const watching = await background(host, argv, /listening/);
				const seen = once(watching, "exit");
				const share = await fastShare(host, () => exchange(from, { ip }));
				assert.ok(share > MOST, `${protocol}: only ${(100 * share).toFixed(1)} % fast`);
				assert.deepEqual(await seen, [0, null], `${atLeast} packets of ${protocol} were seen with an option`);
			}
		} finally {
			await world.down();
		}
	});

	/** One as OVN's: class 0x0102, type 0x80, which is critical, of 4 bytes. */
	async function addOption(host: LabHost): Promise<void> {
		await ovs(host, ["ovs-ofctl", "add-tlv-map", SWITCH, "{class=0x102,type=0x80,len=4}->tun_metadata0"]);
		const { stdout } = await ovs(host, ["ovs-ofctl", "--no-stats", "--no-names", "dump-flows", SWITCH]);
		const flows = stdout.split("\n").filter((flow) => /TUN_IPV4_DST|tun_dst/.test(flow));
		assert.ok(flows.length > 0);
		for (const flow of flows)
			await ovs(host, [
				...["ovs-ofctl", "add-flow", SWITCH],
				flow.trim().replace("actions=", "actions=set_field:0x30002->tun_metadata0,"),
			]);
	}
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
		agents.push(...(await Promise.all(watchedHosts(lab).map((host) => startAgent(host, { args: [] })))));
		servers.push(...(await Promise.all((others as LabPod[]).map(answerAll))).flat());
	} catch (error) {
		await down();
		throw error;
	}
	return { lab, from: from as LabPod, others: others as LabPod[], down };
}
