// The generated layouts are those of the object that is loaded.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { generate } from "../../src/datapath/generate.js";
import { flow, flowKey, host, LESSONS, pod, REASONS, verdict } from "../../src/datapath/layout.js";

const root = fileURLToPath(new URL("../../..", import.meta.url));

test("src/datapath/layout.ts is what bpf/oncache.h says; if not: npm run generate", () => {
	assert.equal(readFileSync(`${root}src/datapath/layout.ts`, "utf8"), generate());
});

test("the verdicts of a flow fill a cache line, and keys have no unnamed padding", () => {
	assert.deepEqual([flowKey.size, verdict.size, flow.size, pod.size, host.size], [16, 32, 128, 64, 320]);
	assert.equal(host.offset.ipId % 64, 0, "what every packet writes is apart from what every packet reads");
});

test("reasons and lessons only grow at the end: pinned counters keep their meaning", () => {
	assert.deepEqual(REASONS.slice(0, 5), ["fast", "paused", "not_ipv4", "vlan", "truncated"]);
	assert.deepEqual(LESSONS.slice(0, 2), ["learned", "confirmed"]);
});

test("what is written with a layout is read back", () => {
	const view = new DataView(new ArrayBuffer(flowKey.size));
	const key = { localIp: 0x0af40102, remoteIp: 0x0af40202, localPort: 40000, remotePort: 80, proto: 6 } as never;
	flowKey.write(view, 0, key);
	assert.deepEqual(flowKey.read(view), key);
	assert.equal(Buffer.from(view.buffer).toString("hex"), "0af401020af402029c40005006000000");
});
