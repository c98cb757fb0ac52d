// oncache status: is it accelerating, how much, and why not the rest.
import { Command } from "commander";
import { getStatus } from "../agent/access.js";
import type { Counts, KubernetesStatus, PodStatus, Status } from "../agent/api.js";
import { formatBytes, formatCount, formatMs, formatShare, painter, table } from "./output.js";
import { type PlaceOptions, printJson, withPlace } from "./place.js";
import type { CommandContext } from "./program.js";
import type { ClusterOptions } from "./status-all-nodes.js";
import { programVersion } from "./version.js";

export function statusCommand({ signal }: CommandContext): Command {
	return withPlace(new Command("status"))
		.description("show what is accelerated, how much, and why not the rest")
		.option("--all-nodes", "of every node of a Kubernetes cluster, from anywhere (kubectl oncache)")
		.option("--kubeconfig <file>", "for --all-nodes (default: $KUBECONFIG, else ~/.kube/config)")
		.option("--context <name>", "for --all-nodes: of the kubeconfig")
		.option("-n, --namespace <name>", "for --all-nodes: of the agents' pods (default: all are looked through)")
		.option("--selector <labels>", "for --all-nodes: of the agents' pods (default: as the chart labels them)")
		.option("--json", "machine-readable")
		.addHelpText(
			"after",
			`
Works with and without a running agent.

--all-nodes asks each node's agent by "oncache status --json" in its pod, as kubectl exec does: it takes the right to list nodes
and pods and to get and create pods/exec. The exit code is 1 when a node could not be asked.

Examples:
  oncache status
  oncache status --json
  oncache status --all-nodes --context production
  kubectl oncache`,
		)
		.action(async (options: PlaceOptions & ClusterOptions & { allNodes?: boolean }) => {
			if (options.allNodes) {
				await (await import("./status-all-nodes.js")).printAllNodes(options, signal);
				return;
			}
			const status = await getStatus(options, programVersion());
			if (options.json) printJson(status);
			else print(status);
		});
}

function print(status: Status): void {
	const paint = painter(process.stdout);
	const colour = { accelerating: "green", degraded: "yellow", off: "red" } as const;
	console.log(paint(colour[status.state], status.state));
	for (const why of status.why) console.log(`  ${why}`);
	const agent = status.agent.running ? `process ${status.agent.pid}` : "not running";
	console.log(
		`\noncache ${status.version}, kernel ${status.kernel}, agent ${agent}, attached by ${status.attach ?? "nothing"}, ` +
			`learning ${status.learning ? "on" : "off"}, using ${status.using ? "on" : "off"}`,
	);
	section("Tunnels", status.tunnels, [
		{ title: "device", text: (tunnel) => tunnel.name },
		{ title: "kind", text: (tunnel) => tunnel.kind },
		{ title: "VNI", text: (tunnel) => String(tunnel.vni), align: "right" },
		{ title: "port", text: (tunnel) => String(tunnel.port), align: "right" },
		{ title: "uplink", text: (tunnel) => tunnel.uplink ?? "-" },
		{ title: "accelerated", text: (tunnel) => (tunnel.accelerated ? "yes" : `no: ${tunnel.why}`) },
	]);
	section("Pods", status.pods, [
		{ title: "veth", text: (pod) => pod.veth },
		...(status.pods.some(({ pod }) => pod !== null) ? [POD_NAME] : []),
		{ title: "address", text: (pod) => pod.addresses.join(" ") || "-" },
		{ title: "attached", text: (pod) => (pod.attached ? "yes" : `no: ${pod.why}`) },
	]);
	section("Caches", Object.entries(status.caches), [
		{ title: "cache", text: ([name]) => name },
		{ title: "entries", text: ([, use]) => String(use.entries), align: "right" },
		{ title: "capacity", text: ([, use]) => String(use.capacity), align: "right" },
	]);
	console.log(`\n${paint("bold", "Network")}\n${status.network.name}: ${status.network.plan}`);
	if (status.kubernetes) printKubernetes(status.kubernetes);
	if (status.coherency) {
		const { rounds, evicted, flushes, forgotten, repaired, overruns, leases, verified } = status.coherency;
		console.log(
			`\n${paint("bold", "Coherency")}\nlooked ${formatCount(rounds)} times: ${formatCount(evicted)} entries evicted; ` +
				`${formatCount(flushes)} ruleset changes; ${formatCount(forgotten)} flows gone with conntrack; ` +
				`${repaired} repairs; ${overruns} overruns; ${leases} hold learning paused` +
				(verified
					? `; verified ${formatCount(verified.runs)} times: ${formatCount(verified.differences)} differences`
					: ""),
		);
	}
	if (status.cni && status.cni.adds + status.cni.dels + status.cni.missed > 0) {
		const { attachments, adds, dels, notAttached, failed, missed, lastMissed } = status.cni;
		console.log(
			`\n${paint("bold", "CNI plugin")}\n${attachments} pods announced; ADD ${adds}, DEL ${dels}; ${notAttached} not accelerated; ` +
				`${failed} failed; ${missed} missed${lastMissed === null ? "" : `, the last one: ${lastMissed}`}`,
		);
	}
	section("Packets", ["egress", "ingress"] as const, [
		{ title: "direction", text: (direction) => direction },
		{ title: "fast", text: (direction) => formatCount(status.packets[direction].fast), align: "right" },
		{ title: "bytes", text: (direction) => formatBytes(status.bytes[direction].fast), align: "right" },
		{ title: "share", text: (direction) => share(status.packets[direction]), align: "right" },
		{ title: "fallback by reason", text: (direction) => reasons(status.packets[direction]) },
	]);
}

const POD_NAME = {
	title: "pod",
	text: ({ pod }: PodStatus) => (pod ? `${pod.namespace}/${pod.name}` : "-"),
};

function printKubernetes({ server, node, pods, ageMs, sources, problems, optedOut }: KubernetesStatus): void {
	const heard = ageMs === null ? "not heard of yet" : `last heard ${formatMs(ageMs)} ago`;
	const objects = sources.map(({ name, objects }) => `${objects} ${name}`).join(", ");
	console.log(
		`\n${painter(process.stdout)("bold", "Kubernetes")}\nnode ${node}, API server ${server ?? "-"}, ${heard}`,
	);
	console.log(
		`${objects || "nothing read yet"}${pods === "node" ? " (of this node)" : ""}; ${optedOut} addresses opted out`,
	);
	for (const problem of problems) console.log(`  ${problem}`);
}

function section<Row>(title: string, rows: readonly Row[], columns: Parameters<typeof table<Row>>[1]): void {
	console.log(`\n${painter(process.stdout)("bold", title)}`);
	console.log(rows.length > 0 ? table(rows, columns) : "none");
}

function share({ fast, fallback }: Counts): string {
	const total = fast + Object.values(fallback).reduce((sum, count) => sum + count, 0);
	return total > 0 ? formatShare(fast / total) : "-";
}

function reasons({ fallback }: Counts): string {
	const sorted = Object.entries(fallback).sort(([, a], [, b]) => b - a);
	return sorted.map(([reason, count]) => `${reason} ${formatCount(count).trim()}`).join(", ") || "-";
}
