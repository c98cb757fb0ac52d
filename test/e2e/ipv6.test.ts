// Pods with both families: commands know IPv6 flows, and what the kernel tells about IPv6 is evicted at once: the bound of
// staleness is a minute away, so nothing else can be the cause.
import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { setTimeout } from "node:timers/promises";
import type { FlowList, FlushResult, VerifyResult } from "../../src/agent/api.js";
import { startAgent } from "../../src/lab/agent.js";
import { inNetns, run } from "../../src/lab/command.js";
import type { LabPod } from "../../src/lab/topology.js";
import {
	background, deviceCounters, end, eventually, inside, oncache as oncacheOn, PEER, statusOf, type TestLab, upWithAgents, whilePinging,
} from "./world.js"; // biome-ignore format: a list

const ARGS = ["--max-staleness-ms", "60000"];
let world: TestLab;
let local: string;
let remote: string;

before(async () => {
	world = await upWithAgents("e2e-ipv6", ARGS, { family: "dual" });
	[local, remote] = [world.p1.addresses[1] as string, world.p2.addresses[1] as string];
});
after(() => world.down());

const oncache = (command: string, ...rest: string[]) => oncacheOn(world.h1, command, ...rest);

async function json<T>(command: string, ...rest: string[]): Promise<T> {
	return JSON.parse((await oncache(command, "--json", ...rest)).stdout) as T;
}

const pinging = (body: () => Promise<void>) => whilePinging(world.h1, world.p1, remote, body);
const arrived = async (): Promise<number> => (await deviceCounters(world.p2, "eth0")).rx;

/** A conversation of ten datagrams, from port 7001 to 7000. */
async function talk(): Promise<void> {
	const echo = await background(world.p2, [process.execPath, PEER, "echo", "7000", "::"], /listening/);
	const sizes = new Array<string>(10).fill("100");
	assert.equal((await inside(world.p1, process.execPath, PEER, "ask", remote, "7000", "7001", ...sizes)).trim(), "10");
	await end(echo);
}

const FLOW = (): string => `udp,[${local}]:7001,[${remote}]:7000`;

describe("commands", () => {
	test("flows lists IPv6 flows by pod and by peer, in canonical text", async () => {
		await talk();
		for (const [option, ip] of [
			["--pod", local.toUpperCase()],
			["--peer", remote.replace("::", ":0:0:0:")],
		] as const) {
			const { flows } = await json<FlowList>("flows", option, ip);
			const [flow] = flows.filter(({ protocol }) => protocol === "udp");
			assert.deepEqual([flow?.local, flow?.remote], [{ ip: local, port: 7001 }, { ip: remote, port: 7000 }]); // biome-ignore format: a pair
			assert.deepEqual([flow?.host, flow?.veth], [world.h2.ip, world.p1.veth]);
		}
		assert.ok((await oncache("flows")).stdout.includes(`[${local}]:7001`));
		assert.deepEqual(
			(await statusOf(world.h1)).pods.find(({ veth }) => veth === world.p1.veth)?.addresses.at(-1),
			local,
		);
	});

	test("flush evicts by pod, by flow and by host", async () => {
		for (const [argv, expected] of [
			[["--flow", FLOW()], { pods: 0, hosts: 0, flows: 1, all: false }],
			[["--pod", local], { pods: 1, hosts: 0, flows: 0, all: false }],
			[["--host", world.h2.ip], { pods: 0, hosts: 1, flows: 0, all: false }],
		] as const) {
			await setTimeout(40); // within the guard time nothing is learned
			await talk();
			assert.deepEqual(await json<FlushResult>("flush", ...argv), expected, argv.join(" "));
		}
		await talk();
		const { flows } = await json<FlushResult>("flush", "--pod", remote);
		assert.ok(flows >= 1, "all flows towards a pod of another host");
	});

	test("apply takes IPv6 pods and flows, and refuses what is neither", async () => {
		await setTimeout(40); // within the guard time nothing is learned
		await talk();
		const applied = await oncache("apply", "--pod", remote, "--flow", FLOW(), "--", "true");
		assert.match(applied.stderr, /evicted: 0 cached hosts and 0 cached pods .* and [1-9]\d* single flows/);
		for (const wrong of ["fe80::1%eth0", "fd00::1/64", "fd00:::1", "udp,fd00::1:1,fd00::2:2"])
			assert.equal((await oncache("apply", wrong.includes(",") ? "--flow" : "--pod", wrong, "--", "true")).code, 2);
	});
});

