// How long after the kernel's own change a decision that it made wrong is gone: with many pods and flows, the bound of
// staleness a minute away, so that nothing but the kernel's notification can be the cause.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";
import { setTimeout } from "node:timers/promises";
import { Datapath } from "../../src/datapath/datapath.js";
import { NO_OTHER } from "../../src/datapath/flows.js";
import { flowKey, flow as flowLayout } from "../../src/datapath/layout.js";
import { startAgent } from "../../src/lab/agent.js";
import { inNetns, run } from "../../src/lab/command.js";
import { labDown, labUp } from "../../src/lab/lab.js";
import { DEFAULT_SPEC, type LabHost, type LabPod } from "../../src/lab/topology.js";
import { type Ipv4, parseIpv4 } from "../../src/net/ipv4.js";
import { openCrowd } from "./crowd.js";
import type { Proof, ProofOptions } from "./proof.js";

const NAME = "prf-lat";
const PODS = 500;
const FLOWS = 100_000;
/** Events per pod and flow of the full size, so that small runs stay quick. */
const FULL = 140;
const LIMIT_MS = 10_000;
/** Between two looks at whether the decision is gone: this process shall not take the agent's CPU. */
const LOOK_MS = 1;
const UDP = 17;
const OTHER_MAC = "0a:20:f4:00:00:99";

interface Event {
	name: string;
	/** Commands of a shell on the first host. */
	change: string;
	undo: string;
	/** Whether the decision is gone. */
	isGone: () => boolean;
}

export const latency: Proof = {
	name: "latency",
	claim: "what the kernel changes is evicted at its notification",
	unit: "events",
	small: 14,
	full: FULL,
	run: proveLatency,
};

async function proveLatency({ amount, signal, progress }: ProofOptions) {
	const pods = amount >= FULL ? PODS : 20;
	const flows = amount >= FULL ? FLOWS : 2000;
	await labDown(NAME);
	const lab = await labUp({ ...DEFAULT_SPEC, name: NAME, hosts: 3, pods: 2 }, { signal });
	const [h1, h2, h3] = lab.hosts as [LabHost, LabHost, LabHost];
	const [p1, p2] = h1.pods as [LabPod, LabPod];
	const remote = h2.pods[0] as LabPod;
	const crowd = await openCrowd(NAME);
	const failures: string[] = [];
	const tookMs: Record<string, number[]> = {};
	const commandMs: number[] = [];
	const shell = openShell(h1);
	let datapath: Datapath | undefined;
	try {
		progress(`${pods} pods, ${flows} flows`);
		await addPods(h1, crowd.netns, pods);
		const args = ["--max-staleness-ms", "60000", "--cache-filter", "262144"];
		const agents = [await startAgent(h1, { args, limitMs: 90_000, signal }), await startAgent(h2, { args, signal })];
		datapath = Datapath.openPinned(h1.bpffs);
		if (!datapath) throw new Error("The agent has pinned nothing");
		const opened = datapath;
		const warm = async (): Promise<void> => {
			for (const pod of [p1, p2])
				await run(inNetns(pod.netns, ["ping", "-n", "-q", "-i", "0.05", "-c", "3", remote.ip]));
		};
		const usable = async (): Promise<void> => {
			const deadline = performance.now() + LIMIT_MS;
			do await warm();
			while (
				(opened.hosts().length === 0 || opened.pods().length < 2) &&
				performance.now() < deadline &&
				!signal.aborted
			);
		};
		await usable();
		const fill = (): void => fillFlows(opened, flows, parseIpv4(p1.ip), parseIpv4("10.244.2.0"));
		const target = keyOf(parseIpv4(p1.ip), parseIpv4("10.244.2.0"), 0);
		for (let n = 0; n < amount && failures.length < 10; n++) {
			signal.throwIfAborted();
			await usable();
			fill();
			const host = opened.hosts().find((each) => each.remote === parseIpv4(h2.ip));
			const pod = opened.pods().find((each) => each.ip === parseIpv4(p2.ip));
			const { epoch } = opened;
			const isHostGone = (): boolean =>
				!opened.hosts().some((each) => each.slot === host?.slot && each.generation === host.generation);
			const isFlowGone = (): boolean => opened.maps.filter.get(target) === undefined;
			const ip = (command: string): string => `ip ${command}`;
			const events: Event[] = [
				{
					name: "route to a remote pod moved",
					change: ip(`route replace 10.244.2.1/32 via 10.244.3.0 dev ${h1.tunnel} onlink`),
					undo: ip("route del 10.244.2.1/32"),
					isGone: isFlowGone,
				},
				{
					name: "neighbour behind the tunnel changed",
					change: ip(`neigh replace 10.244.2.0 lladdr ${h3.tunnelMac} dev ${h1.tunnel} nud permanent`),
					undo: ip(`neigh replace 10.244.2.0 lladdr ${h2.tunnelMac} dev ${h1.tunnel} nud permanent`),
					isGone: isHostGone,
				},
				{
					name: "forwarding entry moved",
					change: `bridge fdb replace ${h2.tunnelMac} dev ${h1.tunnel} dst ${h3.ip}`,
					undo: `bridge fdb replace ${h2.tunnelMac} dev ${h1.tunnel} dst ${h2.ip}`,
					isGone: isHostGone,
				},
				{
					name: "remote host's MAC changed",
					change: ip(`neigh replace ${h2.ip} lladdr ${OTHER_MAC} dev ${h1.uplink} nud permanent`),
					undo: ip(`neigh replace ${h2.ip} lladdr ${h2.mac} dev ${h1.uplink} nud reachable`),
					isGone: isHostGone,
				},
				{
					name: "pod's veth down",
					change: ip(`link set ${p2.veth} down`),
					undo: ip(`link set ${p2.veth} up`),
					isGone: () => !opened.pods().some((each) => each.slot === pod?.slot && each.generation === pod.generation),
				},
				{
					name: "nftables ruleset changed",
					change: "nft add table ip proof",
					undo: "nft delete table ip proof",
					isGone: () => opened.epoch !== epoch,
				},
				{
					name: "conntrack entry deleted",
					change: "conntrack -D -p udp --sport 1024 --dport 80",
					undo: ":",
					isGone: isFlowGone,
				},
			];
			const event = events[n % events.length] as Event;
			if (event.change.startsWith("conntrack"))
				await run(
					inNetns(
						h1.netns,
						`conntrack -I -p udp -s ${p1.ip} -d 10.244.2.1 --sport 1024 --dport 80 --timeout 60`.split(" "),
					),
				);
			if (event.isGone()) failures.push(`${event.name}: the decision was not there before`);
			const started = performance.now();
			const since = (): number => performance.now() - started;
			const changing = shell.run(event.change).then(() => void commandMs.push(since()));
			while (!event.isGone() && since() < LIMIT_MS) await setTimeout(LOOK_MS);
			const took = since();
			await changing;
			if (took >= LIMIT_MS) failures.push(`${event.name}: the decision was still there after ${LIMIT_MS} ms`);
			tookMs[event.name] = [...(tookMs[event.name] ?? []), took];
			await shell.run(event.undo);
			progress(`${n + 1} of ${amount} events`);
		}
		for (const agent of agents) await agent.stop();
	} finally {
		datapath?.close();
		await shell.close();
		await labDown(NAME);
		await crowd.close();
	}
	const figures: Record<string, number | string> = { "pods on the host": pods, "flows on the host": flows };
	const rows: [string, number[]][] = [
		...Object.entries(tookMs),
		["all events", Object.values(tookMs).flat()],
		// Started for each event: the kernel's change lies somewhere within.
		["of it the command that makes the change, from its start to its end", commandMs],
	];
	for (const [name, values] of rows)
		figures[`${name}, ms (median, p99, max)`] = [0.5, 0.99, 1].map((q) => quantile(values, q).toFixed(1)).join(", ");
	const details = Object.fromEntries(
		Object.entries(tookMs).map(([name, values]) => [`${name}, ms`, values.map((ms) => ms.toFixed(1))]),
	);
	return { figures, details: { ...details, "commands, ms": commandMs.map((ms) => ms.toFixed(1)) }, failures };
}

