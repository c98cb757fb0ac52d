// What a cluster gets: the image of deploy/Dockerfile, in pods that the chart describes, made by containerd on two nodes as kubelet
// makes them. It accelerates containers' traffic, is replaced without loss, and is removed without a trace.
import assert from "node:assert/strict";
import { existsSync, readFileSync } from "node:fs";
import { after, before, describe, test } from "node:test";
import type { Status } from "../../src/agent/api.js";
import { XTABLES_LOCK } from "../../src/kernel/xtables-lock.js";
import { type Containerd, startContainerd } from "../../src/lab/containerd.js";
import type { LabNode } from "../../src/lab/node.js";
import type { LabHost } from "../../src/lab/topology.js";
import { CHART, type Manifest, render, whyNoHelm } from "../deploy/helm.js";
import { buildImage } from "../deploy/image.js";
import { type RunningDaemon, startDaemon } from "../deploy/kubelet.js";
import { Cri, type RunningPod } from "../runtime/cri.js";
import {
	bpfObjects,
	eventually,
	freed,
	ping,
	statusOf,
	type TestLab,
	traces,
	tunnelPackets,
	upWithAgents,
} from "./world.js";

const NAME = "e2e-deploy";
const HOOK = "helm.sh/hook";
const SOCKET = "/run/oncache/agent.sock";
const BPFFS = "/sys/fs/bpf";
/** So long that no packet of a short exchange is a sample. */
const VALUES = ["--set", "config.maxStalenessMs=60000,cni.install=true"];
/** Opening, and the packets that teach both hosts, in both directions. */
const TO_BEGIN = 8;
const ROUNDS = 100;

