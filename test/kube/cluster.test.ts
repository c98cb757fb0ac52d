// The agent's end: the thread that talks to the API server, and what is left when it dies.
import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { Cluster, type ClusterOptions } from "../../src/kube/cluster.js";
import { ApiServer } from "./api-server.js";
import { eventually } from "./cluster.js";
import { node, OPTED_OUT, pod, writeKubeconfig } from "./objects.js";

async function withCluster(
	more: Partial<ClusterOptions>,
	use: (parts: { api: ApiServer; cluster: Cluster; said: string[]; errors: string[] }) => Promise<void>,
): Promise<void> {
	const dir = mkdtempSync(join(tmpdir(), "oncache-cluster-"));
	const ending = new AbortController();
	const api = new ApiServer();
	try {
		const path = join(dir, "kubeconfig");
		writeKubeconfig(path, `http://127.0.0.1:${await api.listen()}`);
		const said: string[] = [];
		const errors: string[] = [];
		const cluster = Cluster.start({
			access: { kind: "file", path },
			scope: "cluster",
			node: "n1",
			consequences: {
				onPolicies: (why) => said.push(why),
				onGone: (ips) => said.push(`gone ${ips.join(" ")}`),
				onRelabelled: () => {},
				onNodesGone: (ips) => said.push(`nodes gone ${ips.join(" ")}`),
				onOptedOut: (ips) => said.push(`opted out ${[...ips].join(" ")}`),
			},
			onError: ({ message }) => errors.push(message),
			signal: ending.signal,
			...more,
		});
		await use({ api, cluster, said, errors });
	} finally {
		ending.abort();
		await api.close();
		rmSync(dir, { recursive: true });
	}
}

test("what the thread reads is known here, with its age", () =>
	withCluster({}, async ({ api, cluster, said }) => {
		api.put("nodes", node("n1", "192.168.0.1"));
		api.put("pods", pod("a/quiet", { ip: "10.0.0.2", annotations: OPTED_OUT }));
		api.put("pods", pod("a/other", { node: "n2", ip: "10.0.1.2", annotations: OPTED_OUT }));
		await eventually("everything is read", () => cluster.status().synced);
		const status = cluster.status();
		assert.match(status.server ?? "", /^http:\/\/127/);
		assert.deepEqual([status.node, status.pods, status.problems, status.optedOut], ["n1", "cluster", [], 2]);
		assert.ok(status.ageMs !== null && status.ageMs >= 0);
		assert.deepEqual(
			status.sources.map(({ name, objects }) => [name, objects]).sort(),
			[["namespaces", 0], ["networkpolicies", 0], ["nodes", 1], ["pods", 2]],
		); // biome-ignore format: a table
		assert.deepEqual([...cluster.localOptedOut()], [["10.0.0.2", { namespace: "a", name: "quiet" }]]);
		assert.equal(cluster.nodeAt("192.168.0.1"), "n1");
		assert.ok(said.includes("opted out 10.0.0.2 10.0.1.2"), said.join("; "));
	}));

test("nothing was heard yet: no age, no names, nothing to do", () =>
	withCluster({ access: { kind: "file", path: "/nonexistent/kubeconfig" } }, async ({ cluster, said }) => {
		assert.deepEqual([cluster.status().ageMs, cluster.status().synced], [null, false]);
		await eventually("it is said why", () => cluster.status().problems.length > 0);
		assert.match(
			cluster.status().problems[0] ?? "",
			/Cannot use kubeconfig "\/nonexistent\/kubeconfig": there is no such file/,
		);
		assert.deepEqual([cluster.podAt("10.0.0.2"), said], [null, []]);
	}));

test("a thread that dies is said, and started again; what it has told stays", () => {
	const script = new URL(
		`data:text/javascript,${encodeURIComponent(`
			import { parentPort } from "node:worker_threads";
			const record = { uid: "p", name: "p", namespace: "a", node: "n1", ips: ["10.0.0.2"], accelerate: null, labels: "" };
			parentPort.postMessage({ type: "replace", kind: "pods", source: "pods", records: [record] });
			setTimeout(() => { throw new Error("out of memory, say"); }, 20);
		`)}`,
	);
	return withCluster({ thread: { script, restart: { firstMs: 1, longestMs: 5 } } }, async ({ cluster, errors }) => {
		await eventually("started again", () => errors.length >= 3);
		assert.equal(errors[0], "out of memory, say");
		assert.match(cluster.status().problems[0] ?? "", /thread .* has ended and is started again: out of memory, say/);
		assert.deepEqual(cluster.podAt("10.0.0.2"), { namespace: "a", name: "p" });
	});
});
