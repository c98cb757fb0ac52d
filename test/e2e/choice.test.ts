// What an agent chooses when it is told nothing: the best that this kernel has, and the packets are fast with it.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import type { Worker } from "node:worker_threads";
import { probeFeatures } from "../../src/datapath/features.js";
import { startAgent } from "../../src/lab/agent.js";
import { answerAll, EXCHANGES, fastShare, MOST } from "./exchange.js";
import { end, statusOf, type TestLab, upWithAgents, watchedHosts } from "./world.js";

const { tcx, kfunc } = probeFeatures();
let world: TestLab;
let servers: Worker[] = [];

before(async () => {
	world = await upWithAgents("e2e-choice", undefined);
	servers = await answerAll(world.p2);
});
after(async () => {
	await Promise.all(servers.map(end));
	await world.down();
});

test("has what this kernel has", async () => {
	for (const host of watchedHosts(world.lab)) world.agents.push(await startAgent(host, { args: [] }));
	const { state, attach, markMode } = await statusOf(world.h1);
	const expected = { attach: tcx.ok ? "tcx" : "clsact", markMode: kfunc.ok ? "metadata" : "dscp" };
	assert.deepEqual({ state, attach, markMode }, { state: "accelerating", ...expected });
});

for (const [protocol, exchange] of Object.entries(EXCHANGES))
	test(`${protocol} is fast`, async () => {
		const share = await fastShare(world.h1, () => exchange(world.p1, world.p2));
		assert.ok(share > MOST, `only ${(100 * share).toFixed(1)} % fast`);
	});

test("the conntrack kfunc is found wherever the kernel has it, module or not", () => {
	// Every kernel that ONCache supports has it, unless it was built without.
	assert.deepEqual(kfunc, { ok: true, why: "" });
});