/** Waits in the host's namespace, so that a command starts at once, and its start is not taken for the agent's time. */
function openShell(host: LabHost): { run: (command: string) => Promise<void>; close: () => Promise<void> } {
	const [file = "", ...argv] = inNetns(host.netns, ["sh"]);
	const child = spawn(file, argv, { stdio: ["pipe", "pipe", "inherit"] });
	const answers = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
	const exited = once(child, "exit");
	return {
		run: async (command) => {
			child.stdin.write(`said=$(${command} 2>&1) && echo done || echo "failed: "$said\n`);
			const { value } = await answers.next();
			if (value !== "done") throw new Error(`"${command}" ${value ?? "ended its shell"}`);
		},
		close: async () => {
			child.stdin.end();
			await exited;
		},
	};
}

/** Veths whose other ends lie in one more namespace: to the agent each is a pod. */
async function addPods(host: LabHost, netns: string, count: number): Promise<void> {
	const links = Array.from(
		{ length: count },
		(_, i) => `link add many${i} mtu 1450 type veth peer name eth${i} netns ${netns}`,
	);
	const ups = Array.from({ length: count }, (_, i) => `link set many${i} master cni0 up`);
	await run(inNetns(host.netns, ["ip", "-batch", "-"]), { input: `${[...links, ...ups].join("\n")}\n` });
}

function keyOf(localIp: Ipv4, network: Ipv4, n: number): Uint8Array {
	const key = new Uint8Array(flowKey.size);
	const remoteIp = (network + 1 + (n % 200)) as Ipv4;
	const localPort = 1024 + Math.floor(n / 200);
	flowKey.write(new DataView(key.buffer), 0, { localIp, remoteIp, localPort, remotePort: 80, proto: UDP });
	return key;
}

/** Flows to 200 remote pods, as if they had been learned now. */
function fillFlows(datapath: Datapath, count: number, localIp: Ipv4, network: Ipv4): void {
	const [host] = datapath.hosts();
	const pod = datapath.pods().find(({ ip }) => ip === localIp);
	if (!host || !pod) throw new Error("Nothing was learned that flows could refer to");
	const verdict = (slot: number, generation: number) => ({
		confirmedAt: datapath.now,
		sampledAt: 0n,
		ref: (BigInt(generation) << 32n) | BigInt(slot),
		epoch: datapath.epoch,
		outerPort: 50_000,
		flags: 0,
	});
	const value = Buffer.alloc(flowLayout.size);
	flowLayout.write(new DataView(value.buffer, value.byteOffset), 0, {
		egress: verdict(host.slot, host.generation),
		ingress: verdict(pod.slot, pod.generation),
		packets: [0n, 0n],
		...NO_OTHER,
	});
	const keys = Array.from({ length: count }, (_, n) => keyOf(localIp, network, n));
	datapath.maps.filter.setBatch(Buffer.concat(keys), Buffer.concat(new Array(count).fill(value)), count);
}

function quantile(values: readonly number[], q: number): number {
	const sorted = [...values].sort((a, b) => a - b);
	return sorted[Math.min(sorted.length - 1, Math.floor(q * sorted.length))] ?? Number.NaN;
}
