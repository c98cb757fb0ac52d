// The uplink becomes another one while flows are fast: they go on, and are fast again over the new one.
import assert from "node:assert/strict";
import { after, test } from "node:test";
import type { Worker } from "node:worker_threads";
import { startAgent } from "../../src/lab/agent.js";
import { inNetns, run } from "../../src/lab/command.js";
import { labDown, labUp } from "../../src/lab/lab.js";
import { type Lab, type LabHost, type LabPod, type LabSpec, nameOf, specOf } from "../../src/lab/topology.js";
import { answerAll, EXCHANGES, fastShare, MOST } from "./exchange.js";
import { deviceCounters, end, eventually, statusOf, watchedHosts } from "./world.js";

const NAME = "e2e-uplink";
after(() => labDown(NAME));

test("the overlay moves to another device, with its addresses", (t) =>
	withTraffic(t, {}, async ({ lab, h1, exchange, sent }) => {
		const [first, second] = lab.hosts as [LabHost, LabHost];
		const { spec } = lab;
		await run(["ip", "-batch", "-"], {
			input: `link add eth1 netns ${nameOf(first.netns)} type veth peer name eth1 netns ${nameOf(second.netns)}\n`,
		});
		for (const host of lab.hosts)
			await batch(host, [
				"link set eth1 up",
				`addr del ${host.ip}/24 dev eth0`,
				`addr add ${host.ip}/24 dev eth1`,
				`link set ${host.tunnel} type vxlan id ${spec.vni} dev eth1`,
				"link set eth0 down",
			]);
		await eventually("status names the new uplink", async () => {
			const { tunnels } = await statusOf(h1);
			return tunnels.every(({ uplink, why }) => uplink === "eth1" && why === null);
		});
		await eventually("the flows are fast again", async () => (await fastShare(h1, exchange)) > MOST);
		const before = await sent("eth1");
		assert.ok((await fastShare(h1, exchange)) > MOST);
		assert.ok((await sent("eth1")) - before >= 60, "over the new device");
	}));

test("another address of the same device", (t) =>
	withTraffic(t, { uplink: "aliased" }, async ({ lab, h1, h2, exchange }) => {
		const alias = "192.168.77.201";
		await batch(h2, [`addr add ${alias}/24 dev ${h2.uplink}`]);
		// As Flannel does when a node's address has changed: its own device, and the others' entries.
		await batch(h2, [`link set ${h2.tunnel} type vxlan id ${lab.spec.vni} local ${alias} dev ${h2.uplink}`]);
		await run(inNetns(h1.netns, ["bridge", "fdb", "replace", h2.tunnelMac, "dev", h1.tunnel, "dst", alias, "self"]));
		await eventually("the flows are fast again", async () => (await fastShare(h1, exchange)) > MOST);
		const { stdout } = await run(inNetns(h1.netns, ["bridge", "-j", "fdb", "show", "dev", h1.tunnel]));
		assert.match(stdout, new RegExp(alias.replaceAll(".", "\\.")));
	}));

test("a bond whose cable is pulled", (t) =>
	withTraffic(t, { uplink: "bond" }, async ({ h1, exchange, sent }) => {
		await batch(h1, ["link set eth0 down"]);
		await eventually("the flows are fast", async () => (await fastShare(h1, exchange)) > MOST);
		const before = await sent("eth1");
		assert.ok((await fastShare(h1, exchange)) > MOST);
		assert.ok((await sent("eth1")) - before >= 60, "over the other cable");
	}));

interface Traffic {
	lab: Lab;
	h1: LabHost;
	h2: LabHost;
	/** Between pods of both hosts; fails when anything is not answered. */
	exchange: () => Promise<void>;
	/** Packets, by a device of h1. */
	sent: (device: string) => Promise<number>;
}

/** A lab with agents in which flows are fast; skipped where this kernel cannot have it. */
async function withTraffic(
	t: { skip(why: string): void },
	given: Partial<LabSpec>,
	use: (traffic: Traffic) => Promise<void>,
): Promise<void> {
	await labDown(NAME);
	let lab: Lab;
	try {
		lab = await labUp(specOf({ ...given, name: NAME }));
	} catch (error) {
		const why = /.*this kernel has none.*/.exec((error as Error).message);
		if (why) return t.skip(why[0]);
		throw error;
	}
	const [h1, h2] = lab.hosts as [LabHost, LabHost];
	const to = h2.pods[0] as LabPod;
	let servers: Worker[] = [];
	const agents = await Promise.all(watchedHosts(lab).map((host) => startAgent(host, { args: [] })));
	try {
		servers = await answerAll(to);
		const exchange = (): Promise<void> => EXCHANGES.udp(h1.pods[0] as LabPod, to);
		const share = await fastShare(h1, exchange);
		assert.ok(share > MOST, `only ${(100 * share).toFixed(1)} % fast before`);
		await use({ lab, h1, h2, exchange, sent: async (device) => (await deviceCounters(h1, device)).tx });
	} finally {
		await Promise.all(servers.map(end));
		await Promise.all(agents.map((agent) => agent.stop()));
		await labDown(NAME);
	}
}

async function batch(host: LabHost, lines: string[]): Promise<void> {
	await run(inNetns(host.netns, ["ip", "-batch", "-"]), { input: `${lines.join("\n")}\n` });
}
