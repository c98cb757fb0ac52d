// Antrea over Open vSwitch's userspace datapath: left alone, with the reason. What ONCache reads in a switch and writes into it is tried
// here, where every kernel has what it takes.
import assert from "node:assert/strict";
import { after, describe, test } from "node:test";
import pino from "pino";
import { SwitchGuard } from "../../src/agent/switch.js";
import { labDown } from "../../src/lab/lab.js";
import { addPipeline, ovs, startSwitch, stopSwitch } from "../../src/lab/switch.js";
import { type LabPod, SWITCH } from "../../src/lab/topology.js";
import { FIND_SWITCH, readSwitch } from "../../src/ovs/switch.js";
import { SwitchWatch } from "../../src/ovs/watch.js";
import { addFlow, ask, MARK_FLOWS, markFlows, NAME, received, up } from "./antrea.js";
import { answerAll } from "./exchange.js";
import { background, end, eventually, inside, ping, statusOf } from "./world.js";

const TOS_MISS = 4;
const TOS_ESTABLISHED = 8;

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
					zones: { ipv4: 65520, ipv6: undefined },
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
