// Real agents on two hosts that ask a double of the API server: names, opt-out at both ends, earlier evictions, and an API
// server that is away.
import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { request } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import { after, before, describe, test } from "node:test";
import { setTimeout } from "node:timers/promises";
import type { FlowList, Status } from "../../src/agent/api.js";
import { agentRequest } from "../../src/agent/client.js";
import { ONCACHE, startAgent } from "../../src/lab/agent.js";
import { inNetns, run } from "../../src/lab/command.js";
import type { LabHost, LabPod } from "../../src/lab/topology.js";
import { namespace, node, OPTED_OUT, type PodSpec, pod, policy, writeKubeconfig } from "../kube/objects.js";
import { RemoteApiServer } from "../kube/remote.js";
import { eventually, ping, statusOf, type TestLab, upWithAgents } from "./world.js";

const NAME = "e2e-kube";
const PORT = 16443;
const dir = mkdtempSync(join(tmpdir(), "oncache-kube-"));
const kubeconfig = join(dir, "kubeconfig");
let world: TestLab;
let api: RemoteApiServer;
/** The second pod of host 2: the one that is opted out and in. */
let quiet: LabPod;

const agentArgs = (host: LabHost): string[] => ["--kubernetes", kubeconfig, "--node-name", host.name];

before(async () => {
	world = await upWithAgents(NAME, undefined, { pods: 2 });
	quiet = world.h2.pods[1] as LabPod;
	writeKubeconfig(kubeconfig, `http://${world.h1.ip}:${PORT}`);
	for (const host of world.lab.hosts) world.agents.push(await startAgent(host, { args: agentArgs(host) }));
});
after(async () => {
	await api?.stop();
	await world.down();
	rmSync(dir, { recursive: true });
});

const warm = (from: LabPod, to: LabPod) => ping(from, to, "-c", "10", "-i", "0.02", "-W", "1");

/** How much of ten pings both hosts carried on the fast path, of 2 packets each. */
async function fastOf(from: LabPod, to: LabPod): Promise<number> {
	const count = async (): Promise<number> => {
		const all = await Promise.all([statusOf(world.h1), statusOf(world.h2)]);
		return all.reduce((sum, { packets }) => sum + packets.egress.fast + packets.ingress.fast, 0);
	};
	const before = await count();
	assert.equal((await warm(from, to)).received, 10);
	return (await count()) - before;
}

const isFast = async (to: LabPod): Promise<boolean> => (await fastOf(world.p1, to)) >= 20;
const putPod = (name: string, host: LabHost, { ip }: LabPod, more: PodSpec = {}) =>
	api.put("pods", pod(name, { node: host.name, ip, ...more }));

async function metricsOf(host: LabHost): Promise<string> {
	return new Promise((resolve, reject) => {
		request({ socketPath: host.socket, path: "/metrics" }, (response) => text(response).then(resolve, reject))
			.on("error", reject)
			.end();
	});
}

const both = async (isSo: (status: Status) => boolean): Promise<boolean> =>
	(await Promise.all([statusOf(world.h1), statusOf(world.h2)])).every(isSo);

describe("without an API server", () => {
	test("the agents are ready and accelerate, and say what is missing", async () => {
		await eventually("the fast path", () => isFast(world.p2));
		await eventually("it is said", () => both(({ kubernetes }) => (kubernetes?.problems.length ?? 0) > 0));
		const { state, kubernetes, network } = await statusOf(world.h1);
		assert.equal(state, "accelerating");
		assert.equal(network.name, "Flannel");
		assert.deepEqual([kubernetes?.synced, kubernetes?.ageMs], [false, null]);
		assert.match(kubernetes?.problems[0] ?? "", /^Cannot read \w+: .*ECONNREFUSED/);
	});
});

