// What the kernel tells is evicted at once: the bound of staleness is a minute away, so nothing else can be the cause.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { after, before, describe, test } from "node:test";
import { setTimeout } from "node:timers/promises";
import type { Lease, VerifyResult } from "../../src/agent/api.js";
import { agentRequest } from "../../src/agent/client.js";
import { ONCACHE, startAgent } from "../../src/lab/agent.js";
import { inNetns, run } from "../../src/lab/command.js";
import {
	background,
	deviceCounters,
	end,
	eventually,
	inside,
	oncache as oncacheOn,
	PEER,
	ping,
	pinging,
	statusOf,
	type TestLab,
	upWithAgents,
} from "./world.js";

/** What `oncache apply` holds when nobody renews it. */
const APPLY_LEASE_MS = 10_000;
const ARGS = ["--max-staleness-ms", "60000"];
let world: TestLab;

before(async () => {
	world = await upWithAgents("e2e-coher", ARGS);
});
after(() => world.down());

const oncache = (command: string, ...rest: string[]) => oncacheOn(world.h1, command, ...rest);

const warmUp = () => ping(world.p1, world.p2, "-c", "5", "-i", "0.01", "-W", "1");
const fast = async (): Promise<number> => (await statusOf(world.h1)).packets.egress.fast;

const arrived = async (): Promise<number> => (await deviceCounters(world.p2, "eth0")).rx;
async function standsStill(): Promise<boolean> {
	const before = await arrived();
	await setTimeout(100); // a pause in which a packet would come if any came
	return (await arrived()) === before;
}

describe("a rule that forbids a warm flow", () => {
	for (const [how, add, remove] of [
		["iptables", "iptables -I FORWARD -p icmp -j DROP", "iptables -D FORWARD -p icmp -j DROP"],
		["iptables-legacy", "iptables-legacy -I FORWARD -p icmp -j DROP", "iptables-legacy -D FORWARD -p icmp -j DROP"],
		[
			"nft",
			"nft add table ip other; nft add chain ip other f '{ type filter hook forward priority 0; }'; nft add rule ip other f icmp type echo-request drop",
			"nft delete table ip other",
		],
	] as const)
		test(`${how}: holds for the next packets, and the flow is fast again without it`, async () => {
			const traffic = pinging(world.p1, world.p2.ip);
			try {
				const before = await fast();
				await eventually("the flow is fast", async () => (await fast()) > before + 10);
				const flushes = (await statusOf(world.h1)).coherency?.flushes ?? 0;
				await inside(world.h1, "sh", "-ec", add);
				await eventually("nothing reaches the pod", standsStill);
				assert.ok(((await statusOf(world.h1)).coherency?.flushes ?? 0) > flushes);
				await inside(world.h1, "sh", "-ec", remove);
				const then = await fast();
				await eventually("the flow is fast again", async () => (await fast()) > then + 10);
			} finally {
				await traffic.stop();
			}
		});
});

describe("apply", () => {
	test("hands on the command's output and exit code, and says what it evicted", async () => {
		await warmUp();
		const named = await oncache("apply", "--pod", world.p2.ip, "--", "sh", "-c", "echo changed; exit 7");
		assert.deepEqual([named.code, named.stdout], [7, "changed\n"]);
		assert.match(named.stderr, /evicted: 0 cached hosts and 0 cached pods .* and [1-9]\d* single flows/);
		assert.match((await oncache("apply", "--", "true")).stderr, /evicted: every flow is judged again/);
		assert.equal((await oncache("apply", "--quiet", "--", "sh", "-c", "kill -9 $$")).code, 128 + 9);
		const unknown = await oncache("apply", "--", "no-such-command");
		assert.deepEqual([unknown.code, /Cannot run "no-such-command"/.test(unknown.stderr)], [127, true]);
		assert.equal((await statusOf(world.h1)).coherency?.leases, 0);
	});

	test("wants a command, and well-formed addresses", async () => {
		for (const argv of [[], ["--pod", "10.0.0", "--", "true"], ["--flow", "tcp,1.2.3.4,5", "--", "true"]])
			assert.equal((await oncache("apply", ...argv)).code, 2, argv.join(" "));
	});

	test("nothing is learned while the command runs, and it is as soon as it has ended", async () => {
		const traffic = pinging(world.p1, world.p2.ip);
		try {
			const [file = "", ...args] = inNetns(world.h1.netns, [
				ONCACHE, "apply", "--socket", world.h1.socket, "--bpffs", world.h1.bpffs, "--", "sh", "-c", "echo on; read x",
			]); // biome-ignore format: one command
			const child = spawn(file, args, { stdio: ["pipe", "pipe", "ignore"] });
			const exited = once(child, "exit");
			await once(child.stdout, "data");
			const before = await fast();
			const learned = (await statusOf(world.h1)).lessons.egress.paused ?? 0;
			await eventually(
				"packets asked in vain",
				async () => ((await statusOf(world.h1)).lessons.egress.paused ?? 0) > learned + 10,
			);
			assert.equal(await fast(), before);
			child.stdin.end("\n");
			assert.deepEqual(await exited, [0, null]);
			await eventually("the flow is fast again", async () => (await fast()) > before);
		} finally {
			await traffic.stop();
		}
	});

	test("a client that dies does not leave learning paused; two do not disturb each other", async () => {
		const lease = (ttlMs: number): Promise<Lease> =>
			agentRequest<Lease>(world.h1.socket, "POST", "/v1/leases", { ttlMs, evict: [{ all: true }] });
		const traffic = pinging(world.p1, world.p2.ip);
		try {
			const { id } = await lease(60_000);
			await lease(300); // its user is never heard of again
			const before = await fast();
			await eventually("the short one ends", async () => (await statusOf(world.h1)).coherency?.leases === 1);
			assert.equal(await fast(), before, "the other still holds");
			assert.deepEqual(await agentRequest(world.h1.socket, "POST", "/v1/leases/release", { id }), { held: true });
			await eventually("learning goes on", async () => (await fast()) > before);
			const then = await fast();
			await lease(300);
			await eventually("a lease alone ends too", async () => (await fast()) > then + 10);
		} finally {
			await traffic.stop();
		}
	});

	test("killed, it leaves its command alone, and learning goes on when its lease has ended", async () => {
		const traffic = pinging(world.p1, world.p2.ip);
		try {
			const [file = "", ...args] = inNetns(world.h1.netns, [
				ONCACHE, "apply", "--socket", world.h1.socket, "--bpffs", world.h1.bpffs, "--", "sh", "-c", "echo on; read x; echo off",
			]); // biome-ignore format: one command
			const child = spawn(file, args, { stdio: ["pipe", "pipe", "ignore"] });
			await once(child.stdout, "data");
			const before = await fast();
			child.kill("SIGKILL");
			await once(child, "exit");
			child.stdin.end("\n");
			assert.match(String(await once(child.stdout, "data")), /off/);
			await eventually("learning goes on", async () => (await fast()) > before, APPLY_LEASE_MS + 10_000);
		} finally {
			await traffic.stop();
		}
	});

	test("works without an agent, through the pins, and where there is no ONCache", async () => {
		await world.agents[0]?.stop();
		const { code, stderr } = await oncache("apply", "--", "true");
		assert.deepEqual([code, /every flow is judged again/.test(stderr)], [0, true]);
		world.agents[0] = await startAgent(world.h1, { args: ARGS });
		const nowhere = await run([ONCACHE, "apply", "--socket", "/run/none", "--bpffs", "/sys/fs/bpf/none", "--", "true"]);
		assert.match(nowhere.stderr, /nothing: no ONCache here/);
	});
});

