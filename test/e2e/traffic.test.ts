// Real traffic between pods of two hosts with real agents.
import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { after, before, describe, test } from "node:test";
import { setTimeout } from "node:timers/promises";
import { agentRequest } from "../../src/agent/client.js";
import { probeFeatures } from "../../src/datapath/features.js";
import { startAgent } from "../../src/lab/agent.js";
import { inNetns, run } from "../../src/lab/command.js";
import { patiently } from "../../src/lab/patience.js";
import {
	background, bpfObjects, deviceCounters, end, eventually, freed, inside, PEER, ping, statusOf, type TestLab, traces, tunnelPackets, upWithAgents,
} from "./world.js"; // biome-ignore format: a list

/** Short, so that what must happen at the bound can be awaited. */
const STALENESS_MS = 600;
const NAME = "e2e";

/** Many packets of one flow, after its first ones. */
async function share(world: TestLab): Promise<{ fast: number; onTunnel: number; sent: number }> {
	await ping(world.p1, world.p2, "-c", "3", "-i", "0.01", "-W", "1");
	const before = { tunnel: await tunnelPackets(world.h1), status: await statusOf(world.h1) };
	const { sent, received } = await ping(world.p1, world.p2, "-c", "200", "-i", "0.002", "-W", "1");
	assert.equal(received, sent);
	const now = await statusOf(world.h1);
	return {
		fast: now.packets.egress.fast - before.status.packets.egress.fast,
		onTunnel: (await tunnelPackets(world.h1)) - before.tunnel,
		sent,
	};
}

const { tcx } = probeFeatures();

for (const args of [
	["--attach", "tcx", "--mark-mode", "metadata"],
	["--attach", "clsact", "--mark-mode", "metadata"],
	["--attach", "tcx", "--mark-mode", "dscp"],
	["--attach", "clsact", "--mark-mode", "dscp"],
])
	describe(`agents with ${args.join(" ")}`, { skip: args.includes("tcx") && !tcx.ok ? tcx.why : false }, () => {
		let world: TestLab;
		let clean: Record<string, string>;
		let objects: string[];
		before(async () => {
			objects = bpfObjects();
			world = await upWithAgents(NAME, undefined);
			// The tables that kube-proxy or the test itself would make nft show are there before.
			clean = await traces(world.h1);
			for (const host of world.lab.hosts)
				world.agents.push(await startAgent(host, { args: [...args, "--max-staleness-ms", "4000"] }));
		});
		after(() => world.down());

		test("a flow's packets stop passing the tunnel device", async () => {
			const { fast, onTunnel, sent } = await share(world);
			assert.ok(fast >= sent * 0.9, `${fast} of ${sent} requests were fast`);
			assert.ok(onTunnel <= sent * 0.2, `the tunnel device carried ${onTunnel} of ${2 * sent} packets`);
			const status = await statusOf(world.h1);
			assert.deepEqual([status.state, status.attach, status.markMode], ["accelerating", args[1], args[3]]);
		});

		test("UDP datagrams of every size come back on a warm flow, also those that are fragmented", async () => {
			const server = await background(world.p2, ["node", PEER, "echo", "7000"], /listening/);
			const sizes = [
				"10",
				"10",
				"10",
				"10",
				"1400",
				"1422",
				"1423",
				"1472",
				"3000",
				"8192",
				"10",
				"8192",
				"60000",
				"10",
			];
			const answer = await inside(world.p1, "node", PEER, "ask", world.p2.ip, "7000", "7001", ...sizes);
			await end(server);
			assert.equal(Number(answer), sizes.length);
			assert.ok(((await statusOf(world.h1)).packets.egress.fallback.fragment ?? 0) > 0);
		});

		test("large pings come back on a warm flow", async () => {
			await ping(world.p1, world.p2, "-c", "5", "-i", "0.01", "-W", "1");
			assert.deepEqual(await ping(world.p1, world.p2, "-c", "5", "-i", "0.01", "-s", "3000", "-W", "1"), {
				sent: 5,
				received: 5,
			});
		});

		test("TCP carries a stream", async () => {
			const server = await background(world.p2, ["iperf3", "--forceflush", "-s", "-1", "-p", "7100"], /listening/);
			const report = await inside(world.p1, "iperf3", "-c", world.p2.ip, "-p", "7100", "-t", "1", "-J");
			await end(server);
			assert.ok(JSON.parse(report).end.sum_received.bytes > 1e6);
			const { fast, fallback } = (await statusOf(world.h2)).packets.ingress;
			assert.ok(fast > 1000, `${fast} fast, ${JSON.stringify(fallback)}`);
		});

		test("detach leaves nothing, and traffic goes on; by tcx without losing a packet", async () => {
			const pinging = ping(world.p1, world.p2, "-c", "150", "-i", "0.01", "-W", "1");
			for (const host of world.lab.hosts) await agentRequest(host.socket, "POST", "/v1/detach");
			const { sent, received } = await pinging;
			// The kernel deactivates a device for a moment when a clsact qdisc is removed (qdisc_graft() in
			// net/sched/sch_api.c): what is being sent just then is dropped, fast path or not. tcx has no such moment.
			const devices = world.lab.hosts.flatMap((host) => [host, ...host.pods]).length;
			assert.ok(sent - received <= (args[1] === "clsact" ? devices : 0), `${received} of ${sent} arrived`);
			for (const host of world.lab.hosts) assert.ok(!existsSync(host.bpffs));
			assert.deepEqual(await traces(world.h1), clean);
			await freed(objects);
		});
	});

