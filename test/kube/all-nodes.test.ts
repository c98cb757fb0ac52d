// oncache status --all-nodes and kubectl oncache against a double of the API server, which runs the agents' commands itself.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import { after, before, describe, test } from "node:test";
import { fileURLToPath } from "node:url";
import type { Status } from "../../src/agent/api.js";
import { type NodeReport, statusOfAllNodes } from "../../src/kube/all-nodes.js";
import { ApiServer } from "./api-server.js";
import { type Exec, type Run, serveExec } from "./exec.js";
import { node, pod, writeKubeconfig } from "./objects.js";

const LABELS = { "app.kubernetes.io/name": "oncache", "app.kubernetes.io/component": "agent" };
const BIN = fileURLToPath(new URL("../../../bin/", import.meta.url));
const dir = mkdtempSync(join(tmpdir(), "oncache-all-"));
const kubeconfig = join(dir, "kubeconfig");
const api = new ApiServer();
const ran: Exec[] = [];

const status = (name: string): Partial<Status> => ({
	state: "accelerating",
	why: [],
	version: "1.2.3",
	tunnels: [],
	pods: Array.from({ length: 300 }, (_, i) => ({
		veth: `${name}-${i}`, ip: null, addresses: [], pod: null, attached: i > 0, why: null,
	})), // biome-ignore format: a record
	caches: {
		filter: { entries: 12, capacity: 1024 },
		egress: { entries: 1, capacity: 64 },
		ingress: { entries: 1, capacity: 64 },
	},
	packets: { egress: { fast: 90, fallback: { sample: 10 } }, ingress: { fast: 0, fallback: {} } },
	network: { name: "Flannel", evidence: [], plan: "", refused: false },
	kubernetes: null,
});

/** By node. */
const BEHAVIOUR: Record<string, ReturnType<Run>> = {
	n1: { stdout: JSON.stringify(status("n1")) },
	n2: { stderr: "oncache: Cannot reach the agent: nobody listens there\n" },
	n3: "silent",
	n4: "dropped",
	n5: "forbidden",
	n6: { stdout: "no JSON" },
	n9: { stdout: JSON.stringify(status("n9")) },
};

before(async () => {
	serveExec(api, (exec) => {
		ran.push(exec);
		return BEHAVIOUR[exec.pod.replace("agent-", "")] ?? "dropped";
	});
	for (const name of [...Object.keys(BEHAVIOUR), "n7", "n8"]) api.put("nodes", node(name, "192.168.0.1"));
	for (const name of Object.keys(BEHAVIOUR))
		api.put("pods", pod(`kube-system/agent-${name}`, { node: name, labels: LABELS, hostNetwork: true }));
	api.put("pods", pod("kube-system/agent-n8", { node: "n8", labels: LABELS, phase: "Pending" }));
	api.put("pods", pod("default/other", { node: "n7" }));
	writeKubeconfig(kubeconfig, `http://127.0.0.1:${await api.listen()}`);
});
after(async () => {
	await api.close();
	rmSync(dir, { recursive: true });
});

async function run(
	file: string,
	args: string[],
	env: NodeJS.ProcessEnv = {},
): Promise<{ code: number | null; stdout: string; stderr: string }> {
	const child = spawn(process.execPath, [join(BIN, file), ...args], {
		env: { PATH: process.env.PATH, HOME: dir, ...env },
	});
	const [stdout, stderr, code] = await Promise.all([
		text(child.stdout),
		text(child.stderr),
		new Promise<number | null>((resolve) => child.once("exit", resolve)),
	]);
	return { code, stdout, stderr };
}

