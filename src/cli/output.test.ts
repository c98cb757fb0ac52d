import assert from "node:assert/strict";
import { test } from "node:test";
import {
	bar,
	formatBitRate,
	formatBytes,
	formatCount,
	formatMs,
	formatRatio,
	formatShare,
	painter,
	progress,
	table,
} from "./output.js";

test("table() aligns columns, numbers to the right, whatever is coloured", () => {
	const paint = painter({ isTTY: true }, {});
	const rows = [
		{ name: "veth1", packets: 5 },
		{ name: paint("green", "v2"), packets: 12345 },
	];
	const text = table(rows, [
		{ title: "VETH", text: (row) => row.name },
		{ title: "PACKETS", text: (row) => String(row.packets), align: "right" },
	]);
	assert.deepEqual(text.split("\n"), ["VETH   PACKETS", "veth1        5", "\x1b[32mv2\x1b[0m       12345"]);
});

test("table() of no rows is its titles", () => {
	assert.equal(table([], [{ title: "VETH", text: String }]), "VETH");
});

test("bar() is as long as the share, in eighths of a character, never longer than its width", () => {
	assert.equal(bar(1, 2, 4), "██");
	assert.equal(bar(5, 16, 4), "█▎");
	assert.equal(bar(9, 2, 4), "████");
	assert.equal(bar(-1, 2, 4), "");
	assert.equal(bar(1, 0, 4), "");
});

test("painter() colours for a terminal only, and not with NO_COLOR or a dumb terminal", () => {
	assert.equal(painter({ isTTY: true }, {})("red", "x"), "\x1b[31mx\x1b[0m");
	assert.equal(painter({ isTTY: true }, { NO_COLOR: "1" })("red", "x"), "x");
	assert.equal(painter({ isTTY: true }, { TERM: "dumb" })("red", "x"), "x");
	assert.equal(painter({}, {})("red", "x"), "x");
});

test("numbers have three significant digits and a unit", () => {
	assert.deepEqual([0, 999, 1536, 1048575].map(formatBytes), ["0 B", "999 B", "1.50 KiB", "1.00 MiB"]);
	assert.deepEqual([7, 12345, 1234567].map(formatCount), ["7", "12.3 k", "1.23 M"]);
	assert.equal(formatBitRate(14_260_000_000), "14.3 Gbit/s");
	assert.deepEqual([0.0421, 2, 1500, 90_000].map(formatMs), ["42.1 us", "2.00 ms", "1.50 s", "1 min 30 s"]);
	assert.equal(formatRatio(1.4567), "1.46x");
	assert.equal(formatShare(0.97312), "97.3 %");
});

test("a number that is none is a dash", () => {
	assert.deepEqual(
		[formatBytes, formatCount, formatRatio, formatShare].map((format) => format(Number.NaN)),
		[...["-", "-", "-", "-"]],
	);
});

test("progress() rewrites one line of a terminal, cut to its width, and takes it away", () => {
	const written: string[] = [];
	const stream = { isTTY: true, columns: 6, write: (text: string) => written.push(text) > 0 };
	const line = progress({ stream });
	line.update("round 1 of 7");
	line.done();
	assert.deepEqual(written, ["\r\x1b[Kround", "\r\x1b[K"]);
});

test("progress() writes a plain line at most every 2 s elsewhere", () => {
	const written: string[] = [];
	let nowMs = 0;
	const line = progress({ stream: { write: (text: string) => written.push(text) > 0 }, now: () => nowMs });
	for (nowMs of [0, 1999, 2000, 2500]) line.update(`at ${nowMs}`);
	line.done();
	assert.deepEqual(written, ["at 0\n", "at 2000\n"]);
});
