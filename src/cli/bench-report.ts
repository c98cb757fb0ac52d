// How a measurement looks in the terminal: tables, bars, and what they mean. Text only.
import { type BpfCost, fastShare, sumCounts } from "../bench/fastpath.js";
import type { GrowthPoint } from "../bench/growth.js";
import type { AgentCost } from "../bench/idle.js";
import {
	type BpfComparison,
	FAST_SHARE_MIN,
	type ScenarioResult,
	sharesOf,
	TITLES,
	type WorldResult,
} from "../bench/measure.js";
import { median, type Ratio } from "../bench/statistics.js";
import type { Unit } from "../bench/workload.js";
import type { WorldName } from "../bench/worlds.js";
import {
	bar,
	type Column,
	formatBitRate,
	formatBytes,
	formatCount,
	formatMs,
	formatRatio,
	formatShare,
	type Paint,
	table,
} from "./output.js";

const BAR_WIDTH = 40;
const ROUNDS_FOR_INTERVAL = 3;
const COLOURS = {
	host: "dim",
	overlay: "yellow",
	oncache: "green",
	direct: "green",
	baseline: "yellow",
} as const satisfies Record<WorldName, string>;

type Row = [name: WorldName, world: WorldResult];

/** Title, table with a row per world, and what our programs took. */
export function scenarioText(result: ScenarioResult, paint: Paint): string {
	const rows = rowsOf(result);
	const lines = [
		paint("bold", `${result.title} (${result.unit})`),
		table(rows, [
			{ title: "", text: ([name]) => worldTitle(name, result) },
			{ title: "MEDIAN", text: ([, { summary }]) => formatValue(summary.median, result.unit), align: "right" },
			{ title: "SPREAD", text: ([, { summary }]) => formatShare(summary.spread), align: "right" },
			{ title: "TO OVERLAY", text: ([, { toOverlay }]) => formatInterval(toOverlay), align: "right" },
			...(result.worlds.direct === undefined ? [] : [ratioColumn("TO DIRECT", ({ toDirect }) => toDirect)]),
			...(result.worlds.baseline === undefined ? [] : [ratioColumn("TO OTHER BUILD", ({ toBaseline }) => toBaseline)]),
			{ title: "TO HOST", text: ([, { toHost }]) => formatInterval(toHost), align: "right" },
			{
				title: "FAST PATH",
				text: ([, { fastShare }]) => (fastShare === null ? "" : formatShare(fastShare)),
				align: "right",
			},
		]),
	];
	if (result.bpf !== null) lines.push(bpfText(result.bpf));
	if (result.bpfToBaseline !== null) lines.push(comparisonText(result.bpfToBaseline));
	const fallback = fallbackText(result);
	if (fallback !== undefined) lines.push(fallback);
	if (!result.isOncache) lines.push(paint("red", refusal(result)));
	return lines.join("\n");
}

function ratioColumn(title: string, ratioOf: (world: WorldResult) => Ratio | null): Column<Row> {
	return { title, text: ([, world]) => formatInterval(ratioOf(world)), align: "right" };
}

function rowsOf({ worlds }: ScenarioResult): Row[] {
	return Object.entries(worlds) as Row[];
}

function worldTitle(name: WorldName, { isOncache }: ScenarioResult): string {
	return name === "oncache" && !isOncache ? "not ONCache" : TITLES[name];
}

function refusal(result: ScenarioResult): string {
	const shares = sharesOf(result);
	const worst = shares.some(Number.isNaN)
		? "no packet was counted"
		: `${formatShare(Math.min(...shares))} of the packets`;
	return `Not ONCache: on the fast path in the worst run: ${worst}; at least ${formatShare(FAST_SHARE_MIN)} are needed`;
}

const REASONS_SHOWN = 5;
/** Below it the reader wants to know why. */
const EXPLAINED_SHARE = 0.99;

/** Undefined when nearly all packets took the fast path, and without ONCache. */
function fallbackText({ worlds }: ScenarioResult): string | undefined {
	if (worlds.oncache === undefined) return undefined;
	const { fast, fallback } = sumCounts(worlds.oncache.packets ?? []);
	if (fastShare({ fast, fallback }) >= EXPLAINED_SHARE) return undefined;
	const total = Object.values(fallback).reduce((sum, count) => sum + count, fast);
	const reasons = Object.entries(fallback).sort(([, a], [, b]) => b - a);
	const shown = reasons.slice(0, REASONS_SHOWN).map(([reason, count]) => `${reason} ${formatShare(count / total)}`);
	return `Fallback, by reason: ${shown.join(", ") || "no packet was counted"}`;
}

