// How results look in a terminal: tables, bars, numbers, colours, progress. Text in, text out.
import type { WriteStream } from "node:tty";

export interface Column<Row> {
	title: string;
	text: (row: Row) => string;
	/** Default "left"; numbers read better on the right. */
	align?: "left" | "right";
}

/** Lines of a table: titles first, two spaces between columns. Colours do not disturb the alignment. */
export function table<Row>(rows: readonly Row[], columns: readonly Column<Row>[]): string {
	const lines = [columns.map(({ title }) => title), ...rows.map((row) => columns.map(({ text }) => text(row)))];
	const widths = columns.map((_, at) => Math.max(...lines.map((cells) => visibleLength(cells[at] ?? ""))));
	return lines
		.map((cells) => cells.map((cell, at) => pad(cell, widths[at] ?? 0, columns[at]?.align)).join("  "))
		.map((line) => line.trimEnd())
		.join("\n");
}

function pad(text: string, width: number, align: Column<never>["align"] = "left"): string {
	const space = " ".repeat(Math.max(0, width - visibleLength(text)));
	return align === "left" ? text + space : space + text;
}

function visibleLength(text: string): number {
	// biome-ignore lint/suspicious/noControlCharactersInRegex: escape sequences begin with one
	return text.replace(/\x1b\[[0-9;]*m/g, "").length;
}

const EIGHTHS = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];

/** A bar of `value / max` of `width` characters, in steps of an eighth of a character. */
export function bar(value: number, max: number, width: number): string {
	const share = max > 0 ? Math.min(1, Math.max(0, value / max)) : 0;
	const eighths = Math.round(share * width * 8);
	return "█".repeat(eighths >> 3) + EIGHTHS[eighths & 7];
}

const STYLES = { bold: 1, dim: 2, red: 31, green: 32, yellow: 33, cyan: 36 };
export type Style = keyof typeof STYLES;
export type Paint = (style: Style, text: string) => string;

/** Colours only for a terminal, and not with NO_COLOR (https://no-color.org). */
export function painter(stream: { isTTY?: boolean | undefined }, env: NodeJS.ProcessEnv = process.env): Paint {
	const isColoured = stream.isTTY === true && !env.NO_COLOR && env.TERM !== "dumb";
	return (style, text) => (isColoured ? `\x1b[${STYLES[style]}m${text}\x1b[0m` : text);
}

/** 1536 -> "1.50 KiB" */
export function formatBytes(bytes: number): string {
	return scaled(bytes, 1024, ["B", "KiB", "MiB", "GiB", "TiB", "PiB"]);
}

/** 1234567 -> "1.23 M" */
export function formatCount(count: number): string {
	return scaled(count, 1000, ["", "k", "M", "G", "T"]);
}

/** 12345678 -> "12.3 Mbit/s" */
export function formatBitRate(bitsPerSecond: number): string {
	return scaled(bitsPerSecond, 1000, ["bit/s", "kbit/s", "Mbit/s", "Gbit/s", "Tbit/s"]);
}

/** 0.0421 -> "42.1 us", 1500 -> "1.50 s", 90000 -> "1 min 30 s" */
export function formatMs(ms: number): string {
	if (ms >= 60_000) return `${Math.floor(ms / 60_000)} min ${Math.floor((ms % 60_000) / 1000)} s`;
	return scaled(ms * 1e6, 1000, ["ns", "us", "ms", "s"]);
}

/** 1.4567 -> "1.46x" */
export function formatRatio(ratio: number): string {
	return Number.isFinite(ratio) ? `${ratio.toFixed(2)}x` : "-";
}

/** 0.9731 -> "97.3 %" */
export function formatShare(share: number): string {
	return Number.isFinite(share) ? `${(share * 100).toFixed(1)} %` : "-";
}

/** Three significant digits and the unit that keeps them before the point; whole numbers in the first unit. */
function scaled(value: number, base: number, units: readonly string[]): string {
	if (!Number.isFinite(value)) return "-";
	let step = 0;
	let rest = value;
	while (Math.round(Math.abs(rest)) >= base && step < units.length - 1) {
		rest /= base;
		step += 1;
	}
	const size = Number(Math.abs(rest).toPrecision(3));
	const digits = size >= 100 ? 0 : size >= 10 ? 1 : 2;
	const number = step === 0 && Number.isInteger(rest) ? String(rest) : rest.toFixed(digits);
	return `${number} ${units[step]}`.trimEnd();
}

export interface Progress {
	update(text: string): void;
	/** Takes the line away, so that results follow on a clean one. */
	done(): void;
}

export interface ProgressOptions {
	stream?: Pick<WriteStream, "write"> & { isTTY?: boolean; columns?: number };
	/** Where the stream is no terminal: at most one line in so many milliseconds. */
	plainIntervalMs?: number;
	/** Milliseconds. */
	now?: () => number;
}

/** One line that says what is going on: rewritten in place on a terminal, else a line at most every 2 s. */
export function progress({
	stream = process.stderr,
	plainIntervalMs = 2000,
	now = Date.now,
}: ProgressOptions = {}): Progress {
	const isTerminal = stream.isTTY === true;
	let lastAt = Number.NEGATIVE_INFINITY;
	return {
		update(text) {
			if (isTerminal) stream.write(`\r\x1b[K${text.slice(0, (stream.columns ?? 80) - 1)}`);
			else if (now() - lastAt >= plainIntervalMs) {
				stream.write(`${text}\n`);
				lastAt = now();
			}
		},
		done() {
			if (isTerminal) stream.write("\r\x1b[K");
		},
	};
}
