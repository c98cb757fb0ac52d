import assert from "node:assert/strict";
import { test } from "node:test";
import { cpuTicks, rssBytes } from "./idle.js";

test("cpuTicks() adds user and system time, whatever the process is called", () => {
	const stat = "77 (a) S 9 (b) S 1 77 77 0 -1 4194304 1000 0 0 0 250 40 0 0 20 0 11 0 12345 0";
	assert.equal(cpuTicks(stat), 290);
});

test("rssBytes() is the resident set in bytes", () => {
	assert.equal(rssBytes("Name:	node\nVmHWM:	   70000 kB\nVmRSS:	   65536 kB\n"), 64 * 1024 * 1024);
});