describe("verify", () => {
	const verify = async (): Promise<{ code: number; result: VerifyResult }> => {
		const { code, stdout } = await oncache("verify", "--json");
		return { code, result: JSON.parse(stdout) as VerifyResult };
	};

	test("finds no difference on a host in use", async () => {
		const traffic = pinging(world.p1, world.p2.ip);
		try {
			await eventually("flows are cached", async () => (await verify()).result.checked.flows > 0);
			const { code, result } = await verify();
			assert.deepEqual([code, result.differences], [0, []]);
			assert.match((await oncache("verify")).stdout, /^Checked 1 hosts, 1 pods, \d+ flows: 0 differences$/m);
		} finally {
			await traffic.stop();
		}
	});

	for (const [what, change, undo, words] of [
		["a neighbour", "ip neigh replace REMOTE lladdr 0a:00:00:00:00:99 dev eth0", "ip neigh del REMOTE dev eth0", /egress host .* has the MAC address 0a:00:00:00:00:99/],
		["a route", "ip route add POD/32 dev lo", "ip route del POD/32 dev lo", /filter flow .* Its route leads to "lo"/],
		["a pod's place", "ip neigh replace LOCAL lladdr 0a:00:00:00:00:98 dev cni0 nud permanent", "ip neigh del LOCAL dev cni0", /ingress pod .* has the MAC address 0a:00:00:00:00:98/],
	] as const) // biome-ignore format: a table
		test(`finds ${what} that changed while no agent was there, and the next agent evicts it`, async () => {
			await warmUp();
			await world.agents[0]?.kill();
			const script = (text: string): string =>
				text.replace("REMOTE", world.h2.ip).replace("POD", world.p2.ip).replace("LOCAL", world.p1.ip);
			await inside(world.h1, "sh", "-ec", script(change));
			const { code, result } = await verify();
			assert.equal(code, 1);
			assert.ok(
				result.differences.some(({ cache, entry, why }) => words.test(`${cache} ${entry} ${why}`)),
				JSON.stringify(result.differences),
			);
			world.agents[0] = await startAgent(world.h1, { args: ARGS });
			await eventually("it is evicted", async () => (await verify()).code === 0);
			assert.ok(((await statusOf(world.h1)).coherency?.evicted ?? 0) > 0);
			await inside(world.h1, "sh", "-ec", script(undo));
			assert.equal((await warmUp()).received, 5);
		});

	test("finds a flow that connection tracking has forgotten while no agent was there", async () => {
		const echo = await background(world.p2, [process.execPath, PEER, "echo", "7000"], /listening/);
		await inside(
			world.p1,
			process.execPath,
			PEER,
			"ask",
			world.p2.ip,
			"7000",
			"7001",
			...new Array<string>(10).fill("100"),
		);
		await end(echo);
		assert.equal((await verify()).code, 0);
		await world.agents[0]?.kill();
		await inside(world.h1, "conntrack", "-F");
		const { differences } = (await verify()).result;
		assert.deepEqual(
			differences.map(({ entry, why }) => `${entry}: ${why}`),
			[`flow udp ${world.p1.ip}:7001 ${world.p2.ip}:7000: Connection tracking does not know it`],
		);
		const args = [...ARGS, "--verify-interval-ms", "1000"];
		world.agents[0] = await startAgent(world.h1, { args });
		const verified = async () => (await statusOf(world.h1)).coherency?.verified;
		await eventually("the agent finds it itself", async () => (await verified())?.differences === 1);
		assert.equal((await verify()).code, 0, "and has evicted it");
		assert.match((await oncache("status")).stdout, /verified \d+ times: 1 differences/);
	});
});
