// oncache status --all-nodes, kubectl oncache: the whole cluster at a glance.
import type { Counts, Status } from "../agent/api.js";
import { type NodeReport, statusOfAllNodes } from "../kube/all-nodes.js";
import { formatCount, formatShare, painter, progress, table } from "./output.js";
import { printJson } from "./place.js";

export interface ClusterOptions {
	kubeconfig?: string;
	context?: string;
	namespace?: string;
	selector?: string;
}

export async function printAllNodes(options: ClusterOptions & { json?: boolean }, signal: AbortSignal): Promise<void> {
	const { kubeconfig, context, namespace, selector } = options;
	const shown = progress();
	let nodes: NodeReport[];
	try {
		nodes = await statusOfAllNodes({
			kubeconfig,
			context,
			namespace,
			selector,
			signal,
			onProgress: (done, all) => shown.update(`Asking the nodes: ${done} of ${all}`),
		});
	} finally {
		shown.done();
	}
	if (options.json) printJson({ nodes });
	else print(nodes);
	if (nodes.some(({ status }) => status === null)) process.exitCode = 1;
}

const COLOURS = { accelerating: "green", degraded: "yellow", off: "red" } as const;

function print(nodes: readonly NodeReport[]): void {
	const paint = painter(process.stdout);
	const of = (read: (status: Status) => string) => (report: NodeReport) => (report.status ? read(report.status) : "-");
	console.log(
		table(nodes, [
			{ title: "node", text: ({ node }) => node },
			{
				title: "state",
				text: ({ status }) => (status ? paint(COLOURS[status.state], status.state) : paint("red", "unknown")),
			},
			{ title: "version", text: of(({ version }) => version) },
			{ title: "network", text: of(({ network }) => network.name) },
			{ title: "tunnels", text: of(({ tunnels }) => ratio(tunnels, ({ accelerated }) => accelerated)), align: "right" },
			{ title: "pods", text: of(({ pods }) => ratio(pods, ({ attached }) => attached)), align: "right" },
			{ title: "flows", text: of(({ caches }) => formatCount(caches.filter.entries)), align: "right" },
			{ title: "fast", text: of(({ packets }) => share(packets.egress, packets.ingress)), align: "right" },
		]),
	);
	const remarks = nodes.flatMap(({ node, status, problem }) =>
		[...(problem === null ? [] : [problem]), ...(status?.why ?? []), ...(status?.kubernetes?.problems ?? [])].map(
			(text) => `${node}: ${text}`,
		),
	);
	if (remarks.length > 0) console.log(`\n${remarks.join("\n")}`);
	const asked = nodes.filter(({ status }) => status !== null);
	const accelerating = asked.filter(({ status }) => status?.state === "accelerating").length;
	console.log(`\n${accelerating} of ${nodes.length} nodes accelerating, ${nodes.length - asked.length} not asked`);
}

function ratio<T>(all: readonly T[], is: (each: T) => boolean): string {
	return `${all.filter(is).length}/${all.length}`;
}

function share(...counts: Counts[]): string {
	const fast = counts.reduce((sum, each) => sum + each.fast, 0);
	const total = counts.reduce((sum, { fallback }) => sum + Object.values(fallback).reduce((a, b) => a + b, 0), fast);
	return total > 0 ? formatShare(fast / total) : "-";
}