describe("statusOfAllNodes()", () => {
	test("asks each agent in its pod; who cannot be asked does not hide the others", async () => {
		const signal = new AbortController().signal;
		const reports = await statusOfAllNodes({ kubeconfig, timeoutMs: 1000, signal });
		const problems = new Map(reports.map(({ node, problem }) => [node, problem]));
		assert.deepEqual([...problems.keys()], ["n1", "n2", "n3", "n4", "n5", "n6", "n7", "n8", "n9"]);
		assert.deepEqual(
			reports.filter(({ status }) => status !== null).map(({ node, pod, status }) => [node, pod, status?.pods.length]),
			[
				["n1", "kube-system/agent-n1", 300],
				["n9", "kube-system/agent-n9", 300],
			],
		);
		assert.equal(problems.get("n2"), "Cannot ask it: oncache: Cannot reach the agent: nobody listens there");
		assert.equal(problems.get("n3"), "Cannot ask it: no answer within 1 s");
		assert.equal(problems.get("n4"), "Cannot ask it: the connection was lost");
		assert.match(problems.get("n5") ?? "", /403: it takes the right to get and create pods\/exec$/);
		assert.equal(problems.get("n6"), "Cannot ask it: its answer is no JSON");
		assert.equal(problems.get("n7"), "No agent runs there");
		assert.equal(problems.get("n8"), "Its pod is Pending");
		assert.deepEqual(ran[0], {
			namespace: "kube-system",
			pod: "agent-n1",
			container: "agent",
			command: ["oncache", "status", "--json"],
		});
	});

	test("who may not list nodes sees those with an agent", async () => {
		api.set({ forbidden: ["nodes"] });
		try {
			const reports = await statusOfAllNodes({ kubeconfig, timeoutMs: 1000, signal: new AbortController().signal });
			assert.ok(!reports.some(({ node }) => node === "n7"));
			assert.equal(reports.length, 8);
		} finally {
			api.set({ forbidden: [] });
		}
	});

	test("who may not list pods is told so", async () => {
		api.set({ forbidden: ["pods"] });
		try {
			await assert.rejects(
				statusOfAllNodes({ kubeconfig, signal: new AbortController().signal }),
				/^Error: Cannot list the agents' pods: 403 pods is forbidden/,
			);
		} finally {
			api.set({ forbidden: [] });
		}
	});
});

describe("the command", () => {
	before(() => {
		for (const name of ["n3"]) BEHAVIOUR[name] = "dropped"; // nobody waits for it here
	});

	test("kubectl oncache shows every node, and ends with 1 when one could not be asked", async () => {
		const { code, stdout } = await run("kubectl-oncache", ["--kubeconfig", kubeconfig]);
		assert.equal(code, 1);
		assert.match(stdout, /^n1 +accelerating +1\.2\.3 +Flannel +0\/0 +299\/300 +12 +90\.0 %$/m);
		assert.match(stdout, /^n7 +unknown/m);
		assert.match(stdout, /^n7: No agent runs there$/m);
		assert.match(stdout, /^2 of 9 nodes accelerating, 7 not asked$/m);
	});

	test("--json says the same, and finds the cluster by $KUBECONFIG", async () => {
		const { stdout } = await run("oncache", ["status", "--all-nodes", "--json"], { KUBECONFIG: kubeconfig });
		const { nodes } = JSON.parse(stdout) as { nodes: NodeReport[] };
		assert.deepEqual([nodes.length, nodes[0]?.status?.state], [9, "accelerating"]);
	});

	for (const [what, args, words] of [
		["no kubeconfig at all", [], /name a kubeconfig file with --kubeconfig, or set KUBECONFIG/],
		[
			"one that is not there",
			["--kubeconfig", "/nonexistent"],
			/Cannot use kubeconfig "\/nonexistent": there is no such file/,
		],
		[
			"a context that it does not have",
			["--kubeconfig", kubeconfig, "--context", "x"],
			/Cannot use context "x": the kubeconfig has test/,
		],
		["another command", ["flows"], /kubectl oncache shows the status of all nodes; for one node: kubectl exec/],
	] as const)
		test(`${what}: exit code 2, and what to do`, async () => {
			const { code, stderr } = await run("kubectl-oncache", [...args]);
			assert.equal(code, 2, stderr);
			assert.match(stderr, words);
		});

	test("nobody there: says who, and ends with 1", async () => {
		const nowhere = join(dir, "nowhere");
		writeKubeconfig(nowhere, "http://127.0.0.1:1");
		const { code, stderr } = await run("kubectl-oncache", ["--kubeconfig", nowhere]);
		assert.equal(code, 1);
		assert.match(stderr, /Cannot list the agents' pods: .*ECONNREFUSED/);
	});
});
