// The CNI plugin in chains with Debian's, as a container runtime executes them, on lab hosts with real agents:
//
//   host 1: tcx                     host 2: clsact, where a new device is left alone for two seconds
//   pods by bridge, ptp, portmap, bandwidth, each with oncache-cni as the last; and the lab's own pods at the other end
import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { type FlowList, missedFile, type PodStatus } from "../../src/agent/api.js";
import { agentRequest } from "../../src/agent/client.js";
import { ONCACHE, startAgent } from "../../src/lab/agent.js";
import { inNetns, run } from "../../src/lab/command.js";
import { BRIDGE, type LabHost, type LabPod, prefix } from "../../src/lab/topology.js";
import { CniRuntime, type Container, environmentOf, type Network, PluginError, type Result } from "./cni-runtime.js";
import { eventually, inside, statusOf, type TestLab, tunnelPackets, upWithAgents } from "./world.js";

const NAME = "e2e-cni";
const dir = mkdtempSync(join(tmpdir(), "oncache-test-"));
let world: TestLab;
let runtime: CniRuntime;

before(async () => {
	world = await upWithAgents(NAME, undefined, { pods: 1 });
	world.agents.push(await startAgent(world.h1));
	world.agents.push(await startAgent(world.h2, { args: ["--attach", "clsact"] }));
	runtime = new CniRuntime(world.h1.netns);
});
after(async () => {
	await world.down();
	rmSync(dir, { recursive: true });
});

type Plugin = Network["plugins"][number];

/** An address pool that the lab's own pods are not in, below 10.244.HOST. */
function ipam(host: LabHost, [first, last]: [number, number]): object {
	const [subnet, gateway] = [host.podCidr, host.gateway];
	const range = {
		subnet,
		gateway,
		rangeStart: `10.244.${host.number}.${first}`,
		rangeEnd: `10.244.${host.number}.${last}`,
	};
	return { type: "host-local", dataDir: join(dir, host.name), ranges: [[range]], routes: [{ dst: "0.0.0.0/0" }] };
}

const bridge = (host: LabHost, pool: [number, number] = [100, 150]): Plugin => ({
	type: "bridge",
	bridge: BRIDGE,
	isGateway: true,
	mtu: 1450,
	ipam: ipam(host, pool),
});

const oncache = (host: LabHost, more: object = {}): Plugin => ({
	type: "oncache-cni",
	socket: host.socket,
	last: true,
	...more,
});

const network = (plugins: Plugin[], cniVersion = "1.0.0"): Network => ({ cniVersion, name: "chained", plugins });

let number = 0;

/** Named as the lab's pods are: whoever takes the lab down finds it. */
async function container(host = world.h1): Promise<Container & LabPod> {
	const name = `${host.name}p${100 + ++number}`;
	const netns = `${prefix(NAME)}${name}`;
	await run(["ip", "netns", "add", netns]);
	return { id: netns, name, netns: `/run/netns/${netns}`, ip: "", addresses: [], mac: "", veth: "" };
}

/** @returns the container, with the address and the device that it got */
async function add(list: Network, pod: Container & LabPod, by = runtime): Promise<LabPod & Container> {
	const result = await by.add(list, pod);
	const [ip] = result.ips as [{ address: string }];
	const veth = (result.interfaces as { name: string; sandbox?: string }[]).find(({ name }) => name.startsWith("veth"));
	return Object.assign(pod, { ip: ip.address.split("/")[0] as string, veth: veth?.name ?? "" });
}

async function podStatus(host: LabHost, veth: string): Promise<PodStatus | undefined> {
	return (await statusOf(host)).pods.find((each) => each.veth === veth);
}

/** Flows that a packet of the pod would take. */
async function usableFlows(host: LabHost, ip: string): Promise<number> {
	const { flows } = await agentRequest<FlowList>(host.socket, "GET", `/v1/flows?pod=${ip}`);
	return flows.filter(({ egress, ingress }) => egress.state === "usable" && ingress.state === "usable").length;
}

/** Pings until flows of the pod are usable: what else happens on the machine may evict everything meanwhile. */
async function becomesFast(pod: LabPod): Promise<void> {
	await eventually(`${pod.ip} is fast`, async () => {
		await pingFromAfar(pod, 5);
		return (await usableFlows(world.h1, pod.ip)) > 0;
	});
}

