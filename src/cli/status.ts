// oncache status: is it accelerating, how much, and why not the rest.
import { Command } from "commander";
import { getStatus } from "../agent/access.js";
import type { Counts, Status } from "../agent/api.js";
import { formatBytes, formatCount, formatShare, painter, table } from "./output.js";
import { type PlaceOptions, printJson, withPlace } from "./place.js";
import { programVersion } from "./version.js";

export function statusCommand(): Command {
	return withPlace(new Command("status"))
		.description("show what is accelerated, how much, and why not the rest")
		.option("--json", "machine-readable")
		.addHelpText(
			"after",
			"\nWorks with and without a running agent.\n\nExamples:\n  oncache status\n  oncache status --json",
		)
		.action(async (options: PlaceOptions) => {
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
		{ title: "address", text: (pod) => pod.addresses.join(" ") || "-" },
		{ title: "attached", text: (pod) => (pod.attached ? "yes" : `no: ${pod.why}`) },
	]);
	section("Caches", Object.entries(status.caches), [
		{ title: "cache", text: ([name]) => name },
		{ title: "entries", text: ([, use]) => String(use.entries), align: "right" },
		{ title: "capacity", text: ([, use]) => String(use.capacity), align: "right" },
	]);
	if (status.coherency) {
		const { rounds, evicted, flushes, forgotten, repaired, overruns, leases } = status.coherency;
		console.log(
			`\n${paint("bold", "Coherency")}\nlooked ${formatCount(rounds)} times: ${formatCount(evicted)} entries evicted; ` +
				`${formatCount(flushes)} ruleset changes; ${formatCount(forgotten)} flows gone with conntrack; ` +
				`${repaired} repairs; ${overruns} overruns; ${leases} hold learning paused`,
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
