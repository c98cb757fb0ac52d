// Antrea: a real Open vSwitch with Antrea's pipeline. With its kernel datapath the overlay is accelerated; with the one in
// user space it is left alone, and says why. Where this kernel has no module for the first, the second is what runs.
import assert from "node:assert/strict";
import { after, describe, test } from "node:test";
import { setTimeout } from "node:timers/promises";
import pino from "pino";
import { SwitchGuard } from "../../src/agent/switch.js";
import { type LabAgent, ONCACHE, startAgent } from "../../src/lab/agent.js";
import { numbered } from "../../src/lab/antrea.js";
import { labDown, labUp } from "../../src/lab/lab.js";
import { patiently } from "../../src/lab/patience.js";
import { addPipeline, ovs, startSwitch, stopSwitch } from "../../src/lab/switch.js";
import { type Lab, type LabHost, type LabPod, type LabSpec, SWITCH, specOf } from "../../src/lab/topology.js";
import { FIND_SWITCH, readSwitch } from "../../src/ovs/switch.js";
import { SwitchWatch } from "../../src/ovs/watch.js";
import { answerAll, EXCHANGES, fastShare, MOST, UDP_PORT } from "./exchange.js";
import { background, end, eventually, inside, PEER, ping, statusOf } from "./world.js";

const NAME = "e2e-antrea";
const COOKIE = "cookie=0x6f6e636163686500/-1";
const MARK_FLOWS = 16;
const MAX_STALENESS_MS = 2000;
const TOS_MISS = 4;
const TOS_ESTABLISHED = 8;

interface World {
	lab: Lab;
	h1: LabHost;
	h2: LabHost;
	from: LabPod;
	beside: LabPod;
	to: LabPod;
	agents: LabAgent[];
	down(): Promise<void>;
}

async function up(given: Partial<LabSpec>, args?: readonly string[]): Promise<World | string> {
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
		if (args) for (const host of lab.hosts) agents.push(await startAgent(host, { args }));
	} catch (error) {
		await down();
		throw error;
	}
	const [from, beside] = h1.pods as [LabPod, LabPod];
	return { lab, h1, h2, from, beside, to: h2.pods[0] as LabPod, agents, down };
}

async function markFlows(host: LabHost): Promise<number> {
	const { stdout } = await ovs(host, ["ovs-ofctl", "--no-stats", "dump-flows", SWITCH, COOKIE]);
	return stdout.split("\n").filter((line) => line.includes("actions=")).length;
}

async function addFlow(host: LabHost, flow: string): Promise<void> {
	await ovs(host, ["ovs-ofctl", "add-flow", SWITCH, numbered(flow)]);
}

/** UDP datagrams that sockets of this pod have got. */
async function received({ netns }: LabPod): Promise<number> {
	const lines = (await inside({ netns }, "cat", "/proc/net/snmp"))
		.split("\n")
		.filter((line) => line.startsWith("Udp:"));
	const [names = [], values = []] = lines.map((line) => line.split(" "));
	return Number(values[names.indexOf("InDatagrams")]);
}

const ask = async (from: LabPod, to: LabPod, sourcePort: number, count: number): Promise<number> =>
	Number(
		await inside(from, "node", PEER, "ask", to.ip, String(UDP_PORT), String(sourcePort), ...Array(count).fill("100")),
	);

