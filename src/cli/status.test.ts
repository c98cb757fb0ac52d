// What oncache status and flows print of a cluster, from an agent that is a double.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import type { FlowStatus, Status } from "../agent/api.js";
import { type Handlers, serve } from "../agent/server.js";

const ONCACHE = fileURLToPath(new URL("../../../bin/oncache", import.meta.url));
const dir = mkdtempSync(join(tmpdir(), "oncache-status-"));
const socket = join(dir, "agent.sock");
const stop = new AbortController();
const none = { fast: 0, fallback: {} };

const STATUS: Status = {
	state: "accelerating",
	why: [],
	version: "1.2.3",
	kernel: "6.18",
	agent: { running: true, pid: 7, startedAt: null },
	attach: "tcx",
	markMode: "metadata",
	learning: true,
	using: true,
	maxStalenessMs: 2000,
	tunnels: [],
	pods: [
		{
			veth: "veth1",
			ip: null,
			addresses: [],
			pod: { namespace: "shop", name: "front" },
			attached: false,
			why: "Pod shop/front is opted out",
		},
		{ veth: "veth2", ip: "10.0.0.3", addresses: ["10.0.0.3"], pod: null, attached: true, why: null },
	],
	caches: {
		filter: { entries: 0, capacity: 1 },
		egress: { entries: 0, capacity: 1 },
		ingress: { entries: 0, capacity: 1 },
	},
	packets: { egress: none, ingress: none },
	bytes: { egress: none, ingress: none },
	coherency: null,
	cni: null,
	network: { name: "Flannel", evidence: [], plan: "Pod traffic is accelerated", refused: false },
	kubernetes: {
		server: "https://10.96.0.1",
		node: "n1",
		pods: "node",
		synced: true,
		ageMs: 90_000,
		problems: ["Cannot read pods: connect ECONNREFUSED"],
		optedOut: 1,
		sources: [{ name: "pods", objects: 5, synced: true, ageMs: 90_000, lists: 1, watches: 1, problem: "x" }],
	},
	lessons: { egress: {}, ingress: {} },
};
const FLOW: FlowStatus = {
	protocol: "tcp",
	local: { ip: "10.0.0.2", port: 1000 },
	remote: { ip: "10.0.1.2", port: 80 },
	veth: "veth1",
	localPod: { namespace: "shop", name: "front" },
	remotePod: null,
	host: "192.168.0.2",
	node: "n2",
	peerVeth: null,
	translated: null,
	egress: { state: "usable", ageMs: 3 },
	ingress: { state: "none", ageMs: null },
	packets: null,
};

before(() => {
	const double = {
		status: async () => STATUS,
		flows: async () => ({ total: 1, flows: [FLOW] }),
	} as unknown as Handlers;
	return serve({ socket, handlers: double, signal: stop.signal });
});
after(() => {
	stop.abort();
	rmSync(dir, { recursive: true });
});

async function oncache(...args: string[]): Promise<string> {
	const child = spawn(process.execPath, [ONCACHE, ...args, "--socket", socket], {
		stdio: ["ignore", "pipe", "inherit"],
	});
	return text(child.stdout);
}

test("status has the pods' names, the network, and what is wrong with the API server", async () => {
	const printed = await oncache("status");
	assert.match(printed, /^veth1 +shop\/front +- +no: Pod shop\/front is opted out$/m);
	assert.match(printed, /^veth2 +- +10\.0\.0\.3 +yes$/m);
	assert.match(printed, /^Network\nFlannel: Pod traffic is accelerated$/m);
	assert.match(
		printed,
		/^Kubernetes\nnode n1, API server https:\/\/10\.96\.0\.1, last heard 1 min 30 s ago\n5 pods \(of this node\); 1 addresses opted out\n {2}Cannot read pods: connect ECONNREFUSED$/m,
	);
});

test("flows has the names of pods and nodes that are known", async () => {
	assert.match(await oncache("flows"), /^tcp +10\.0\.0\.2:1000 shop\/front +10\.0\.1\.2:80 +veth1 +n2 /m);
});
