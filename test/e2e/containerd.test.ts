// Pods that a real containerd makes, one on each of two hosts, through the CRI as kubelet calls it and with the CNI's own
// plugins. h1 finds its pods by itself; on h2 the chained plugin tells the agent.
import assert from "node:assert/strict";
import { existsSync, readdirSync, readFileSync, readlinkSync } from "node:fs";
import { after, afterEach, before, describe, test } from "node:test";
import { fileURLToPath } from "node:url";
import type { FlowList } from "../../src/agent/api.js";
import { agentRequest } from "../../src/agent/client.js";
import { startAgent } from "../../src/lab/agent.js";
import { type Containerd, startContainerd } from "../../src/lab/containerd.js";
import { labDown, labUp } from "../../src/lab/lab.js";
import { type LabHost, runDir, specOf } from "../../src/lab/topology.js";
import { Cri, type RunningPod } from "../runtime/cri.js";
import { endRunning } from "./running.js";
import { ask, serve } from "./talk.js";
import { background, end, eventually, inside, PEER, ping, statusOf, type TestLab, tunnelPackets, upWithAgents } from "./world.js"; // biome-ignore format: a list

const NAME = "e2e-ctr";
const HOLDER = fileURLToPath(new URL("../runtime/hold.js", import.meta.url));
const PLUGIN = fileURLToPath(new URL("../../../bin/oncache-cni", import.meta.url));
/** So long that no packet of a short exchange is a sample: what the tunnel device carries is what the flow needed to begin. */
const STALENESS = ["--max-staleness-ms", "60000"];
/** Opening, and the established packets that teach both hosts, in both directions; a TCP connection also ends there. */
const TO_BEGIN = 8;
const TO_BEGIN_AND_END = 16;
const [TCP_PORT, UDP_PORT] = [8080, 7000];
const ROUNDS = 100;