describe("with one", () => {
	test("pods and nodes have their names", async () => {
		api = await RemoteApiServer.start(world.h1.netns, PORT);
		for (const name of ["shop", "calm"]) await api.put("namespaces", namespace(name));
		for (const host of world.lab.hosts) await api.put("nodes", node(host.name, host.ip));
		await putPod("shop/front", world.h1, world.p1);
		await putPod("shop/back", world.h2, world.p2);
		await putPod("calm/quiet", world.h2, quiet);
		await eventually("everything is read", () =>
			both(({ kubernetes }) => kubernetes?.synced === true && kubernetes.problems.length === 0),
		);
		await eventually("the fast path", () => isFast(world.p2));
		const { flows } = await agentRequest<FlowList>(world.h1.socket, "GET", `/v1/flows?pod=${world.p1.ip}`);
		const flow = flows.find(({ remote }) => remote.ip === world.p2.ip);
		assert.deepEqual(
			[flow?.localPod, flow?.remotePod, flow?.node],
			[{ namespace: "shop", name: "front" }, { namespace: "shop", name: "back" }, world.h2.name],
		);
		const { pods } = await statusOf(world.h1);
		assert.deepEqual(pods.find(({ veth }) => veth === world.p1.veth)?.pod, { namespace: "shop", name: "front" });
		const metrics = await metricsOf(world.h1);
		assert.match(
			metrics,
			new RegExp(`^oncache_pod_accelerated\\{namespace="shop",pod="front",veth="${world.p1.veth}"\\} 1$`, "m"),
		);
		assert.match(metrics, /^oncache_kubernetes_age_seconds\{source="pods"\} [\d.]+$/m);
		assert.match(metrics, /^oncache_map_memory_bytes\{map="filter_cache"\} [1-9]/m);
	});

	for (const [what, optOut, optIn] of [
		[
			"a pod",
			() => putPod("calm/quiet", world.h2, quiet, { annotations: OPTED_OUT }),
			() => putPod("calm/quiet", world.h2, quiet),
		],
		[
			"a namespace",
			() => api.put("namespaces", namespace("calm", { annotations: OPTED_OUT })),
			() => api.put("namespaces", namespace("calm")),
		],
	] as const)
		test(`${what} that opts out is left to the overlay at both ends, and only that`, async () => {
			await eventually("the fast path", () => isFast(quiet));
			await optOut();
			await eventually("both know", () => both(({ kubernetes }) => kubernetes?.optedOut === 1));
			const vethOf = async () => (await statusOf(world.h2)).pods.find(({ veth }) => veth === quiet.veth);
			await eventually("its veth is left alone", async () => (await vethOf())?.attached === false);
			assert.equal((await vethOf())?.why, "Pod calm/quiet is opted out");
			assert.equal((await statusOf(world.h2)).state, "accelerating", "as it was asked for");
			assert.equal(await fastOf(world.p1, quiet), 0);
			assert.ok(await isFast(world.p2), "the other pod of its host");
			await optIn();
			await eventually("the fast path again", () => isFast(quiet));
		});

	test("a NetworkPolicy makes everything be judged again", async () => {
		await eventually("the fast path", () => isFast(world.p2));
		const before = (await statusOf(world.h1)).coherency?.flushes ?? 0;
		await api.put("networkpolicies", policy("shop/deny"));
		await eventually(
			"evicted, more than once",
			async () => ((await statusOf(world.h1)).coherency?.flushes ?? 0) >= before + 2,
		);
		assert.match(await metricsOf(world.h1), /^oncache_invalidations_total\{cause="networkpolicy"\} 1$/m);
		await eventually("the fast path again", () => isFast(world.p2));
	});

	test("a pod that is gone is evicted where it was, and where it was sent to", async () => {
		await eventually("the fast path", () => isFast(quiet));
		await api.remove("pods", "quiet", "calm");
		await eventually("where it was", async () =>
			(await statusOf(world.h2)).pods.every(({ addresses }) => !addresses.includes(quiet.ip)),
		);
		await eventually("where it was sent to", async () => {
			const { flows } = await agentRequest<FlowList>(world.h1.socket, "GET", `/v1/flows?peer=${quiet.ip}`);
			return flows.length === 0;
		});
	});
});

describe("when it is away", () => {
	test("everything goes on, also what was opted out, and after a restart", async () => {
		await putPod("calm/quiet", world.h2, quiet, { annotations: OPTED_OUT });
		await eventually("both know", () => both(({ kubernetes }) => kubernetes?.optedOut === 1));
		await api.stop();
		await eventually("it is said", () => both(({ kubernetes }) => (kubernetes?.problems.length ?? 0) > 0));
		await setTimeout(1000);
		assert.ok(await both(({ state, kubernetes }) => state === "accelerating" && (kubernetes?.ageMs ?? 0) >= 1000));
		await eventually("the fast path", () => isFast(world.p2));
		assert.equal(await fastOf(world.p1, quiet), 0);
		await world.agents[0]?.stop();
		world.agents[0] = await startAgent(world.h1, { args: agentArgs(world.h1) });
		await eventually("the fast path", () => isFast(world.p2));
		assert.equal(await fastOf(world.p1, quiet), 0, "what is left to the overlay is kept in the kernel");
	});

	test("a connection that is open but says nothing keeps nobody from being ready", async () => {
		api = await RemoteApiServer.start(world.h1.netns, PORT);
		await api.set({ isFrozen: true });
		await world.agents[0]?.stop();
		world.agents[0] = await startAgent(world.h1, { args: agentArgs(world.h1) });
		await eventually("the fast path", () => isFast(world.p2));
	});
});

describe("a kubeconfig that cannot be used", () => {
	for (const [what, content, words] of [
		["is missing", undefined, /there is no such file/],
		["is no YAML", "{", /Cannot use kubeconfig/],
		["has no clusters", "apiVersion: v1", /"clusters"/],
	] as const)
		test(`${what}: the agent says so and ends with 2`, async () => {
			const path = join(dir, "broken");
			if (content !== undefined) writeFileSync(path, content);
			const argv = [ONCACHE, "agent", "--check", "--kubernetes", path];
			const { code, stderr } = await run(inNetns(world.h1.netns, argv), { anyCode: true });
			assert.equal(code, 2, stderr);
			assert.match(stderr, words);
			rmSync(path, { force: true });
		});
});