describe("Open vSwitch's kernel datapath", () => {
	after(() => labDown(NAME));
	for (const mode of ["auto", "dscp"] as const)
		test(`mark mode ${mode}: the fast path is used, obeys the switch's flows, and leaves them as they are`, async (t) => {
			const world = await up({}, ["--mark-mode", mode]);
			if (typeof world === "string") return t.skip(world);
			const { lab, h1, from, beside, to, agents } = world;
			const servers = [...(await answerAll(to)), ...(await answerAll(beside))];
			try {
				const { markMode, state, why } = await statusOf(h1);
				assert.equal(state, "accelerating", why.join("; "));
				t.diagnostic(`mark mode ${markMode}`);
				assert.equal(await markFlows(h1), markMode === "dscp" ? MARK_FLOWS : 0);
				for (const [protocol, exchange] of Object.entries(EXCHANGES)) {
					const share = await fastShare(h1, () => exchange(from, to));
					assert.ok(share > MOST, `${protocol} to another host: only ${(100 * share).toFixed(1)} % fast`);
				}
				if (markMode === "metadata") {
					const share = await fastShare(h1, () => EXCHANGES.udp(from, beside));
					assert.ok(share > MOST, `to a pod of this host: only ${(100 * share).toFixed(1)} % fast`);
				}

				await t.test("a pod that borrows a warm flow's addresses is refused, as by the switch", async () => {
					assert.equal(await ask(from, to, 4000, 20), 20);
					await inside(beside, "ip", "addr", "add", `${from.ip}/32`, "dev", "eth0");
					const before = await received(to);
					const spoofing = `require("dgram").createSocket("udp4").bind(4000, "${from.ip}", function () {
						let left = 50;
						const timer = setInterval(() => {
							if (left-- > 0) this.send("spoofed", ${UDP_PORT}, "${to.ip}");
							else { clearInterval(timer); this.close(); }
						}, 5);
					})`;
					await inside(beside, "node", "-e", spoofing);
					await inside(beside, "ip", "addr", "del", `${from.ip}/32`, "dev", "eth0");
					assert.equal(await received(to), before);
				});

				await t.test("a flow that denies takes effect within the bound, and ends with its end", async () => {
					assert.equal(await ask(from, to, 4001, 20), 20);
					const sending = `const socket = require("dgram").createSocket("udp4").bind(4001, () => {
						setInterval(() => socket.send("again", ${UDP_PORT}, "${to.ip}"), 10);
						console.log("sending");
					})`;
					const sender = await background(from, ["node", "-e", sending], /sending/);
					try {
						const fast = await fastShare(h1, () => setTimeout(patiently(500)));
						assert.ok(fast > MOST, `only ${(100 * fast).toFixed(1)} % fast before`);
						const { flushes = 0 } = (await statusOf(h1)).coherency ?? {};
						const deny = `table=Classifier,priority=300,udp,in_port=3,tp_dst=${UDP_PORT}`;
						await addFlow(h1, `${deny},actions=drop`);
						await setTimeout(MAX_STALENESS_MS);
						const before = await received(to);
						await setTimeout(1000);
						assert.equal(await received(to), before, "what is sent after the bound does not arrive");
						assert.ok(((await statusOf(h1)).coherency?.flushes ?? 0) > flushes, "the change was heard of");
						await ovs(h1, ["ovs-ofctl", "del-flows", "--strict", SWITCH, numbered(deny)]);
						await eventually("the flow passes again", async () => (await received(to)) > before);
					} finally {
						await end(sender);
					}
				});

				if (markMode === "dscp")
					await t.test("its flows come back after a replay, and no mark reaches a pod", async () => {
						await ovs(h1, ["ovs-ofctl", "del-flows", SWITCH]);
						await addPipeline(h1, lab);
						await eventually("the flows are there again", async () => (await markFlows(h1)) === MARK_FLOWS);
						const marked = await background(to, ["tcpdump", "-nli", "eth0", "udp and ip[1] & 0xfc != 0"], /listening/);
						let seen = "";
						marked.stdout?.on("data", (text) => {
							seen += String(text);
						});
						assert.equal(await ask(from, to, 4002, 60), 60);
						await end(marked);
						assert.equal(seen.replace(/^.*(listening|verbose).*$/gm, "").trim(), "");
					});

				await t.test("detached, nothing is left in the switch, and packets pass", async () => {
					for (const host of lab.hosts)
						await inside(host, ONCACHE, "detach", "--socket", host.socket, "--bpffs", host.bpffs);
					for (const agent of agents.splice(0)) await agent.stop();
					assert.equal(await markFlows(h1), 0);
					assert.equal(await ask(from, to, 4003, 5), 5);
				});
			} finally {
				await Promise.all(servers.map(end));
				await world.down();
			}
		});
});

