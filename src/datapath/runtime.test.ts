import assert from "node:assert/strict";
import { test } from "node:test";
import { parseFdinfo } from "./runtime.js";

const PROGRAM = `pos:	0
flags:	02000002
prog_type:	3
prog_jited:	1
prog_id:	42
run_time_ns:	123456
run_cnt:	789
recursion_misses:	0
`;

test("parseFdinfo() reads id, runs and time of a program", () => {
	assert.deepEqual(parseFdinfo(PROGRAM), { id: 42, runs: 789, ns: 123456 });
});

test("parseFdinfo() passes over links, which name a program too, and other files", () => {
	assert.equal(parseFdinfo("pos:	0\nlink_type:	tcx\nlink_id:	7\nprog_id:	42\n"), undefined);
	assert.equal(parseFdinfo(""), undefined);
});
