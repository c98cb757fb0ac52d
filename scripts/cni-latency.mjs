// What the CNI plugin adds to the start of a pod: on a lab host with a real agent and as many pods as are asked for, each new
// pod made by the real bridge plugin, and then oncache-cni executed for it as a runtime does. Interleaved: an empty Node
// program (what starting Node costs) and the plugin's question asked by a process that runs already (what the agent needs).
//   node scripts/cni-latency.mjs [--adds 200] [--pods 2] [--json docs/results/cni-latency.json]
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { cpus, release, tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { agentRequest } from "../dist/src/agent/client.js";
import { startAgent } from "../dist/src/lab/agent.js";
import { inNetns, run } from "../dist/src/lab/command.js";
import { labDown, labUp } from "../dist/src/lab/lab.js";
import { prefix, specOf } from "../dist/src/lab/topology.js";

const { values } = parseArgs({
	options: {
		adds: { type: "string", default: "200" },
		pods: { type: "string", default: "2" },
		json: { type: "string" },
	},
});
const adds = Number(values.adds);
const pods = Number(values.pods);
const NAME = "cni-latency";
const PLUGIN = fileURLToPath(new URL("../bin/oncache-cni", import.meta.url));
const dir = mkdtempSync(join(tmpdir(), "oncache-cni-latency-"));
const empty = join(dir, "empty.cjs");
writeFileSync(empty, "");

const measured = { add: [], del: [], empty: [], agent: [] };
await labDown(NAME);
const { hosts } = await labUp(specOf({ name: NAME, pods }));
const [host] = hosts;
const agent = await startAgent(host);
try {
	for (let i = 0; i < adds; i++) await one(i);
} finally {
	await agent.stop();
	await labDown(NAME);
	rmSync(dir, { recursive: true });
}

const summary = Object.fromEntries(Object.entries(measured).map(([name, values]) => [name, summarise(values)]));
for (const [name, { p50, p90, p99, max }] of Object.entries(summary))
	console.log(`${name.padEnd(6)} p50 ${p50} ms, p90 ${p90} ms, p99 ${p99} ms, max ${max} ms`);
if (values.json) {
	const command = ["node", "scripts/cni-latency.mjs", "--adds", values.adds, "--pods", values.pods];
	const machine = { cpu: cpus()[0]?.model, cores: cpus().length, kernel: release(), node: process.versions.node };
	const result = { command, startedAt: new Date().toISOString(), machine, summary, milliseconds: measured };
	writeFileSync(values.json, `${JSON.stringify(result, null, "\t")}\n`);
}

/** A pod's whole life. */
async function one(i) {
	const name = `${prefix(NAME)}h1p${1000 + i}`;
	const environment = {
		CNI_CONTAINERID: name,
		CNI_NETNS: `/run/netns/${name}`,
		CNI_IFNAME: "eth0",
		CNI_PATH: "/usr/lib/cni",
	};
	await run(["ip", "netns", "add", name]);
	try {
		const bridge = {
			...{ cniVersion: "1.0.0", name: "latency", type: "bridge", bridge: "cni0", isGateway: true, mtu: 1450 },
			ipam: { type: "host-local", dataDir: dir, ranges: [[{ subnet: host.podCidr, rangeStart: "10.244.1.200" }]] },
		};
		const prevResult = JSON.parse(await viaHost("bridge", { ...environment, CNI_COMMAND: "ADD" }, bridge));
		const config = {
			cniVersion: "1.0.0",
			name: "latency",
			type: "oncache-cni",
			socket: host.socket,
			last: true,
			prevResult,
		};
		measured.add.push(await time(PLUGIN, [], { ...environment, CNI_COMMAND: "ADD" }, config));
		measured.empty.push(await time(process.execPath, [empty], {}, {}));
		const question = {
			...{ network: "latency", containerId: name, ifname: "eth0", netns: null, last: true, pod: null, addresses: [] },
			hostDevices: prevResult.interfaces.filter(({ sandbox }) => !sandbox).map(({ name }) => name),
		};
		const started = performance.now();
		await agentRequest(host.socket, "POST", "/v1/cni/check", question);
		measured.agent.push(performance.now() - started);
		measured.del.push(await time(PLUGIN, [], { ...environment, CNI_COMMAND: "DEL" }, config));
		await viaHost("bridge", { ...environment, CNI_COMMAND: "DEL" }, { ...bridge, prevResult });
	} finally {
		await run(["ip", "netns", "del", name]);
	}
}

async function viaHost(type, environment, config) {
	const variables = Object.entries(environment).map(([key, value]) => `${key}=${value}`);
	const { stdout } = await run(inNetns(host.netns, ["env", ...variables, `/usr/lib/cni/${type}`]), {
		input: JSON.stringify(config),
	});
	return stdout;
}

/** From the call to the end of the process, ms. */
async function time(file, args, environment, input) {
	const started = performance.now();
	const child = spawn(file, args, {
		env: { PATH: process.env.PATH, ...environment },
		stdio: ["pipe", "ignore", "ignore"],
	});
	child.stdin.on("error", () => {});
	child.stdin.end(JSON.stringify(input));
	const [code] = await once(child, "exit");
	if (code !== 0) throw new Error(`"${file}" ended with ${code}`);
	return performance.now() - started;
}

function summarise(values) {
	const sorted = [...values].sort((a, b) => a - b);
	const at = (share) => Number((sorted[Math.ceil(share * sorted.length) - 1] ?? 0).toFixed(1));
	return { count: sorted.length, p50: at(0.5), p90: at(0.9), p99: at(0.99), max: at(1) };
}