describe("Open vSwitch's userspace datapath", () => {
	after(() => labDown(NAME));

	test("is left alone with a reason, and every packet arrives once", async () => {
		const world = await up({ datapath: "netdev" }, []);
		assert.ok(typeof world !== "string");
		const { h1, from, beside, to } = world;
		const servers = [...(await answerAll(to)), ...(await answerAll(beside))];
		try {
			const { state, pods } = await statusOf(h1);
			assert.equal(state, "off");
			for (const { veth, attached, why } of pods) {
				assert.equal(attached, false, veth);
				assert.match(why ?? "", /packet socket/);
			}
			for (const pod of [to, beside]) {
				const before = await received(pod);
				assert.equal(await ask(from, pod, 0, 40), 40);
				assert.equal((await received(pod)) - before, 40);
				const { stdout } = { stdout: await inside(from, "ping", "-n", "-c", "20", "-i", "0.02", pod.ip) };
				assert.doesNotMatch(stdout, /DUP/);
			}
		} finally {
			await Promise.all(servers.map(end));
			await world.down();
		}
	});

	test("dscp mode's flows: mark what is established and nothing else, come back, and can be removed", async () => {
		const world = await up({ datapath: "netdev" });
		assert.ok(typeof world !== "string");
		const { lab, h1, from, to } = world;
		const options = { ...FIND_SWITCH, runDir: h1.switchDir as string };
		const ended = new AbortController();
		const zones = { ok: false, why: "" };
		const heard = { flows: 0 };
		const watch = new SwitchWatch(
			options,
			{ onFlows: () => heard.flows++, onState: () => setImmediate(() => guard.prepare()) },
			ended.signal,
		);
		const guard = new SwitchGuard(watch, { markMode: "dscp", zones }, pino({ level: "silent" }));
		try {
			assert.deepEqual(
				{ ...readSwitch(options), userspacePorts: [] },
				{
					runDir: h1.switchDir,
					bridge: SWITCH,
					zone: 65520,
					table: "ConntrackState",
					tunnels: [{ kind: "geneve", port: 6081, tosInherit: false, ttlInherit: false, udpChecksum: false }],
					remotes: [0xc0a84d02],
					userspacePorts: [],
					diverted: {},
				},
			);
			const without = await arrivals(from, to, 0x50 | TOS_MISS);
			assert.equal(guard.prepare(), undefined);
			assert.equal(await markFlows(h1), MARK_FLOWS);

			const own = 0x50; // bits that are the pod's own stay
			const first = await arrivals(from, to, own | TOS_MISS);
			const [miss, established] = [own | TOS_MISS, own | TOS_MISS | TOS_ESTABLISHED];
			const seen = first.map(({ tos }) => tos);
			// Until the first answer is back, the next ones are new too.
			const news = seen.filter((tos) => tos === miss).length;
			assert.deepEqual(seen, [...Array(news).fill(miss), ...Array(seen.length - news).fill(established)]);
			assert.ok(news > 0 && news < seen.length, `the first packet is new, the last is established: ${seen}`);
			assert.deepEqual(
				first.map(({ ttl, length }) => [ttl, length]),
				without.map(({ ttl, length }) => [ttl, length]),
				"nothing else is another",
			);
			for (const tos of [0, own | TOS_ESTABLISHED, own | TOS_MISS | TOS_ESTABLISHED])
				assert.deepEqual(
					[...new Set((await arrivals(from, to, tos)).map((packet) => packet.tos))],
					[tos],
					`TOS ${tos} is no mark`,
				);

			const before = heard.flows;
			await ovs(h1, ["ovs-ofctl", "del-flows", SWITCH]);
			await addPipeline(h1, lab);
			await eventually("they are back after a replay", async () => (await markFlows(h1)) === MARK_FLOWS);
			assert.ok(heard.flows > before, "a change of the flows is heard of");
			assert.equal((await ping(from, to, "-c", "3", "-i", "0.02")).received, 3);

			await stopSwitch(h1.switchDir as string);
			await eventually("its end is noticed", () => watch.problem !== undefined || watch.state === undefined);
			assert.notEqual(guard.prepare(), undefined);
			await startSwitch(h1);
			await addPipeline(h1, lab);
			await eventually("they are back after a restart", async () => (await markFlows(h1)) === MARK_FLOWS);
			assert.equal(guard.prepare(), undefined);
		} finally {
			ended.abort();
			await world.down();
		}
	});

	test("a port whose packets are copied or diverted is not accelerated", async () => {
		const world = await up({ datapath: "netdev" });
		assert.ok(typeof world !== "string");
		const { h1, from, beside } = world;
		const options = { ...FIND_SWITCH, runDir: h1.switchDir as string };
		try {
			await addFlow(
				h1,
				"table=TrafficControl,priority=200,in_port=3,actions=set_field:0x2->reg9,set_field:0x400000/0xc00000->reg4,goto_table:IngressSecurityClassifier",
			);
			const { diverted } = readSwitch(options) ?? {};
			assert.match(diverted?.[from.veth] ?? "", /TrafficControl/);
			assert.equal(diverted?.[beside.veth], undefined);
		} finally {
			await world.down();
		}
	});
});

/** What arrives of five echo requests, in order. */
async function arrivals(
	from: LabPod,
	to: LabPod,
	tos: number,
): Promise<{ tos: number; ttl: number; length: number }[]> {
	const capture = await background(to, ["tcpdump", "-nvli", "eth0", "icmp[icmptype] == icmp-echo"], /listening/);
	let text = "";
	capture.stdout?.on("data", (chunk) => {
		text += String(chunk);
	});
	await ping(from, to, "-c", "5", "-i", "0.1", "-Q", String(tos));
	await eventually("five packets are captured", () => (text.match(/ echo request/g) ?? []).length >= 5);
	await end(capture);
	return [...text.matchAll(/tos 0x([0-9a-f]+),.* ttl (\d+),.* length (\d+)\)/g)].map(([, hex = "", ttl, length]) => ({
		tos: Number.parseInt(hex, 16),
		ttl: Number(ttl),
		length: Number(length),
	}));
}
