// What reading a cluster costs an agent: memory, CPU time and time, for some numbers of pods, against the double of the API
// server in another process. Prints JSON.   node dist/test/kube/measure.js [PODS...]
import { fork } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { cpus, release, tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { Cluster } from "../../src/kube/cluster.js";
import type { ApiObject } from "./api-server.js";
import { pod, writeKubeconfig } from "./objects.js";

const PORT = 16444;
const UPDATES = 2000;
/** About what a real pod has besides what is read here. */
const FILLER = "x".repeat(4000);
const address = (i: number): string => `10.${100 + (i >> 16)}.${(i >> 8) & 255}.${i & 255}`;
const MIB = 2 ** 20;

if (process.argv[2] === "one") await measure(Number(process.argv[3]));
else {
	const counts = process.argv.length > 2 ? process.argv.slice(2).map(Number) : [0, 1000, 10_000];
	const runs: unknown[] = [];
	for (const count of counts) {
		const child = fork(fileURLToPath(import.meta.url), ["one", String(count)], { execArgv: ["--expose-gc"] });
		const [result] = (await once(child, "message")) as [unknown];
		runs.push(result);
		await once(child, "exit");
	}
	const machine = { kernel: release(), cpu: cpus()[0]?.model, cpus: cpus().length, node: process.version };
	console.log(JSON.stringify({ command: "node dist/test/kube/measure.js", machine, runs }, null, "\t"));
}

async function measure(pods: number): Promise<void> {
	const dir = mkdtempSync(join(tmpdir(), "oncache-measure-"));
	const server = fork(fileURLToPath(new URL("./serve.js", import.meta.url)), [String(PORT)]);
	const ending = new AbortController();
	let calls = 0;
	const put = (i: number, node: string): Promise<unknown> => {
		const object: ApiObject = pod(`ns${i % 50}/p${i}`, { node, ip: address(i) });
		object.metadata.annotations = { filler: FILLER };
		server.send({ id: ++calls, method: "put", args: ["pods", object] });
		return once(server, "message");
	};
	try {
		await once(server, "message");
		for (let i = 0; i < pods; i++) await put(i, `n${i % 100}`);
		const path = join(dir, "kubeconfig");
		writeKubeconfig(path, `http://127.0.0.1:${PORT}`);
		globalThis.gc?.();
		const before = { rss: process.memoryUsage.rss(), cpu: process.cpuUsage(), at: performance.now() };
		let peak = before.rss;
		const watch = setInterval(() => {
			peak = Math.max(peak, process.memoryUsage.rss());
		}, 5);
		const nothing = (): void => {};
		const cluster = Cluster.start({
			access: { kind: "file", path },
			scope: "cluster",
			node: "n1",
			consequences: {
				onPolicies: nothing,
				onGone: nothing,
				onRelabelled: nothing,
				onNodesGone: nothing,
				onOptedOut: nothing,
			},
			onError: (error) => console.error(error.message),
			signal: ending.signal,
		});
		while (!cluster.status().synced) await setTimeout(5);
		const syncMs = performance.now() - before.at;
		const cpu = process.cpuUsage(before.cpu);
		await setTimeout(2000);
		const rss = process.memoryUsage.rss() - before.rss;
		const updates = Math.min(UPDATES, pods);
		const start = process.cpuUsage();
		for (let i = 0; i < updates; i++) await put(i, "n101");
		await setTimeout(500);
		const used = process.cpuUsage(start);
		clearInterval(watch);
		process.send?.({
			pods,
			syncMs: Math.round(syncMs),
			syncCpuMs: Math.round((cpu.user + cpu.system) / 1000),
			addedRssMiB: Math.round(rss / MIB),
			peakRssMiB: Math.round((peak - before.rss) / MIB),
			// With what this process spends on asking for the change.
			cpuPerChangeUs: updates === 0 ? null : Math.round((used.user + used.system) / updates),
		});
	} finally {
		ending.abort();
		server.disconnect();
		rmSync(dir, { recursive: true });
	}
}