describe("the chart's pods", { skip: whyNoHelm }, () => {
	let world: TestLab;
	let runtimes: Containerd[];
	let cris: Cri[];
	let manifests: Manifest[];
	let agents: RunningDaemon[];
	let a: RunningPod;
	let b: RunningPod;
	const clean = { traces: [] as Record<string, string>[], files: [] as string[], objects: [] as string[] };

	const places = () => runtimes.map(({ node }, i) => ({ node, cri: cris[i] as Cri, host: node.host }));
	const daemonSet = (isHook: boolean, from = manifests): Manifest => {
		const found = from.find(
			({ kind, metadata }) => kind === "DaemonSet" && (metadata.annotations?.[HOOK] !== undefined) === isHook,
		);
		assert.ok(found);
		return found;
	};
	const startEverywhere = (name: string, what: { daemonSet: Manifest; others: Manifest[] }) =>
		all(places().map(({ cri, node }) => startDaemon(cri, node, name, what)));
	const startAgents = (name: string, from = manifests) =>
		startEverywhere(name, { daemonSet: daemonSet(false, from), others: from });
	const agentStatus = ({ host, node }: { host: LabHost; node: LabNode }): Promise<Status> =>
		statusOf({ ...host, socket: node.path(SOCKET) });

	before(async () => {
		manifests = await render(...VALUES);
		const { template } = daemonSet(false).spec as { template: { spec: { containers: [{ image: string }] } } };
		const [{ image }] = template.spec.containers;
		const archive = await buildImage(`docker.io/library/${image}`);
		world = await upWithAgents(NAME, undefined, { pods: 1 });
		runtimes = await Promise.all(world.lab.hosts.map((host) => startContainerd(host, world.lab)));
		cris = await Promise.all(runtimes.map((runtime) => Cri.connect(runtime)));
		await Promise.all(runtimes.map((runtime) => runtime.importImage(archive)));
		[a, b] = (await Promise.all(places().map(({ cri, host }) => cri.runPod({ name: `pod-${host.name}` })))) as [
			RunningPod,
			RunningPod,
		];
		// As on every node that has kube-proxy or has had it: the old iptables' own.
		for (const { node } of places()) await node.run(["touch", XTABLES_LOCK]);
		clean.traces = await Promise.all(places().map(({ host }) => traces(host)));
		clean.files = await Promise.all(places().map(({ node }) => files(node)));
		clean.objects = bpfObjects();
	});
	after(async () => {
		for (const cri of cris ?? []) cri.close();
		await world?.down();
	});

	/** What the tunnel device of the first host carried, and how many packets took the fast path there in both directions. */
	async function seen(body: () => Promise<void>): Promise<{ tunnel: number; fast: number }> {
		const [place] = places();
		assert.ok(place);
		const look = async () => {
			const { egress, ingress } = (await agentStatus(place)).packets;
			return { tunnel: await tunnelPackets(place.host), fast: egress.fast + ingress.fast };
		};
		const before = await look();
		await body();
		const after = await look();
		return { tunnel: after.tunnel - before.tunnel, fast: after.fast - before.fast };
	}

	test("become ready, and find overlay and pods", async () => {
		agents = await startAgents("oncache-1");
		for (const place of places()) {
			const { state, why, tunnels, pods } = await agentStatus(place);
			assert.equal(state, "accelerating", why.join("; "));
			assert.deepEqual(
				tunnels.map(({ name }) => name),
				[place.host.tunnel],
			);
			assert.equal(pods.filter(({ attached }) => attached).length, 2, "the lab's own pod, and the container");
		}
	});

	test("have nothing that they do not need", async () => {
		for (const agent of agents) {
			const { stdout } = await agent.exec("cat", "/proc/1/status");
			// CAP_NET_ADMIN (12), CAP_PERFMON (38), CAP_BPF (39)
			for (const set of ["CapPrm", "CapEff", "CapBnd"])
				assert.match(stdout, new RegExp(`^${set}:\\s*000000c000001000$`, "m"), set);
			assert.match(stdout, /^NoNewPrivs:\s*1$/m);
			assert.match(stdout, /^Seccomp:\s*2$/m);
			assert.notEqual((await agent.exec("touch", "/opt/oncache/file")).code, 0, "the root is read-only");
			assert.notEqual((await agent.exec("sh", "-c", "echo 0 >/proc/sys/kernel/printk")).code, 0);
		}
	});

	test("answer to the commands that are called in them", async () => {
		const [agent] = agents as [RunningDaemon];
		for (const command of ["status", "flows", "verify"]) {
			const { code, stderr } = await agent.exec("oncache", command);
			assert.equal(code, 0, `${command}: ${stderr}`);
		}
		const doctor = await agent.exec("oncache", "doctor", "--json");
		assert.ok(!/cannot|missing/i.test(doctor.stderr), doctor.stderr);
	});

	test("serve every metric that the dashboard shows", async () => {
		const dashboard = readFileSync(`${CHART}/dashboards/oncache.json`, "utf8");
		const { stdout } = await (agents[0] as RunningDaemon).exec(
			...["node", "-e", 'fetch("http://127.0.0.1:9817/metrics").then((answer) => answer.text()).then(console.log)'],
		);
		for (const [name] of dashboard.matchAll(/\b(oncache|process)_[a-z_]+\b/g))
			assert.match(stdout, new RegExp(`^# TYPE ${name} `, "m"));
	});

	test("accelerate what one node's container says to another's", async () => {
		const { tunnel, fast } = await seen(async () => {
			const [cri] = cris as [Cri];
			const { stdout, code } = await cri.exec(a.main, ["ping", "-c", String(ROUNDS), "-i", "0.005", b.ip]);
			assert.equal(code, 0, stdout);
			assert.match(stdout, new RegExp(`${ROUNDS} packets transmitted, ${ROUNDS} packets received`));
		});
		assert.ok(tunnel <= TO_BEGIN, `the tunnel device carried ${tunnel} of ${2 * ROUNDS} packets`);
		assert.ok(fast >= 2 * ROUNDS - TO_BEGIN, `${fast} of ${2 * ROUNDS} packets were fast`);
	});

	test("have their plugin executed for a new pod, which is attached when it begins", async () => {
		const [, second] = places();
		assert.ok(second);
		const pod = await second.cri.runPod({ name: "late" });
		const { pods } = await agentStatus(second);
		assert.equal(pods.filter(({ attached }) => attached).length, 3);
		await second.cri.removePod(pod);
		assert.match((await (agents[1] as RunningDaemon).exec("oncache", "cni", "status")).stdout, /^installed/);
	});

	test("hear of the old iptables on their node", async () => {
		const [first] = places();
		assert.ok(first);
		const flushes = async () => (await agentStatus(first)).coherency?.flushes ?? 0;
		const before = await flushes();
		await first.node.run(["iptables-legacy", "-A", "FORWARD", "-j", "ACCEPT"]);
		await eventually("everything is evicted", async () => (await flushes()) > before);
		await first.node.run(["iptables-legacy", "-D", "FORWARD", "-j", "ACCEPT"]);
	});

	test("are replaced, with another configuration, and no packet is lost", async () => {
		const next = await render(...VALUES, "--set", "config.logLevel=debug");
		await ping(a, b, "-c", "5", "-i", "0.01", "-W", "1");
		const pinging = ping(a, b, "-c", "800", "-i", "0.01", "-W", "1");
		const before = await tunnelPackets(world.h1);
		await Promise.all(agents.map((agent) => agent.remove()));
		agents = await startAgents("oncache-2", next);
		assert.deepEqual(await pinging, { sent: 800, received: 800 });
		const tunnel = (await tunnelPackets(world.h1)) - before;
		assert.ok(tunnel <= 2 * TO_BEGIN, `the tunnel device carried ${tunnel} of 1600 packets`);
		assert.match((agents[0] as RunningDaemon).log(), /"caches":"taken over"/);
	});

	test("leave no trace on any node after an uninstallation", async () => {
		await Promise.all(agents.map((agent) => agent.remove()));
		const pinging = ping(a, b, "-c", "600", "-i", "0.01", "-W", "1");
		for (const { node } of places())
			assert.ok(existsSync(node.path(`${BPFFS}/oncache/links`)), "it goes on without agents");
		const cleaners = await startEverywhere("oncache-uninstall", {
			daemonSet: daemonSet(true),
			others: manifests,
		});
		for (const cleaner of cleaners) assert.match(cleaner.log("uninstall"), /Removed: program at the ingress/);
		await Promise.all(cleaners.map((cleaner) => cleaner.remove()));
		assert.deepEqual(await pinging, { sent: 600, received: 600 });

		for (const [i, { host, node }] of places().entries()) {
			assert.deepEqual(await traces(host), clean.traces[i]);
			assert.equal(await files(node), clean.files[i]);
		}
		await freed(clean.objects);
	});
});

/** As Promise.all(), but nothing goes on when it returns or throws. */
async function all<Value>(promises: Promise<Value>[]): Promise<Value[]> {
	await Promise.allSettled(promises);
	return Promise.all(promises);
}

/** Of the host, where an agent or its pod could leave something, and the CNI's configuration; the runtime's own come and go. */
async function files(node: LabNode): Promise<string> {
	const places = ["/run", "/etc", "/opt", BPFFS];
	const { stdout } = await node.run(["find", ...places, "-xdev", "-not", "-path", "/run/netns/*"]);
	const ofRuntime = /^\/run\/(containerd|node|runc)\b/;
	const paths = stdout.split("\n").filter((path) => !ofRuntime.test(path));
	const { stdout: sums } = await node.run(["sh", "-c", "find /etc/cni /opt/cni -type f | sort | xargs sha256sum"]);
	return [...paths.sort(), sums].join("\n");
}
