// The lab as a user runs it: it carries traffic as a CNI's overlay does, and leaves nothing behind.
import assert from "node:assert/strict";
import { existsSync, readdirSync, writeFileSync } from "node:fs";
import { after, describe, test } from "node:test";
import { ONCACHE } from "../../src/lab/agent.js";
import { run } from "../../src/lab/command.js";
import { labDown, labUp, readLab } from "../../src/lab/lab.js";
import { DEFAULT_SPEC, type Lab, type LabHost, type LabPod, runDir } from "../../src/lab/topology.js";
import { background, end, inside, ping, tunnelPackets } from "./world.js";

const NAME = "e2e-lab";
const SPEC = { ...DEFAULT_SPEC, name: NAME };
after(() => labDown(NAME));

const lab = (...argv: string[]) => run([ONCACHE, "lab", ...argv], { anyCode: true });
const namespaces = (): string[] =>
	existsSync("/run/netns") ? readdirSync("/run/netns").filter((name) => name.startsWith(`oc-${NAME}`)) : [];
const machine = async (): Promise<string[]> => [
	(await run(["ip", "-o", "link"])).stdout.replace(/qlen \d+/g, ""),
	(await run(["ip", "netns"])).stdout,
	(await run(["nft", "list", "ruleset"])).stdout,
	(await run(["ip", "route"])).stdout,
];
const podsOf = (up: Lab): [LabPod, LabPod] => [up.hosts[0]?.pods[0] as LabPod, up.hosts[1]?.pods[0] as LabPod];

describe("lab up", () => {
	test("carries small and large packets between the hosts through the tunnel, with connection tracking", async () => {
		const before = await machine();
		const { code, stdout } = await lab("up", "--name", NAME);
		assert.equal(code, 0);
		assert.match(stdout, /is up: 2 hosts with 2 pods each/);
		const up = readLab(NAME);
		assert.ok(up);
		const [a, b] = podsOf(up);
		const host = up.hosts[0];
		assert.ok(host);
		const earlier = await tunnelPackets(host);
		assert.deepEqual(await ping(a, b, "-c", "3", "-i", "0.01", "-W", "1"), { sent: 3, received: 3 });
		assert.equal((await tunnelPackets(host)) - earlier, 6);
		assert.deepEqual(await ping(a, b, "-c", "2", "-i", "0.01", "-s", "3000", "-W", "1"), { sent: 2, received: 2 });
		assert.match(await inside(host, "conntrack", "-L", "-p", "icmp"), new RegExp(`src=${a.ip} dst=${b.ip}`));
		assert.match(await inside(host, "iptables", "-S"), /--ctstate INVALID -j DROP/);
		const server = await background(b, ["iperf3", "--forceflush", "-s", "-1"], /listening/);
		assert.ok(JSON.parse(await inside(a, "iperf3", "-c", b.ip, "-t", "1", "-J")).end.sum_received.bytes > 1e6);
		await end(server);

		assert.match((await lab("up", "--name", NAME)).stdout, /is up already/);
		const other = await lab("up", "--name", NAME, "--vni", "7");
		assert.deepEqual([other.code, /is up with other parameters/.test(other.stderr)], [1, true]);
		assert.equal(JSON.parse((await lab("status", "--json", "--name", NAME)).stdout).up, true);
		assert.equal((await lab("exec", "--name", NAME, "h1p1", "--", "sh", "-c", "exit 7")).code, 7);
		assert.equal((await lab("exec", "--name", NAME, "h9", "--", "true")).code, 2);

		assert.equal((await lab("down", "--name", NAME)).code, 0);
		assert.deepEqual(await machine(), before);
		assert.equal(existsSync(runDir(NAME)), false);
		assert.match((await lab("down", "--name", NAME)).stdout, /was not up/);
	});

	test("a host is known by the MAC address of its uplink, not by that of the device below", async () => {
		const up = await labUp({ ...SPEC, uplink: "macvlan" });
		const [h1, h2] = up.hosts as [LabHost, LabHost];
		const [a, b] = podsOf(up);
		assert.deepEqual(await ping(a, b, "-c", "3", "-i", "0.01", "-W", "1"), { sent: 3, received: 3 });
		for (const [host, peer] of [
			[h1, h2],
			[h2, h1],
		] as const) {
			const [entry] = JSON.parse(await inside(host, "ip", "-j", "neigh", "show", peer.ip, "dev", host.uplink));
			assert.equal(entry?.lladdr, peer.mac);
		}
		await labDown(NAME);
	});

	test("three hosts reach each other, beside another lab, with another VNI and port", async () => {
		const up = await labUp({ ...SPEC, hosts: 3, pods: 1, vni: 4711, port: 4789 });
		const second = await labUp({ ...SPEC, name: `${NAME}2` });
		try {
			for (const from of up.hosts)
				for (const to of up.hosts.filter((host) => host !== from))
					assert.deepEqual(await ping(from.pods[0] as LabPod, to.pods[0] as LabPod, "-c", "1", "-W", "1"), {
						sent: 1,
						received: 1,
					});
			assert.deepEqual(await ping(...podsOf(second), "-c", "1", "-W", "1"), { sent: 1, received: 1 });
		} finally {
			await labDown(`${NAME}2`);
			await labDown(NAME);
		}
	});

	test("leaves nothing when it is interrupted", async () => {
		const stop = new AbortController();
		const rising = labUp(
			{ ...SPEC, hosts: 8, pods: 4 },
			{ signal: stop.signal, progress: () => setImmediate(() => stop.abort()) },
		);
		await assert.rejects(rising, { name: "AbortError" });
		assert.deepEqual(namespaces(), []);
	});

	test("removes what a crashed one has left", async () => {
		await run(["ip", "netns", "add", `oc-${NAME}-h1`]);
		await run(["ip", "netns", "add", `oc-${NAME}-h7p9`]);
		const up = await labUp(SPEC);
		assert.deepEqual(
			namespaces().sort(),
			up.hosts
				.flatMap((host) => [host, ...host.pods])
				.map(({ name }) => `oc-${NAME}-${name}`)
				.sort(),
		);
		writeFileSync(`${runDir(NAME)}/h1.pid`, `${process.pid}\n`); // somebody else's process by now
		await labDown(NAME);
		assert.deepEqual(namespaces(), []);
	});

	test("refuses what makes no sense, exit code 2", async () => {
		for (const wrong of [
			["--hosts", "1"],
			["--pods", "x"],
			["--vni", "0"],
			["--port", "70000"],
			["--name", "A b"],
			["--colour"],
			["--overlay", "calico", "--pod-network", "bridge"],
			["--underlay", "dual"],
			["--direct"],
		])
			assert.equal((await lab("up", ...wrong)).code, 2, wrong.join(" "));
	});
});
