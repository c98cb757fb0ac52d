// A switch that is absent, dead or silent: said in one sentence, and never waited for longer than the limit.
import assert from "node:assert/strict";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { Worker } from "node:worker_threads";
import { FIND_SWITCH, readSwitch } from "./switch.js";
import { askSwitch } from "./tool.js";

function runDir(t: { after(body: () => void): void }): string {
	const dir = mkdtempSync(join(tmpdir(), "oncache-ovs-"));
	t.after(() => rmSync(dir, { recursive: true }));
	return dir;
}

test("askSwitch() says which package is missing", (t) => {
	const dir = runDir(t);
	const { PATH } = process.env;
	t.after(() => {
		process.env.PATH = PATH;
	});
	process.env.PATH = dir;
	assert.throws(
		() => askSwitch("ovs-vsctl", ["show"], { runDir: dir }),
		/ovs-vsctl is not installed; install the package/,
	);
});

test("readSwitch() says that nobody answers where there is no database, or its socket is dead", async (t) => {
	const dir = runDir(t);
	assert.throws(
		() => readSwitch({ ...FIND_SWITCH, runDir: dir }),
		/Cannot ask Open vSwitch at .*database connection failed/,
	);
	// A server that was killed leaves its socket.
	const killed = new Worker(
		`const { createServer } = require("node:net"); createServer().listen(${JSON.stringify(`${dir}/alive.sock`)}, () => {
			require("node:fs").linkSync(${JSON.stringify(`${dir}/alive.sock`)}, ${JSON.stringify(`${dir}/db.sock`)}); process.exit();
		})`,
		{ eval: true },
	);
	await once(killed, "exit");
	assert.throws(
		() => readSwitch({ ...FIND_SWITCH, runDir: dir }),
		/Cannot ask Open vSwitch at .*database connection failed/,
	);
});

test("readSwitch() gives up when a database takes the connection and says nothing", async (t) => {
	const dir = runDir(t);
	const silent = createServer().listen(`${dir}/db.sock`);
	await once(silent, "listening");
	t.after(() => silent.close());
	assert.throws(
		() => readSwitch({ ...FIND_SWITCH, runDir: dir }),
		/Cannot ask Open vSwitch at .*: it did not answer within 5 s/,
	);
});