/** Pings from the other host. @returns how many of the packets passed the tunnel device of this one */
async function pingFromAfar(pod: LabPod, count: number): Promise<number> {
	const before = await tunnelPackets(world.h1);
	const { stdout } = await run(
		inNetns(world.p2.netns, ["ping", "-n", "-c", `${count}`, "-i", "0.02", "-W", "2", pod.ip]),
		{ anyCode: true },
	);
	assert.match(stdout, new RegExp(`${count} packets transmitted, ${count} received`));
	return (await tunnelPackets(world.h1)) - before;
}

const failsWith = (code: number) => (error: unknown) => error instanceof PluginError && error.answer.code === code;

describe("every version", () => {
	for (const version of ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0"])
		test(`CNI ${version}: attached when ADD returns, the result is the one before`, async () => {
			const list = network([bridge(world.h1), oncache(world.h1)], version);
			const pod = await container();
			await runtime.add(list, pod);
			const [made, passed] = runtime.results as [Result, Result];
			assert.deepEqual(passed, made);
			const { pods, cni } = await statusOf(world.h1);
			assert.deepEqual(
				pods.map(({ attached }) => attached),
				[true, true],
			);
			assert.deepEqual([cni?.attachments, cni?.notAttached, runtime.said], [1, 0, ""]);
			await runtime.del(list, pod);
			await runtime.del(list, pod);
			assert.equal((await statusOf(world.h1)).cni?.attachments, 0);
		});

	test("CNI 1.1.0, which Debian's plugins do not speak: STATUS, ADD, CHECK, GC and DEL of the plugin alone", async () => {
		const first = await add(network([bridge(world.h1), oncache(world.h1)]), await container());
		const pod = await add(network([bridge(world.h1), oncache(world.h1)]), await container());
		const config = { ...oncache(world.h1), cniVersion: "1.1.0", name: "newest", prevResult: runtime.results[0] };
		const call = (command: string, more: object = {}) =>
			runtime.call("oncache-cni", environmentOf(command, pod), JSON.stringify({ ...config, ...more }));
		assert.equal(await call("STATUS", { prevResult: undefined, agentRequired: true }), "");
		assert.deepEqual(JSON.parse(await call("ADD")), { ...runtime.results[0], cniVersion: "1.1.0" });
		assert.equal(await call("CHECK"), "");
		const attachments = async () => (await statusOf(world.h1)).cni?.attachments;
		assert.equal(await attachments(), 3);
		assert.equal(await call("GC", { "cni.dev/valid-attachments": [{ containerID: pod.id, ifname: "eth0" }] }), "");
		assert.equal(await attachments(), 3);
		await becomesFast(pod);
		assert.equal(await call("GC", { "cni.dev/valid-attachments": [] }), "");
		assert.equal(await attachments(), 2, "other networks' attachments stay");
		assert.equal(await usableFlows(world.h1, pod.ip), 0);
		assert.equal((await podStatus(world.h1, pod.veth))?.attached, true, "it is in the other network still");
		for (const each of [first, pod]) await runtime.del(network([bridge(world.h1), oncache(world.h1)]), each);
		assert.equal(await attachments(), 0);
	});
});

describe("chains", () => {
	test("a pod is fast from its first established packets, through portmap and the bandwidth plugin's shaper", async () => {
		const list = network([
			bridge(world.h1),
			{ type: "portmap", capabilities: { portMappings: true }, snat: true },
			{ type: "bandwidth", capabilities: { bandwidth: true } },
			oncache(world.h1),
		]);
		const capabilities = {
			portMappings: [{ hostPort: 18080, containerPort: 80, protocol: "tcp" }],
			bandwidth: { ingressRate: 80_000_000, ingressBurst: 8_000_000 },
		};
		const args = "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=cart-0";
		const pod = await add(list, { ...(await container()), capabilities, args });
		assert.equal((await podStatus(world.h1, pod.veth))?.attached, true);
		// Request and answer that nobody has seen before, and the next that teach; the last few are a sample.
		const onTunnel = await pingFromAfar(pod, 40);
		assert.ok(onTunnel <= 12, `${onTunnel} of 80 packets passed the tunnel device`);
		const [{ packets }] = JSON.parse(
			await inside(world.h1, "tc", "-s", "-j", "qdisc", "show", "dev", pod.veth, "root"),
		) as [{ packets: number }];
		assert.ok(packets >= 40, `the shaper saw ${packets} of 40 packets to the pod`);
		assert.deepEqual((await podStatus(world.h1, pod.veth))?.pod, { namespace: "shop", name: "cart-0" });
		// portmap's own CHECK wants rules of both families, also for a pod that has one (1.1.1).
		await runtime.check({ ...list, plugins: list.plugins.filter(({ type }) => type !== "portmap") }, pod);
		await runtime.del(list, pod);
	});

	test("a pod of the ptp plugin, which is on no bridge", async () => {
		const list = network([{ type: "ptp", mtu: 1450, ipam: ipam(world.h1, [160, 169]) }, oncache(world.h1)]);
		const pod = await add(list, await container());
		assert.equal((await podStatus(world.h1, pod.veth))?.attached, true);
		const onTunnel = await pingFromAfar(pod, 40);
		assert.ok(onTunnel <= 12, `${onTunnel} of 80 packets passed the tunnel device`);
		await runtime.del(list, pod);
	});

	test("clsact: the last plugin is attached at once, one in the middle waits, so that bandwidth can follow it", async () => {
		const other = new CniRuntime(world.h2.netns);
		const last = network([bridge(world.h2), oncache(world.h2)]);
		const first = await add(last, await container(world.h2), other);
		assert.deepEqual([(await podStatus(world.h2, first.veth))?.attached, other.said], [true, ""]);
		const middle = network([
			bridge(world.h2),
			oncache(world.h2, { last: false }),
			// Its ingress qdisc cannot be made where a clsact one is.
			{ type: "bandwidth", egressRate: 80_000_000, egressBurst: 8_000_000 },
		]);
		const second = await add(middle, await container(world.h2), other);
		assert.match(other.said, /not accelerated: Made less than 2 s ago/);
		for (const [list, pod] of [
			[last, first],
			[middle, second],
		] as const)
			await other.del(list, pod);
	});
});

describe("a pod goes", () => {
	// No bridge: the host would keep the first pod's MAC address for the second one for some seconds, with ONCache or without.
	const list = (): Network =>
		network([{ type: "ptp", mtu: 1450, ipam: ipam(world.h1, [170, 170]) }, oncache(world.h1)]);

	test("DEL: nothing of it is cached when its address is free, and nothing is learned while it is still there", async () => {
		const pod = await add(list(), await container());
		await becomesFast(pod);
		await runtime.delLast(list(), pod);
		assert.equal(await usableFlows(world.h1, pod.ip), 0);
		await eventually("status says so", async () => (await podStatus(world.h1, pod.veth))?.attached === false);
		assert.equal((await statusOf(world.h1)).state, "accelerating");
		assert.equal(await pingFromAfar(pod, 10), 20);
		await runtime.del(list(), pod);
	});

	test("its address goes to another at once, which is fast; a late DEL of the first one changes nothing", async () => {
		const first = await add(list(), await container());
		await pingFromAfar(first, 5);
		await runtime.del(list(), first);
		const second = await add(list(), await container());
		assert.equal(second.ip, first.ip);
		const onTunnel = await pingFromAfar(second, 40);
		assert.ok(onTunnel <= 12, `${onTunnel} of 80 packets passed the tunnel device`);
		const { addresses } = (await podStatus(world.h1, second.veth)) ?? {};
		assert.deepEqual(addresses, [second.ip]);
		// As a runtime that repeats itself: its cached result names the address and a device that are another's now.
		const stale = { ...oncache(world.h1), cniVersion: "1.0.0", name: "chained", prevResult: runtime.results[0] };
		await runtime.call("oncache-cni", environmentOf("DEL", { ...first, netns: "" }), JSON.stringify(stale));
		assert.equal((await podStatus(world.h1, second.veth))?.attached, true);
		await runtime.del(list(), second);
	});
});

describe("what fails of ONCache", () => {
	const list = (): Network => network([bridge(world.h1), oncache(world.h1)]);

	test("an agent that hangs: the pod is there in time and works; later it is accelerated", async () => {
		const [agent] = world.agents;
		assert.ok(agent);
		const pod = await container();
		process.kill(agent.pid, "SIGSTOP");
		try {
			await add(list(), pod);
			assert.match(runtime.said, /no answer within \d+ ms/);
			await inside(pod, "ping", "-n", "-c", "1", "-W", "2", world.p2.ip);
		} finally {
			process.kill(agent.pid, "SIGCONT");
		}
		await eventually(
			"the agent finds it by itself",
			async () => (await podStatus(world.h1, pod.veth))?.attached === true,
		);
		const { cni } = await statusOf(world.h1);
		assert.equal(cni?.missed, 1);
		assert.match(cni?.lastMissed ?? "", new RegExp(`ADD ${pod.id}/eth0: .*no answer`));
		await runtime.del(list(), pod);
	});

	test("no agent: the pod works, and goes; an agent that comes knows what it missed", async () => {
		await world.agents[0]?.stop();
		const pod = await add(list(), await container());
		await inside(pod, "ping", "-n", "-c", "1", "-W", "2", world.p2.ip);
		await runtime.del(list(), pod);
		assert.equal(readFileSync(missedFile(world.h1.socket), "utf8").split("\n").length - 1, 3);
		world.agents[0] = await startAgent(world.h1);
		assert.equal((await statusOf(world.h1)).cni?.missed, 3);
	});

	test("an agent that started after the pods: DEL still evicts, without a previous result too", async () => {
		const pod = await add(list(), await container());
		await world.agents[0]?.stop();
		world.agents[0] = await startAgent(world.h1);
		await becomesFast(pod);
		const bare = { ...oncache(world.h1), cniVersion: "0.3.1", name: "chained" };
		await runtime.call("oncache-cni", environmentOf("DEL", pod), JSON.stringify(bare));
		assert.equal(await usableFlows(world.h1, pod.ip), 0);
		await runtime.del(list(), pod);
	});

	test("a container that is gone is not the agent's fault: 3", async () => {
		const config = { ...oncache(world.h1), cniVersion: "1.0.0", name: "chained", prevResult: runtime.results[0] };
		const gone = { id: "gone", netns: `/run/netns/${prefix(NAME)}gone` };
		await assert.rejects(runtime.call("oncache-cni", environmentOf("ADD", gone), JSON.stringify(config)), failsWith(3));
	});
});

test("oncache cni install: the chain that a runtime would execute then accelerates, and uninstall leaves nothing", async () => {
	const [confDir, binDir] = [join(dir, "net.d"), join(dir, "bin")];
	for (const each of [confDir, binDir]) mkdirSync(each);
	const file = join(confDir, "10-lab.conflist");
	const original = JSON.stringify(network([bridge(world.h1)]), null, 2);
	writeFileSync(file, original);
	const cni = (command: string, ...more: string[]) =>
		run([ONCACHE, "cni", command, "--conf-dir", confDir, "--bin-dir", binDir, ...more]);
	await cni("install", "--socket", world.h1.socket);
	const installed = new CniRuntime(world.h1.netns, [binDir, "/usr/lib/cni"]);
	const list = JSON.parse(readFileSync(file, "utf8")) as Network;
	const pod = await add(list, await container(), installed);
	assert.deepEqual([(await podStatus(world.h1, pod.veth))?.attached, installed.said], [true, ""]);
	await installed.del(list, pod);
	const { installed: isIn, agent } = JSON.parse(
		(await cni("status", "--socket", world.h1.socket, "--json")).stdout,
	) as Record<string, unknown>;
	assert.deepEqual([isIn, agent], [true, "ready"]);

	// As an agent in a cluster does it, with the few rights that it keeps.
	await world.agents[0]?.stop();
	world.agents[0] = await startAgent(world.h1, { args: ["--cni", "--cni-conf-dir", confDir, "--cni-bin-dir", binDir] });
	writeFileSync(file, original);
	const isThere = (): boolean => readFileSync(file, "utf8").includes("oncache-cni");
	await eventually("the agent adds it to what the CNI has written anew", isThere);
	await cni("uninstall", "--cache-dir", dir);
	assert.equal(readFileSync(file, "utf8"), original);
	assert.deepEqual([readdirSync(confDir), readdirSync(binDir)], [["10-lab.conflist"], []]);
});
