import assert from "node:assert/strict";
import { test } from "node:test";
import { chooseWays, impossible } from "./ways.js";

const yes = { ok: true, why: "" };
const no = { ok: false, why: "Not there" };
const auto = { attach: "auto", markMode: "auto" } as const;

test("chooseWays() takes the better way where the kernel has it", () => {
	assert.deepEqual(chooseWays(auto, { tcx: yes, kfunc: yes, zones: yes }), { attach: "tcx", markMode: "metadata" });
});

test("chooseWays() takes dscp mode without the conntrack kfunc, and clsact without tcx", () => {
	assert.deepEqual(chooseWays(auto, { tcx: no, kfunc: no, zones: no }), { attach: "clsact", markMode: "dscp" });
});

test("chooseWays() takes dscp mode for a switch whose zones the kernel cannot be asked about", () => {
	const features = { tcx: yes, kfunc: yes, zones: no };
	assert.equal(chooseWays(auto, features, true).markMode, "dscp");
	assert.equal(chooseWays(auto, features, false).markMode, "metadata");
	assert.equal(chooseWays(auto, { ...features, zones: yes }, true).markMode, "metadata");
});

test("chooseWays() does as it is told", () => {
	const told = { attach: "clsact", markMode: "dscp" } as const;
	assert.deepEqual(chooseWays(told, { tcx: yes, kfunc: yes, zones: yes }), told);
});

test("impossible() refuses what was asked for and is not there", () => {
	const told = { attach: "tcx", markMode: "metadata" } as const;
	assert.equal(impossible(told, { tcx: yes, kfunc: yes }), undefined);
	assert.match(impossible(told, { tcx: no, kfunc: yes }) ?? "", /tcx.*use clsact/);
	assert.match(impossible(told, { tcx: yes, kfunc: no }) ?? "", /bpf_skb_ct_lookup.*use dscp/);
	assert.equal(impossible({ attach: "clsact", markMode: "dscp" }, { tcx: no, kfunc: no }), undefined);
});
