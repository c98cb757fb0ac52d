import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { openLock } from "./lock.js";

const dir = mkdtempSync(join(tmpdir(), "oncache-lock-"));
after(() => rmSync(dir, { recursive: true }));

test("openLock() lets one in at a time", () => {
	const file = join(dir, "a");
	const lock = openLock(file);
	assert.throws(() => openLock(file), new RegExp(`process ${process.pid} is measuring already`));
	lock.close();
	openLock(file).close();
});

test("openLock() takes over from a process that died, also when its number is in use again", () => {
	const file = join(dir, "b");
	writeFileSync(file, `${process.pid} 1\n`);
	openLock(file).close();
	writeFileSync(file, "4194305 1\n"); // above the largest process number
	openLock(file).close();
});
