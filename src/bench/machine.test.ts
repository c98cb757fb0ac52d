import assert from "node:assert/strict";
import { test } from "node:test";
import { parseCpuList } from "./machine.js";

test("parseCpuList() reads ranges and single numbers", () => {
	assert.deepEqual(parseCpuList("0-2,5"), [0, 1, 2, 5]);
	assert.deepEqual(parseCpuList("3"), [3]);
});