describe("the agent may go", () => {
	let world: TestLab;
	before(async () => {
		world = await upWithAgents(NAME, []);
	});
	after(() => world.down());

	for (const how of ["stop", "kill"] as const)
		test(`${how} and start again under traffic: no packet is lost, and the cache stays warm`, async () => {
			await ping(world.p1, world.p2, "-c", "5", "-i", "0.01", "-W", "1");
			// As long as it takes an agent to go and to come.
			const interval = String(patiently(10) / 1000);
			const pinging = ping(world.p1, world.p2, "-c", "300", "-i", interval, "-W", "1");
			const agent = world.agents[0];
			assert.ok(agent);
			await agent[how]();
			const { fast } = JSON.parse(
				await inside(
					world.h1,
					"bin/oncache",
					"status",
					"--json",
					"--socket",
					world.h1.socket,
					"--bpffs",
					world.h1.bpffs,
				),
			).packets.egress;
			world.agents[0] = await startAgent(world.h1);
			assert.deepEqual(await pinging, { sent: 300, received: 300 });
			const status = await statusOf(world.h1);
			assert.ok(status.packets.egress.fast > fast, "counters and fast path went on");
			assert.equal(status.state, "accelerating");
		});
});

describe("a rule added behind the agent's back", () => {
	let world: TestLab;
	before(async () => {
		world = await upWithAgents(NAME, ["--max-staleness-ms", String(STALENESS_MS)]);
	});
	after(() => world.down());

	const arrived = async (): Promise<number> => (await deviceCounters(world.p2, "eth0")).rx;
	/** Nothing reaches the pod any more. */
	async function standsStill(): Promise<boolean> {
		const before = await arrived();
		await setTimeout(200); // a pause in which a packet would come if any came
		return (await arrived()) === before;
	}

	for (const agents of ["alive", "killed"] as const)
		for (const protocol of ["udp", "tcp"] as const)
			test(`stops a warm ${protocol} flow at the bound, agents ${agents}`, async () => {
				if (agents === "killed") for (const agent of world.agents) await agent.kill();
				const port = "7200";
				const server = await background(world.p2, ["iperf3", "--forceflush", "-s", "-p", port], /listening/);
				const udp = protocol === "udp" ? ["-u", "-b", "20M", "-l", "1000"] : ["-b", "50M"];
				const client = await background(
					world.p1,
					["iperf3", "--forceflush", "-c", world.p2.ip, "-p", port, "-t", "20", ...udp],
					/connected to/,
				);
				const start = await arrived();
				await eventually("the flow runs", async () => (await arrived()) > start + 500);
				const rule = ["FORWARD", "-p", protocol, "--dport", port, "-j", "DROP"];
				await inside(world.h2, "iptables", "-I", ...rule);
				await setTimeout(STALENESS_MS + 300); // the bound, and the time to run iptables
				try {
					assert.ok(await standsStill(), "packets still arrive after the bound");
				} finally {
					await run(inNetns(world.h2.netns, ["iptables", "-D", ...rule]), { anyCode: true });
					client.kill("SIGKILL");
					await end(client);
					await end(server);
				}
			});
});

describe("what a pod receives", () => {
	let world: TestLab;
	before(async () => {
		world = await upWithAgents(NAME, []);
	});
	after(() => world.down());

	/** The frames of echo requests as the other pod sees them, without what must differ: IP ID, ICMP ID, checksums, time. */
	async function seen(tos: string, ttl: string): Promise<string[]> {
		const capture = await background(
			world.p2,
			["tcpdump", "-n", "-e", "-v", "-l", "-c", "6", "-i", "eth0", "icmp[0] == 8"],
			/listening on/,
		);
		let text = "";
		capture.stdout?.on("data", (chunk) => {
			text += String(chunk);
		});
		await ping(world.p1, world.p2, "-c", "6", "-i", "0.02", "-W", "1", "-Q", tos, "-t", ttl);
		await eventually(
			"six requests are captured",
			() => capture.exitCode !== null || (text.match(/echo request/g) ?? []).length >= 6,
		);
		await end(capture);
		// The last ones are on a warm flow.
		return text
			.replace(/^\d\d:\d\d:\d\d\.\d+ /gm, "")
			.replace(/id \d+/g, "id N")
			.split(/\n(?=\S)/)
			.slice(-3)
			.map((frame) => frame.trim().replace(/seq \d+/, "seq N"));
	}

	for (const [
		tos,
		ttl,
	] of [["0", "64"], ["0xb8", "64"], ["0x01", "30"], ["0x02", "3"], ["0x28", "255"], ["0xff", "4"]] as const) // biome-ignore format: a table
		test(`is the same with and without ONCache: TOS ${tos}, TTL ${ttl}`, async () => {
			const before = (await statusOf(world.h1)).packets.egress.fast;
			const fast = await seen(tos, ttl);
			assert.ok((await statusOf(world.h1)).packets.egress.fast >= before + 3, "the fast path was used");
			for (const host of world.lab.hosts) await agentRequest(host.socket, "POST", "/v1/pause");
			const slow = await seen(tos, ttl);
			for (const host of world.lab.hosts) await agentRequest(host.socket, "POST", "/v1/resume");
			assert.equal(fast.length, 3);
			assert.deepEqual(fast, slow);
		});

	test("a TTL that expires on the way is answered as without ONCache", async () => {
		await ping(world.p1, world.p2, "-c", "5", "-i", "0.01", "-W", "1");
		const { stdout } = await run(
			inNetns(world.p1.netns, ["ping", "-n", "-c", "1", "-W", "1", "-t", "1", world.p2.ip]),
			{ anyCode: true },
		);
		assert.match(stdout, new RegExp(`From ${world.h1.podCidr.replace("0/24", "1")} icmp_seq=1 Time to live exceeded`));
	});
});
