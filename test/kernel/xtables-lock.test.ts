// watchXtablesLock() and the real iptables-legacy, in a network namespace and with a /run of their own.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { existsSync, rmSync } from "node:fs";
import { it } from "node:test";
import { CLONE_NEWNET, CLONE_NEWNS, MS_PRIVATE, MS_REC, mount, unshare } from "../../src/kernel/libc.js";
import { watchXtablesLock, XTABLES_LOCK } from "../../src/kernel/xtables-lock.js";
import { patiently } from "../../src/lab/patience.js";

unshare(CLONE_NEWNET | CLONE_NEWNS);
mount("none", "/", null, MS_REC | MS_PRIVATE);
mount("tmpfs", "/run", "tmpfs");

const BOUND = { timeout: patiently(20_000) };

it(
	"reports every command of the old iptables, from the first that makes the lock, and after the lock was removed",
	BOUND,
	async () => {
		assert.ok(!existsSync(XTABLES_LOCK));
		const stop = new AbortController();
		let reported = () => {};
		let reports = 0;
		watchXtablesLock({
			signal: stop.signal,
			onChange: (changes) => {
				assert.deepEqual([...changes], ["ruleset"]);
				reports++;
				reported();
			},
		});
		/** What is reported from the command's beginning on may come in several parts. */
		const change = (tool: string, ...argv: string[]) =>
			new Promise<void>((resolve) => {
				reported = resolve;
				execFileSync(tool, argv, { stdio: ["ignore", "ignore", "pipe"] });
			});
		await change("iptables-legacy", "-A", "FORWARD", "-j", "ACCEPT");
		await change("iptables-legacy", "-D", "FORWARD", "-j", "ACCEPT");
		await change("ip6tables-legacy", "-P", "FORWARD", "DROP");
		rmSync(XTABLES_LOCK);
		await change("iptables-legacy", "-F");
		await change("iptables-legacy", "-F");
		stop.abort();
		const before = reports;
		execFileSync("iptables-legacy", ["-F"]);
		await new Promise(setImmediate);
		assert.equal(reports, before, "nothing after the end");
	},
);
