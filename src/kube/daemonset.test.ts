import assert from "node:assert/strict";
import { once } from "node:events";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import type { Access } from "./access.js";
import { awaitDaemonSet } from "./daemonset.js";

const folder = mkdtempSync(join(tmpdir(), "oncache-daemonset-"));
after(() => rmSync(folder, { recursive: true }));

const DAEMON_SETS = "/apis/apps/v1/namespaces/net/daemonsets";
const POD = { ownerReferences: [{ apiVersion: "apps/v1", kind: "DaemonSet", name: "clean", uid: "1" }] };

/** A double of the API server: answers with these one after the other, the last one for ever. */
async function apiServer(...answers: [status: number, body: object][]): Promise<{ access: Access; asked: string[] }> {
	const asked: string[] = [];
	const server = createServer(({ url = "" }, response) => {
		asked.push(url);
		const pods = [
			{ metadata: POD, spec: { nodeName: "n1" }, status: { conditions: [{ type: "Ready", status: "True" }] } },
			{ metadata: POD, spec: { nodeName: "n2" }, status: { conditions: [{ type: "Ready", status: "False" }] } },
			{ metadata: {}, spec: { nodeName: "n3" }, status: {} },
		];
		const [status, body] = url.endsWith("/pods")
			? [200, { items: pods }]
			: ((answers.length > 1 ? answers.shift() : answers[0]) as [number, object]);
		response.writeHead(status, { "content-type": "application/json" }).end(JSON.stringify(body));
	}).listen(0, "127.0.0.1");
	await once(server, "listening");
	after(() => server.close());
	const { port } = server.address() as AddressInfo;
	const path = join(folder, `config-${port}`);
	const config = {
		"current-context": "c",
		contexts: [{ name: "c", context: { cluster: "c", user: "u" } }],
		clusters: [{ name: "c", cluster: { server: `http://127.0.0.1:${port}`, "insecure-skip-tls-verify": true } }],
		users: [{ name: "u", user: {} }],
	};
	writeFileSync(path, JSON.stringify(config));
	return { access: { kind: "file", path }, asked };
}

const status = (observedGeneration: number, numberReady: number, desiredNumberScheduled: number): [number, object] => [
	200,
	{ metadata: { generation: 2 }, status: { observedGeneration, numberReady, desiredNumberScheduled } },
];

function wait(access: Access, timeoutMs: number, progress: string[] = []): Promise<number> {
	return awaitDaemonSet(access, {
		...{ namespace: "net", name: "clean", timeoutMs, signal: new AbortController().signal },
		onProgress: (ready, nodes) => progress.push(`${ready}/${nodes}`),
	});
}

test("awaitDaemonSet() waits for the controller, for every node, and through an error of the server", async () => {
	const { access, asked } = await apiServer(status(1, 0, 0), status(2, 1, 2), [503, {}], status(2, 2, 2));
	const progress: string[] = [];
	assert.equal(await wait(access, 60_000, progress), 2);
	assert.deepEqual(progress, ["1/2", "2/2"]);
	assert.deepEqual(asked, Array(4).fill(`${DAEMON_SETS}/clean`));
});

test("awaitDaemonSet() names the nodes that are not ready in time", async () => {
	const { access } = await apiServer(status(2, 1, 2));
	await assert.rejects(wait(access, 10), {
		name: "NotReadyError",
		message:
			'DaemonSet "clean" of namespace "net" has not become ready within 0.01 s: it is ready on 1 of 2 nodes; not on n2',
	});
});

test("awaitDaemonSet() does not go on where it is not allowed to ask", async () => {
	const { access, asked } = await apiServer([403, { message: "daemonsets.apps is forbidden" }]);
	await assert.rejects(wait(access, 60_000), /Cannot ask for DaemonSet "clean".*daemonsets\.apps is forbidden/);
	assert.equal(asked.length, 1);
});