describe("pods of containerd", () => {
	let world: TestLab;
	let runtimes: [Containerd, Containerd];
	/** Of h1 and h2. */
	let c1: Cri;
	let c2: Cri;
	let a: RunningPod;
	let b: RunningPod;
	const traces = { mounts: [] as string[], machine: [] as boolean[] };

	before(async () => {
		traces.mounts = mounts();
		traces.machine = FILES.map((file) => existsSync(file));
		world = await upWithAgents(NAME, STALENESS, { pods: 1 });
		runtimes = await Promise.all([
			startContainerd(world.h1, world.lab),
			startContainerd(world.h2, world.lab, {
				addresses: 1,
				programs: [PLUGIN],
				chained: [{ type: "oncache-cni", socket: world.h2.socket, last: true }],
			}),
		]);
		[c1, c2] = await Promise.all([Cri.connect(runtimes[0]), Cri.connect(runtimes[1])]);
		[a, b] = await Promise.all([c1.runPod({ name: "a" }), c2.runPod({ name: "b" })]);
	});
	afterEach(endRunning); // of a test that failed: the next ones are about something else
	after(async () => {
		c1?.close();
		c2?.close();
		await world?.down();
	});

	/** What the tunnel device of the first host carried, and how many packets took the fast path there in both directions. */
	async function seen(body: () => Promise<void>): Promise<{ tunnel: number; fast: number }> {
		const look = async () => {
			const { egress, ingress } = (await statusOf(world.h1)).packets;
			return { tunnel: await tunnelPackets(world.h1), fast: egress.fast + ingress.fast };
		};
		const before = await look();
		await body();
		const after = await look();
		return { tunnel: after.tunnel - before.tunnel, fast: after.fast - before.fast };
	}

	test("have addresses of their host's subnet, from containerd's CNI", async () => {
		assert.match(await c1.version(), /^containerd \d/);
		assert.match(a.ip, /^10\.244\.1\.1\d\d$/);
		assert.match(b.ip, /^10\.244\.2\.102$/);
		assert.deepEqual(await c2.pods(), ["b"]);
		const { stdout } = await c1.exec(a.main, ["ip", "-4", "-o", "addr", "show", "eth0"]);
		assert.ok(stdout.includes(`${a.ip}/24`), stdout);
	});

	test("are fast from the first packets of a flow on: datagrams", async () => {
		const server = await background(b, ["node", PEER, "echo", String(UDP_PORT)], /listening/);
		const { tunnel, fast } = await seen(async () => {
			const sizes = Array.from({ length: ROUNDS }, (_, i) => String(1 + i));
			const right = await inside(a, "node", PEER, "ask", b.ip, String(UDP_PORT), "0", ...sizes);
			assert.equal(Number(right), ROUNDS);
		});
		await end(server);
		assert.ok(tunnel <= TO_BEGIN, `the tunnel device carried ${tunnel} of ${2 * ROUNDS} packets`);
		assert.ok(fast >= 2 * ROUNDS - TO_BEGIN, `${fast} of ${2 * ROUNDS} packets were fast`);
	});

	test("are fast from the first packets of a flow on: a TCP stream", async () => {
		const bytes = 1_000_000;
		const server = await serve(b, TCP_PORT);
		const { tunnel, fast } = await seen(async () => {
			const [answer] = await ask(a, "tcp", b.ip, TCP_PORT, { bytes });
			assert.deepEqual(answer, { name: "b", from: a.ip, bytes });
		});
		await end(server);
		assert.ok(tunnel <= TO_BEGIN_AND_END, `the tunnel device carried ${tunnel} packets`);
		assert.ok(fast > 2 * TO_BEGIN_AND_END, `${fast} packets were fast`);
	});

	test("are fast from the first packets of a flow on: the container's own process speaks", async () => {
		const { tunnel, fast } = await seen(async () => {
			const { stdout, code } = await c1.exec(a.main, ["ping", "-c", String(ROUNDS), "-i", "0.005", b.ip]);
			assert.equal(code, 0);
			assert.match(stdout, new RegExp(`${ROUNDS} packets transmitted, ${ROUNDS} packets received`));
		});
		assert.ok(tunnel <= TO_BEGIN, `the tunnel device carried ${tunnel} of ${2 * ROUNDS} packets`);
		assert.ok(fast >= 2 * ROUNDS - TO_BEGIN, `${fast} of ${2 * ROUNDS} packets were fast`);
	});

	for (const how of ["kill", "stop"] as const)
		test(`lose nothing while the agent is replaced: ${how}, and start again`, async () => {
			await ping(a, b, "-c", "5", "-i", "0.01", "-W", "1");
			const { fast } = await seen(async () => {
				const pinging = ping(a, b, "-c", "300", "-i", "0.01", "-W", "1");
				await world.agents[0]?.[how]();
				world.agents[0] = await startAgent(world.h1, { args: STALENESS });
				assert.deepEqual(await pinging, { sent: 300, received: 300 });
			});
			assert.ok(fast > 500, `${fast} of 600 packets were fast`);
		});

	test("go on while containerd is replaced", async () => {
		const pinging = ping(a, b, "-c", "150", "-i", "0.01", "-W", "1");
		await runtimes[0].restart();
		assert.deepEqual(await pinging, { sent: 150, received: 150 });
		c1.close();
		c1 = await Cri.connect(runtimes[0]);
		assert.deepEqual(await c1.pods(), ["a"]);
	});

	test("that are removed leave their address clean for the next one", async () => {
		/** Flows of the address that a packet could take. */
		const fastFlows = async (): Promise<string[]> => {
			const { flows } = await agentRequest<FlowList>(world.h2.socket, "GET", "/v1/flows?limit=1000");
			return flows
				.filter(({ local, egress, ingress }) => {
					return local.ip === b.ip && egress.state === "usable" && ingress.state === "usable";
				})
				.map(({ veth, remote }) => `${veth} ${remote.ip}`);
		};
		await ping(a, b, "-c", "5", "-i", "0.01", "-W", "1");
		assert.notDeepEqual(await fastFlows(), []);
		// It goes on talking to the address, whoever has it.
		const talking = await background(a, ["ping", "-n", "-i", "0.01", b.ip], /bytes from/);

		await c2.removePod(b);
		assert.deepEqual(await fastFlows(), [], "evicted before the address is free");
		assert.equal(await reaches(a, b.ip), false);
		assert.deepEqual(await fastFlows(), [], "the bridge floods what still comes: nothing is learned from that");
		const heir = await c2.runPod({ name: "heir" });
		assert.equal(heir.ip, b.ip);
		// The bridge plugin does not announce it: the host sends to the old one's MAC address until the new one speaks.
		assert.equal(await reaches(heir, world.h2.gateway), true);
		await eventually("the pod with the old address answers", () => reaches(a, heir.ip));
		await end(talking);

		const server = await serve(heir, TCP_PORT);
		const { tunnel, fast } = await seen(async () => {
			const answers = await ask(a, "udp", heir.ip, TCP_PORT, { count: 5 });
			assert.deepEqual(new Set(answers.map(({ name }) => name)), new Set(["heir"]));
			const [answer] = await ask(a, "tcp", heir.ip, TCP_PORT, { bytes: 1_000_000 });
			assert.equal(answer?.name, "heir");
		});
		await end(server);
		assert.ok(fast > tunnel, `${fast} packets were fast, the tunnel device carried ${tunnel}`);
	});

	test("leave nothing of containerd, runc and themselves behind", async () => {
		const nodes = runtimes.map(({ node }) => ({ node, space: namespaceOf(node.pid) }));
		for (const { space } of nodes) assert.ok(processesIn(space).length >= 4, "containerd, shim, pause, container");
		await Promise.all(runtimes.map((runtime) => runtime.stop()));
		for (const { node, space } of nodes) {
			assert.deepEqual(processesIn(space), []);
			assert.deepEqual(cgroupsOf(node.cgroup.slice(1)), []);
		}
		assert.deepEqual(mounts(), traces.mounts);
		assert.deepEqual(
			FILES.map((file) => existsSync(file)),
			traces.machine,
		);
		for (const host of [world.h1, world.h2])
			await eventually("the pods' devices are gone", async () => {
				const veths = JSON.parse(await inside(host, "ip", "-j", "link", "show", "type", "veth")) as unknown[];
				return veths.length === 2; // the lab's own pod, and the cable
			});
		assert.deepEqual(
			readdirSync(runDir(NAME)).filter((name) => /node|busybox/.test(name)),
			[],
		);
	});
});