describe("verify", () => {
	const verify = () => json<VerifyResult>("verify");

	test("finds no difference on a host in use", () =>
		pinging(async () => {
			await eventually("flows are cached", async () => (await verify()).checked.flows > 0);
			assert.deepEqual((await verify()).differences, []);
		}));

	for (const [what, change, undo, words] of [
		["a route", "ip route add REMOTE/128 dev lo", "ip route del REMOTE/128 dev lo", /filter flow .* Its route leads to "lo"/],
		["a pod's place", "ip neigh replace LOCAL lladdr 0a:00:00:00:00:98 dev cni0 nud permanent", "ip neigh del LOCAL dev cni0", /ingress pod LOCAL .* has the MAC address 0a:00:00:00:00:98/],
	] as const) // biome-ignore format: a table
		test(`finds ${what} that changed while no agent was there, and the next agent evicts it`, async () => {
			await talk();
			await world.agents[0]?.kill();
			const script = (text: string): string => text.replaceAll("REMOTE", remote).replaceAll("LOCAL", local);
			await inside(world.h1, "sh", "-ec", script(change));
			const { differences } = await verify();
			assert.ok(
				differences.some(({ cache, entry, why }) => new RegExp(script(words.source)).test(`${cache} ${entry} ${why}`)),
				JSON.stringify(differences),
			);
			world.agents[0] = await startAgent(world.h1, { args: ARGS });
			await eventually("it is evicted", async () => (await verify()).differences.length === 0);
			await inside(world.h1, "sh", "-ec", script(undo));
			await talk();
		});

	test("finds a flow that connection tracking has forgotten while no agent was there", async () => {
		await setTimeout(40); // within the guard time nothing is learned
		await talk();
		await world.agents[0]?.kill();
		await inside(world.h1, "conntrack", "-F");
		const { differences } = await verify();
		assert.ok(
			differences.some(
				({ entry, why }) =>
					entry === `flow udp [${local}]:7001 [${remote}]:7000` && why === "Connection tracking does not know it",
			),
			JSON.stringify(differences),
		);
		world.agents[0] = await startAgent(world.h1, { args: ARGS });
	});
});

describe("what the kernel tells is evicted at once", () => {
	const standsStill = async (): Promise<boolean> => {
		const before = await arrived();
		await setTimeout(100); // a pause in which a packet would come if any came
		return (await arrived()) === before;
	};

	test("a rule of ip6tables", () =>
		pinging(async () => {
			await inside(world.h1, "ip6tables", "-I", "FORWARD", "-p", "icmpv6", "-j", "DROP");
			await eventually("nothing reaches the pod", standsStill);
			await inside(world.h1, "ip6tables", "-D", "FORWARD", "-p", "icmpv6", "-j", "DROP");
		}));

	test("a route", () =>
		pinging(async () => {
			await inside(world.h1, "ip", "route", "add", "blackhole", `${remote}/128`);
			await eventually("nothing reaches the pod", standsStill);
			await inside(world.h1, "ip", "route", "del", "blackhole", `${remote}/128`);
		}));

	test("a policy rule", () =>
		pinging(async () => {
			await inside(world.h1, "ip", "-6", "rule", "add", "to", remote, "blackhole");
			await eventually("nothing reaches the pod", standsStill);
			await inside(world.h1, "ip", "-6", "rule", "del", "to", remote, "blackhole");
		}));

	test("a neighbour: the remote host's tunnel device", () =>
		pinging(async () => {
			const [tunnel, gateway] = [world.h1.tunnel, world.h2.subnets[1]?.tunnelAddress as string];
			const to = (mac: string): string[] => [
				"neigh",
				"replace",
				gateway,
				"lladdr",
				mac,
				"dev",
				tunnel,
				"nud",
				"permanent",
			];
			await inside(world.h1, "ip", ...to("0a:00:00:00:00:99"));
			await eventually("nothing reaches the pod", standsStill);
			await inside(world.h1, "ip", ...to(world.h2.tunnelMac));
		}));

	test("the end of a connection tracking entry", async () => {
		await talk();
		const before = (await statusOf(world.h1)).coherency?.forgotten ?? 0;
		await inside(world.h1, "conntrack", "-D", "-f", "ipv6", "-p", "udp", "--sport", "7001");
		await eventually("it is forgotten", async () => ((await statusOf(world.h1)).coherency?.forgotten ?? 0) > before);
	});
});

test("what is larger than the path allows is answered by the kernel", async () => {
	const { tunnelAddress = "", cidr = "" } = world.h2.subnets[1] ?? {};
	const route = ["route", "replace", cidr, "via", tunnelAddress, "dev", world.h1.tunnel, "onlink"];
	await inside(world.h1, "ip", ...route, "mtu", "1300");
	const large = async (): Promise<string> => {
		const argv = ["ping", "-n", "-c", "3", "-i", "0.05", "-W", "1", "-M", "do", "-s", "1350", remote];
		const done = await run(inNetns((world.p1 as LabPod).netns, argv), { anyCode: true });
		return done.stdout + done.stderr;
	};
	await eventually("it says how large", async () => /mtu[=:] ?1300/.test(await large()));
	await inside(world.h1, "ip", ...route);
	await inside(world.p1, "ip", "route", "flush", "cache");
});