function bpfText({ programs, nsPerPacket }: BpfCost): string {
	const each = Object.entries(programs).map(([name, { runs, ns }]) => {
		const perRun = runs > 0 ? `${Math.round(ns / runs)} ns` : "-";
		return `${name} ${perRun} (${formatCount(runs)} runs)`;
	});
	const sum = Number.isFinite(nsPerPacket) ? `${Math.round(nsPerPacket)} ns` : "-";
	return `BPF per packet, pod to pod: ${sum} = ${each.join(", ")}`;
}

function comparisonText({ oncache, baseline, ratio }: BpfComparison): string {
	const ns = (passes: readonly BpfCost[]): string => `${Math.round(median(passes.map((pass) => pass.nsPerPacket)))} ns`;
	return (
		`BPF per packet, in ${oncache.length} turns: ${ns(oncache)}, other build ${ns(baseline)}: ` +
		`${ratio.median.toFixed(3)} (${ratio.low.toFixed(3)}-${ratio.high.toFixed(3)}) of it`
	);
}

function formatInterval(ratio: Ratio | null): string {
	if (ratio === null) return "";
	if (ratio.rounds.length < ROUNDS_FOR_INTERVAL) return formatRatio(ratio.median);
	return `${formatRatio(ratio.median)} (${ratio.low.toFixed(2)}-${ratio.high.toFixed(2)})`;
}

function formatValue(value: number, unit: Unit): string {
	return unit === "bit/s" ? formatBitRate(value) : `${formatCount(value)}/s`;
}

/** One bar per world; the longest is the fastest. */
export function barsText(result: ScenarioResult, paint: Paint): string {
	const rows = rowsOf(result);
	const max = Math.max(...rows.map(([, { summary }]) => summary.median));
	const titleWidth = Math.max(...rows.map(([name]) => worldTitle(name, result).length));
	const lines = rows.map(([name, { summary, toHost }]) => {
		const filled = bar(summary.median, max, BAR_WIDTH);
		const share = toHost === null ? "" : `, ${formatShare(toHost.median)} of host`;
		const space = " ".repeat(BAR_WIDTH - filled.length + 1);
		return (
			`  ${worldTitle(name, result).padEnd(titleWidth)} ${paint(COLOURS[name], filled)}${space}` +
			`${formatValue(summary.median, result.unit)}${share}`
		);
	});
	return [paint("bold", result.title), ...lines].join("\n");
}

export function agentsText(agents: readonly AgentCost[], paint: Paint): string {
	const text = table(agents, [
		{ title: "AGENT ON", text: ({ host }) => host },
		{ title: "START TO READY", text: ({ readyMs }) => formatMs(readyMs), align: "right" },
		{ title: "IDLE CPU", text: ({ cpu }) => `${(cpu * 100).toFixed(2)} %`, align: "right" },
		{ title: "OVER", text: ({ seconds }) => formatMs(seconds * 1000), align: "right" },
		{ title: "RSS", text: ({ rssBytes }) => formatBytes(rssBytes), align: "right" },
	]);
	return `${paint("bold", "Agents without traffic")}\n${text}`;
}

/** How to read the tables. */
export const LEGEND =
	"Spread: distance of the quartiles. Ratios: median of the rounds' ratios, with the interval that holds the true\n" +
	"median with 95 % confidence (the extremes when there are fewer than six rounds). BPF: own pass, the kernel's\n" +
	"counting (about 50 ns per run) included; on the streams a packet is up to 64 KiB.";

/** One sentence, from the numbers. */
export function meaning(results: readonly ScenarioResult[]): string {
	const ours = results.flatMap(({ worlds }) => worlds.oncache ?? []);
	const gains = ours.flatMap(({ toOverlay }) => toOverlay?.median ?? []);
	const shares = ours.flatMap(({ toHost }) => toHost?.median ?? []);
	if (gains.length === 0 || shares.length === 0) return "Nothing was compared.";
	const [least, most] = [Math.min(...gains), Math.max(...gains)];
	return (
		`With ONCache the same overlay carries ${formatRatio(least)} to ${formatRatio(most)} what it carries alone, and ` +
		`reaches ${formatShare(Math.min(...shares))} to ${formatShare(Math.max(...shares))} of the network without any overlay.`
	);
}

export function growthText(points: readonly GrowthPoint[], paint: Paint): string {
	const base = median(points[0]?.nsPerPacket ?? [1]);
	const text = table(points, [
		{ title: "CACHED FLOWS", text: ({ flows }) => formatCount(flows), align: "right" },
		{ title: "EGRESS, NS PER PACKET", text: ({ nsPerPacket }) => median(nsPerPacket).toFixed(0), align: "right" },
		{
			title: "OF THREE",
			text: ({ nsPerPacket }) => `${Math.min(...nsPerPacket)}-${Math.max(...nsPerPacket)}`,
			align: "right",
		},
		{ title: "TO ONE FLOW", text: ({ nsPerPacket }) => formatRatio(median(nsPerPacket) / base), align: "right" },
	]);
	return `${paint("bold", "A hit as the filter cache fills (single test runs on random flows)")}\n${text}`;
}
