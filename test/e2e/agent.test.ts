// The agent and its commands, as a user runs them, on a lab host.
import assert from "node:assert/strict";
import { existsSync, mkdtempSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import type { FlowList, Status } from "../../src/agent/api.js";
import type { Finding } from "../../src/agent/doctor.js";
import { ONCACHE, startAgent } from "../../src/lab/agent.js";
import { type Finished, inNetns, run } from "../../src/lab/command.js";
import type { LabHost } from "../../src/lab/topology.js";
import { eventually, inside, ping, statusOf, type TestLab, traces, upWithAgents } from "./world.js";

const NAME = "e2e-agent";
let world: TestLab;
let clean: Record<string, string>;
const dir = mkdtempSync(join(tmpdir(), "oncache-test-"));

before(async () => {
	world = await upWithAgents(NAME, undefined);
	clean = await traces(world.h1);
	for (const host of world.lab.hosts) world.agents.push(await startAgent(host));
});
after(async () => {
	await world.down();
	rmSync(dir, { recursive: true });
});

/** `oncache` on a host, about its agent. */
async function oncache(host: LabHost, ...argv: string[]): Promise<Finished> {
	const [command = "", ...rest] = argv;
	const place = ["--socket", host.socket, "--bpffs", host.bpffs];
	return run(inNetns(host.netns, [ONCACHE, command, ...place, ...rest]), { anyCode: true });
}

async function json<T>(host: LabHost, ...argv: string[]): Promise<T> {
	const { stdout, stderr, code } = await oncache(host, ...argv, "--json");
	assert.equal(code, 0, stderr);
	return JSON.parse(stdout) as T;
}

describe("status", () => {
	test("says what is accelerated", async () => {
		const status = await json<Status>(world.h1, "status");
		assert.deepEqual([status.state, status.why], ["accelerating", []]);
		assert.deepEqual(status.tunnels, [
			{ name: "flannel.1", kind: "vxlan", vni: 1, port: 8472, uplink: "eth0", accelerated: true, why: null },
		]);
		assert.deepEqual(
			status.pods.map(({ veth, attached, why }) => [veth, attached, why]),
			world.h1.pods.map(({ veth }) => [veth, true, null]),
		);
		assert.equal(status.agent.running, true);
		assert.equal(status.maxStalenessMs, 2000);
	});

	test("knows a pod's address once it was talked to", async () => {
		await ping(world.p1, world.p2, "-c", "3", "-i", "0.01", "-W", "1");
		const { pods, caches } = await json<Status>(world.h1, "status");
		assert.equal(pods.find(({ veth }) => veth === world.p1.veth)?.ip, world.p1.ip);
		assert.deepEqual([caches.filter.entries > 0, caches.egress.entries, caches.ingress.entries], [true, 1, 1]);
	});

	test("the socket is not for everybody", () => {
		assert.equal(statSync(world.h1.socket).mode & 0o777, 0o660);
	});
});

describe("flows, flush, pause", () => {
	const warm = async (): Promise<FlowList> => {
		await ping(world.p1, world.p2, "-c", "3", "-i", "0.01", "-W", "1");
		return json<FlowList>(world.h1, "flows", "--pod", world.p1.ip);
	};

	test("flows shows both verdicts, and filters", async () => {
		const { flows, total } = await warm();
		const flow = flows.at(-1);
		assert.deepEqual(
			[flow?.protocol, flow?.local.ip, flow?.remote.ip, flow?.host, flow?.veth],
			["icmp", world.p1.ip, world.p2.ip, world.h2.ip, world.p1.veth],
		);
		assert.ok(flows.some(({ egress, ingress }) => egress.state === "usable" && ingress.state === "usable"));
		assert.equal((await json<FlowList>(world.h1, "flows", "--peer", "10.9.9.9")).total, 0);
		const limited = await json<FlowList>(world.h1, "flows", "--limit", "0");
		assert.deepEqual([limited.flows.length, limited.total], [0, total]);
	});

	test("flush voids what it names", async () => {
		for (const what of [["--pod", world.p1.ip], ["--host", world.h2.ip], ["--all"]]) {
			await warm();
			await json(world.h1, "flush", ...what);
			const { flows } = await json<FlowList>(world.h1, "flows");
			assert.ok(
				flows.every(({ egress, ingress }) => egress.state !== "usable" || ingress.state !== "usable"),
				what.join(" "),
			);
		}
	});

	test("flush wants to know what, exactly", async () => {
		for (const wrong of [[], ["--all", "--pod", "10.0.0.1"], ["--pod", "nonsense"]])
			assert.equal((await oncache(world.h1, "flush", ...wrong)).code, 2);
	});

	test("pause sends everything through the fallback, resume ends that", async () => {
		assert.deepEqual(await json(world.h1, "pause"), { learning: false, using: false });
		const paused = await json<Status>(world.h1, "status");
		assert.equal(paused.state, "off");
		await ping(world.p1, world.p2, "-c", "5", "-i", "0.01", "-W", "1");
		assert.equal((await statusOf(world.h1)).packets.egress.fast, paused.packets.egress.fast);
		assert.deepEqual(await json(world.h1, "resume", "--using"), { learning: false, using: true });
		assert.equal((await json<Status>(world.h1, "status")).state, "degraded");
		assert.deepEqual(await json(world.h1, "resume"), { learning: true, using: true });
	});
});

describe("the agent follows the network", () => {
	test("a veth that comes is attached, one that goes leaves no trace", async () => {
		await inside(
			world.h1,
			"ip",
			"link",
			"add",
			"vethnew",
			"mtu",
			"1450",
			"type",
			"veth",
			"peer",
			"name",
			"eth9",
			"netns",
			NAMESPACE(),
		);
		await inside(world.h1, "ip", "link", "set", "vethnew", "up");
		const find = async () => (await statusOf(world.h1)).pods.find(({ veth }) => veth === "vethnew");
		await eventually("vethnew is attached", async () => (await find())?.attached === true);
		await inside(world.h1, "ip", "link", "del", "vethnew");
		await eventually("vethnew is forgotten", async () => (await find()) === undefined);
		const { attachments } = { attachments: (await statusOf(world.h1)).why };
		assert.deepEqual(attachments, []);
	});

	test("a veth whose ingress others classify is left alone; a shaped one is delivered through its qdisc", async () => {
		const veth = world.h1.pods[1]?.veth ?? "";
		const pod = async () => (await statusOf(world.h1)).pods.find((each) => each.veth === veth);
		await inside(world.h1, "tc", "qdisc", "add", "dev", veth, "clsact");
		await inside(
			world.h1,
			"tc",
			"filter",
			"add",
			"dev",
			veth,
			"ingress",
			"u32",
			"match",
			"u32",
			"0",
			"0",
			"flowid",
			":1",
		);
		await eventually("the pod is not accelerated", async () => (await pod())?.attached === false);
		const left = await pod();
		assert.match(left?.why ?? "", /u32 classifier/);
		assert.equal((await statusOf(world.h1)).state, "degraded");
		await inside(world.h1, "tc", "qdisc", "del", "dev", veth, "clsact");
		await eventually("the pod is accelerated again", async () => (await pod())?.attached === true);
		await inside(
			world.h1,
			"tc",
			"qdisc",
			"add",
			"dev",
			veth,
			"root",
			"tbf",
			"rate",
			"100mbit",
			"burst",
			"32k",
			"latency",
			"50ms",
		);
		await eventually("it is redirected through the shaper", async () => {
			const from = world.lab.hosts[1]?.pods[0];
			const to = world.h1.pods[1];
			assert.ok(from && to);
			await ping(from, to, "-c", "20", "-i", "0.01", "-W", "1");
			const [{ packets }] = JSON.parse(
				await inside(world.h1, "tc", "-s", "-j", "qdisc", "show", "dev", veth, "root"),
			) as [{ packets: number }];
			return packets >= 20;
		});
		await inside(world.h1, "tc", "qdisc", "del", "dev", veth, "root");
	});

	test("a tunnel device that is made again is accelerated again", async () => {
		const before = (await statusOf(world.h1)).packets.egress.fast;
		const { tunnel, ip, uplink } = world.h1;
		const peer = world.h2;
		await inside(world.h1, "ip", "link", "del", tunnel);
		await eventually("there is no tunnel", async () => (await statusOf(world.h1)).tunnels.length === 0);
		assert.equal((await statusOf(world.h1)).state, "off");
		const lines = [
			`link add ${tunnel} address ${world.h1.tunnelMac} mtu 1450 type vxlan id 1 local ${ip} dev ${uplink} dstport 8472 nolearning noudpcsum`,
			`link set ${tunnel} up`,
			`addr add 10.244.1.0/32 dev ${tunnel}`,
			`route add ${peer.podCidr} via 10.244.2.0 dev ${tunnel} onlink`,
			`neigh add 10.244.2.0 lladdr ${peer.tunnelMac} dev ${tunnel} nud permanent`,
		];
		await run(inNetns(world.h1.netns, ["ip", "-batch", "-"]), { input: `${lines.join("\n")}\n` });
		await inside(world.h1, "bridge", "fdb", "add", peer.tunnelMac, "dev", tunnel, "dst", peer.ip);
		await eventually("the tunnel is accelerated", async () => (await statusOf(world.h1)).state === "accelerating");
		await eventually("packets are fast again", async () => {
			await ping(world.p1, world.p2, "-c", "5", "-i", "0.01", "-W", "1");
			return (await statusOf(world.h1)).packets.egress.fast > before;
		});
	});
});

/** The first pod's namespace, for a second veth into it. */
const NAMESPACE = (): string => world.p1.netns.slice(world.p1.netns.lastIndexOf("/") + 1);

describe("refusals", () => {
	test("a second agent on the same socket says who is there", async () => {
		const { code, stderr } = await oncache(world.h1, "agent");
		assert.equal(code, 1);
		assert.match(
			stderr,
			new RegExp(`Another agent \\(process ${world.agents[0]?.pid}\\) answers at "${world.h1.socket}"`),
		);
	});

	test("a wrong configuration names file, key, value and what is allowed", async () => {
		const file = join(dir, "config.yaml");
		for (const [text, words] of [
			["maxStalenessMs: 5\n", /"maxStalenessMs" is 5; allowed: a whole number from 100 to 60000/],
			["colour: red\n", /unknown key "colour"; allowed: socket/],
			["mark: 0x4000\n", /"mark" is 0x4000.*kube-proxy/],
			["tunnels: [flannel.9]\n", /"flannel.9": no such tunnel device here; there is flannel.1/],
		] as const) {
			writeFileSync(file, text);
			const place = ["--socket", join(dir, "a.sock"), "--bpffs", `${world.h1.bpffs}-other`];
			const { code, stderr } = await run(inNetns(world.h1.netns, [ONCACHE, "agent", ...place, "--config", file]), {
				anyCode: true,
			});
			assert.equal(code, 2, stderr);
			assert.match(stderr, words);
		}
	});

	test("commands that need something say what is missing", async () => {
		const nowhere = ["--socket", join(dir, "none.sock"), "--bpffs", "/sys/fs/bpf/oncache-none"];
		for (const argv of [["flows"], ["flush", "--all"], ["pause"]]) {
			const { code, stderr } = await run([ONCACHE, ...argv, ...nowhere], { anyCode: true });
			assert.equal(code, 1);
			assert.match(stderr, /Nothing of ONCache is at "\/sys\/fs\/bpf\/oncache-none"/);
		}
		const { stdout, code } = await run([ONCACHE, "status", ...nowhere, "--json"], { anyCode: true });
		assert.equal(code, 0);
		assert.equal((JSON.parse(stdout) as Status).state, "off");
	});
});

describe("doctor", () => {
	test("finds no problem on a lab host, and sees a mark in conflict", async () => {
		const findings = await json<Finding[]>(world.h1, "doctor");
		assert.deepEqual(
			findings.filter(({ level }) => level !== "ok"),
			[],
		);
		await inside(
			world.h1,
			"iptables",
			"-t",
			"mangle",
			"-A",
			"FORWARD",
			"-m",
			"mark",
			"--mark",
			"0x1000/0x1000",
			"-j",
			"ACCEPT",
		);
		const conflict = (await json<Finding[]>(world.h1, "doctor")).filter(({ level }) => level === "warning");
		assert.equal(conflict.length, 1);
		assert.match(conflict[0]?.what ?? "", /mark 0x1000/);
		await inside(world.h1, "iptables", "-t", "mangle", "-F", "FORWARD");
	});

	test("says in words why packets took the fallback", async () => {
		await json(world.h1, "pause");
		await ping(world.p1, world.p2, "-c", "50", "-i", "0.002", "-W", "1");
		await json(world.h1, "resume");
		const found = (await json<Finding[]>(world.h1, "doctor")).find(({ what }) => what === "fallback, egress: paused");
		assert.match(found?.found ?? "", /% of the packets: using the cache was switched off/);
	});

	test("names a switch that does not answer, and what that means", async () => {
		const dir = mkdtempSync(join(tmpdir(), "oncache-ovs-"));
		try {
			writeFileSync(`${dir}/db.sock`, ""); // as dead as the socket of a server that was killed
			const argv = inNetns(world.h1.netns, ["env", `OVS_RUNDIR=${dir}`, ONCACHE, "doctor", "--json"]);
			const { stdout } = await run(argv, { anyCode: true });
			const found = (JSON.parse(stdout) as Finding[]).find(({ what }) => what === "Open vSwitch");
			assert.equal(found?.level, "problem");
			assert.match(found?.found ?? "", /Cannot ask Open vSwitch at/);
			assert.match(found?.todo ?? "", /noticed at the staleness bound/);
		} finally {
			rmSync(dir, { recursive: true });
		}
	});

	test("calls a namespace without overlay a problem, exit code 1", async () => {
		const { code, stdout } = await run(["unshare", "-n", ONCACHE, "doctor"], { anyCode: true });
		assert.equal(code, 1);
		assert.match(stdout, /problem +tunnel devices: none/);
	});
});

describe("at the end", () => {
	test("SIGTERM leaves the programs attached, and status says so without an agent", async () => {
		await world.agents[0]?.stop();
		assert.equal(existsSync(world.h1.socket), false);
		const status = await json<Status>(world.h1, "status");
		assert.deepEqual([status.state, status.agent.running], ["accelerating", false]);
		assert.ok(status.pods.every(({ attached }) => attached));
	});

	test("detach without an agent leaves nothing, and can be repeated", async () => {
		const first = await json<{ removed: string[] }>(world.h1, "detach");
		assert.ok(first.removed.some((line) => line.startsWith("sysctl")));
		assert.equal(existsSync(world.h1.bpffs), false);
		// The rule that the doctor's test made created this table.
		await inside(world.h1, "nft", "delete", "table", "ip", "mangle");
		assert.deepEqual(await traces(world.h1), clean);
		assert.deepEqual(await json(world.h1, "detach"), { removed: [] });
		assert.equal((await json<Status>(world.h1, "status")).state, "off");
	});
});