describe("a node whose owner is killed", () => {
	const lab = specOf({ name: `${NAME}-k`, pods: 1 });
	after(() => labDown(lab.name));

	for (const signal of ["SIGINT", "SIGKILL"] as const)
		test(`by ${signal}: its processes end with it, and the rest with the lab`, async () => {
			const [host] = (await labUp(lab)).hosts as [LabHost];
			const holder = await background({ netns: "/proc/self/ns/net" }, ["node", HOLDER, lab.name], /holding/);
			const parent = readFileSync(`${runDir(lab.name)}/h1.node`, "utf8").trim();
			const space = namespaceOf(Number(readFileSync(`/proc/${parent}/task/${parent}/children`, "utf8")));
			assert.ok(processesIn(space).length >= 4, "containerd, shim, pause, container");
			assert.ok(cgroupsOf(`oncache-lab-${lab.name}-h1-${parent}`).length > 0);
			holder.kill(signal);
			await eventually("all its processes have ended", () => processesIn(space).length === 0);
			await labDown(lab.name);
			assert.deepEqual(cgroupsOf(`oncache-lab-${lab.name}-h1-${parent}`), []);
			assert.ok(!existsSync(host.netns));
		});
});

/** What containerd, podman and CNI would make on a machine. */
const FILES = [
	...["/run/containerd", "/var/log/containerd.log", "/etc/containerd/config.toml", "/etc/cni/net.d", "/opt/cni"],
	...["/var/lib/cni", "/var/log/pods", "/opt/containerd"],
];

/** Without network namespaces: labs, also those of other tests beside this one, have theirs mounted. */
function mounts(): string[] {
	return readFileSync("/proc/self/mounts", "utf8")
		.split("\n")
		.filter((line) => !line.startsWith("nsfs "));
}

const namespaceOf = (pid: number): string => readlinkSync(`/proc/${pid}/ns/pid`);

/** Names of the processes in a PID namespace. */
function processesIn(space: string): string[] {
	return readdirSync("/proc")
		.filter((name) => /^\d+$/.test(name))
		.flatMap((pid) => {
			try {
				return readlinkSync(`/proc/${pid}/ns/pid`) === space ? [readFileSync(`/proc/${pid}/comm`, "utf8").trim()] : [];
			} catch {
				return []; // it has ended
			}
		});
}

/** In every hierarchy, version 1 or 2. */
function cgroupsOf(name: string): string[] {
	const root = "/sys/fs/cgroup";
	return ["", ...readdirSync(root)]
		.map((hierarchy) => `${root}/${hierarchy}/${name}`)
		.filter((path) => existsSync(path));
}

/** Whether the address answers an echo request. */
async function reaches(from: RunningPod, ip: string): Promise<boolean> {
	return (await ping(from, { ip }, "-c", "1", "-W", "1")).received === 1;
}
