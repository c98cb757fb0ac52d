import assert from "node:assert/strict";
import { test } from "node:test";
import { chooseWays } from "./ways.js";

const yes = { ok: true, why: "" };
const no = { ok: false, why: "Not there" };
const auto = { attach: "auto", markMode: "auto" } as const;

test("chooseWays() takes the better way where the kernel has it", () => {
	assert.deepEqual(chooseWays(auto, { tcx: yes, kfunc: yes }), { attach: "tcx", markMode: "metadata" });
});

test("chooseWays() takes dscp mode without the conntrack kfunc, and clsact without tcx", () => {
	assert.deepEqual(chooseWays(auto, { tcx: no, kfunc: no }), { attach: "clsact", markMode: "dscp" });
});

test("chooseWays() does as it is told", () => {
	const told = { attach: "clsact", markMode: "dscp" } as const;
	assert.deepEqual(chooseWays(told, { tcx: yes, kfunc: yes }), told);
});
