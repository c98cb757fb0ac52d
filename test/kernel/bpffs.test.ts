// ensureBpffs() in a mount namespace of its own, where /sys is an empty tmpfs with /sys/fs/bpf in it.
import assert from "node:assert/strict";
import { existsSync, mkdirSync, mkdtempSync, rmdirSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { it } from "node:test";
import { ensureBpffs, isBpffs } from "../../src/kernel/bpffs.js";
import { CLONE_NEWNS, MS_PRIVATE, MS_REC, mount, unshare } from "../../src/kernel/libc.js";

unshare(CLONE_NEWNS);
mount("none", "/", null, MS_REC | MS_PRIVATE);
mount("tmpfs", "/sys", "tmpfs");
mkdirSync("/sys/fs/bpf", { recursive: true });

it("mounts the standard bpffs when it is missing, once, and makes a private directory on it", () => {
	assert.equal(isBpffs("/sys/fs/bpf"), false);
	ensureBpffs("/sys/fs/bpf/oncache/node-1");
	assert.equal(isBpffs("/sys/fs/bpf/oncache/node-1"), true);
	assert.equal(statSync("/sys/fs/bpf/oncache").mode & 0o777, 0o700);
	ensureBpffs("/sys/fs/bpf/oncache/node-1");
	ensureBpffs("/sys/fs/bpf/oncache/node-2");
	assert.equal(existsSync("/sys/fs/bpf/oncache/node-1"), true, "nothing was mounted over it");
});

it("accepts a bpffs that is mounted elsewhere", () => {
	const dir = mkdtempSync(join(tmpdir(), "oncache-bpffs-"));
	try {
		assert.throws(() => ensureBpffs(join(dir, "pins")), /not on a bpffs; name a directory below \/sys\/fs\/bpf/);
		assert.equal(existsSync(join(dir, "pins")), false, "nothing is left of the attempt");
	} finally {
		rmdirSync(dir);
	}
	mkdirSync("/sys/elsewhere");
	mount("bpf", "/sys/elsewhere", "bpf");
	ensureBpffs("/sys/elsewhere/pins");
	assert.equal(isBpffs("/sys/elsewhere/pins"), true);
});

it("says that a bpffs allows no dots in names", () => {
	assert.throws(() => ensureBpffs("/sys/fs/bpf/a.b"), /Cannot create "\/sys\/fs\/bpf\/a\.b": EPERM.*no dots in names/);
});
