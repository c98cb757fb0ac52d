// The benchmark and the demo as a user starts them, short. What they measure is reported, not asserted.
import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { fileURLToPath } from "node:url";
import type { BenchResult } from "../../src/bench/bench.js";

const ROOT = fileURLToPath(new URL("../../..", import.meta.url));
const ONCACHE = join(ROOT, "bin/oncache");
const SHORT = ["--rounds", "1", "--seconds", "1"];
const dir = mkdtempSync(join(tmpdir(), "oncache-bench-test-"));
after(() => rmSync(dir, { recursive: true }));

interface Ended {
	code: number | null;
	stdout: string;
	stderr: string;
}

interface Started {
	child: ChildProcess;
	ended: Promise<Ended>;
}

/** In a process group of its own, as a shell starts a job. */
function start(args: readonly string[]): Started {
	const child = spawn(ONCACHE, args, { stdio: ["ignore", "pipe", "pipe"], detached: true, cwd: dir });
	const out = { stdout: "", stderr: "" };
	child.stdout.setEncoding("utf8").on("data", (text: string) => {
		out.stdout += text;
	});
	child.stderr.setEncoding("utf8").on("data", (text: string) => {
		out.stderr += text;
	});
	const ended = once(child, "close").then(([code]) => ({ code: code as number | null, ...out }));
	return { child, ended };
}

function run(...args: string[]): Promise<Ended> {
	return start(args).ended;
}

/** Resolves when the command says `words` on stderr; rejects when it ends before. */
function says({ child, ended }: Started, words: RegExp): Promise<void> {
	return new Promise((resolve, reject) => {
		let said = "";
		child.stderr?.on("data", (text: string) => {
			said += text;
			if (words.test(said)) resolve();
		});
		ended.then(({ stderr }) => reject(new Error(`It ended without saying ${words}: ${stderr}`)), reject);
	});
}

/** Of labs called `name`, and of the benchmark itself. */
function leftovers(name: string): string[] {
	const inDir = (path: string, pattern: RegExp): string[] =>
		existsSync(path) ? readdirSync(path).filter((entry) => pattern.test(entry)) : [];
	return [
		...inDir("/run/netns", new RegExp(`^oc-${name}-`)),
		...inDir("/sys/fs/bpf", new RegExp(`^oncache-lab-${name}-`)),
		...inDir("/run/oncache", new RegExp(`^lab-${name}-`)),
		...inDir("/run", /^oncache-bench/),
		...inDir(tmpdir(), /^oncache-nginx-/),
	];
}

function statisticsAreOn(): boolean {
	return readFileSync("/proc/sys/kernel/bpf_stats_enabled", "utf8").trim() === "1";
}

test("bench measures the three worlds, proves the fast path and leaves nothing behind", async () => {
	const file = join(dir, "bench.json");
	const scenarios = "tcp-rr,tcp-stream,tcp-crr,udp-rr-miss";
	const { code, stdout, stderr } = await run("bench", ...SHORT, "--scenarios", scenarios, "--json", file);
	assert.equal(code, 0, stderr);
	const result = JSON.parse(readFileSync(file, "utf8")) as BenchResult;
	assert.equal(result.scenarios.map(({ name }) => name).join(), scenarios);
	for (const { name, worlds, bpf } of result.scenarios) {
		for (const world of Object.values(worlds)) assert.ok((world.values[0] ?? 0) > 0, `${name} measured nothing`);
		assert.ok((bpf?.programs.egress.runs ?? 0) > 0, `${name}: the programs were not counted`);
	}
	const [rr, stream, , miss] = result.scenarios;
	for (const scenario of [rr, stream]) assert.ok((scenario?.worlds.oncache?.fastShare ?? 0) >= 0.95);
	assert.equal(rr?.worlds.overlay?.packets, null);
	assert.ok((miss?.worlds.oncache?.fastShare ?? 1) < 0.01, "untracked flows were accelerated");
	assert.match(stdout, /TCP request\/response \(messages\/s\)\n.*TO OVERLAY.*\nhost network.*\noverlay.*\nONCache/);
	assert.deepEqual(leftovers("bench"), []);
	assert.equal(statisticsAreOn(), false);
});

test("bench compares with another build, goes over IPv6 and a Service, and skips what this kernel lacks", async () => {
	const file = join(dir, "kinds.json");
	const scenarios = ["udp-rr", "tcp-rr-service", "udp-rr-ipv6", "tcp-rr-antrea"];
	const options = ["--scenarios", scenarios.join(","), "--baseline", ROOT, "--json", file];
	const { code, stdout, stderr } = await run("bench", ...SHORT, ...options);
	assert.equal(code, 0, stderr);
	const { scenarios: measured, skipped } = JSON.parse(readFileSync(file, "utf8")) as BenchResult;
	const seen = [...measured.map(({ name }) => name), ...skipped.flatMap(({ names }) => names)];
	assert.deepEqual(seen.toSorted(), scenarios.toSorted());
	for (const { names, why } of skipped) {
		assert.match(why, /this kernel has none/);
		assert.ok(stdout.includes(`Skipped ${names.join(", ")}: ${why}`));
	}
	const [rr, service, ipv6] = measured;
	assert.ok((rr?.worlds.oncache?.toBaseline?.median ?? 0) > 0, "not compared with the other build");
	assert.ok((rr?.bpfToBaseline?.ratio.median ?? 0) > 0, "its programs were not counted");
	assert.ok((service?.worlds.oncache?.toDirect?.median ?? 0) > 0);
	assert.equal(service?.worlds.baseline, undefined);
	assert.deepEqual(Object.keys(ipv6?.worlds ?? {}), ["host", "overlay", "oncache"]);
	assert.deepEqual(leftovers("bench"), []);
});

test("bench measures only the worlds that are wanted, without agents when ONCache is not one of them", async () => {
	const file = join(dir, "worlds.json");
	const chosen = ["--scenarios", "tcp-rr,agent", "--worlds", "host,overlay"];
	const { code, stderr } = await run("bench", ...SHORT, ...chosen, "--json", file);
	assert.equal(code, 0, stderr);
	const { scenarios, agents } = JSON.parse(readFileSync(file, "utf8")) as BenchResult;
	assert.deepEqual(Object.keys(scenarios[0]?.worlds ?? {}), ["host", "overlay"]);
	assert.equal(scenarios[0]?.bpf, null);
	assert.equal(agents, null);
	assert.doesNotMatch(stderr, /starting one agent/);
	assert.deepEqual(leftovers("bench"), []);
});

test("bench refuses to call a run ONCache when its packets took the fallback", async () => {
	const config = join(dir, "nothing.yaml");
	writeFileSync(config, 'excludeInterfaces: ["veth*"]\n');
	const { code, stdout, stderr } = await run("bench", ...SHORT, "--scenarios", "udp-stream", "--agent-config", config);
	assert.equal(code, 1);
	assert.match(stdout, /\nnot ONCache /);
	assert.match(stdout, /Fallback, by reason: flow_miss/);
	assert.match(stderr, /Too few packets took the fast path in udp-stream/);
	assert.deepEqual(leftovers("bench"), []);
});

test("bench says why an agent does not start, and leaves nothing behind", async () => {
	const config = join(dir, "wrong.yaml");
	writeFileSync(config, "nonsense: 1\n");
	const { code, stderr } = await run("bench", ...SHORT, "--agent-config", config);
	assert.equal(code, 1);
	assert.match(stderr, /Cannot start an agent on h1.*\n.*unknown key "nonsense"/);
	assert.deepEqual(leftovers("bench"), []);
});

test("Ctrl-C in the middle of a measurement leaves nothing behind; meanwhile nobody else may measure", async () => {
	const bench = start(["bench", "--scenarios", "tcp-crr", "--seconds", "30"]);
	await says(bench, /round 1 of 5/);
	const second = await run("bench", ...SHORT);
	assert.equal(second.code, 1);
	assert.match(second.stderr, new RegExp(`Cannot measure: process ${bench.child.pid} is measuring already`));
	process.kill(-(bench.child.pid ?? 0), "SIGINT");
	assert.equal((await bench.ended).code, 130);
	assert.deepEqual(leftovers("bench"), []);
});

test("bench says which scenarios there are, and refuses odd numbers and builds", async () => {
	const unknown = await run("bench", "--scenarios", "tcp-rr,warp");
	assert.equal(unknown.code, 2);
	assert.match(unknown.stderr, /Unknown scenario "warp"\. Allowed: tcp-rr, udp-rr, /);
	const none = await run("bench", "--rounds", "0");
	assert.equal(none.code, 2);
	assert.match(none.stderr, /Allowed: a whole number from 1 to 1000/);
	const build = await run("bench", "--baseline", dir);
	assert.equal(build.code, 2);
	assert.match(build.stderr, /is not a build of ONCache: there is no ".*bin\/oncache"/);
});

test("demo shows tables and bars, stays up with --keep until Ctrl-C, and leaves nothing behind", async () => {
	const demo = start(["demo", "--quick", "--keep"]);
	let shown = "";
	await new Promise<void>((resolve, reject) => {
		demo.child.stdout?.on("data", (text: string) => {
			shown += text;
			if (shown.includes("until Ctrl-C")) resolve();
		});
		demo.ended.then(({ stderr }) => reject(new Error(`It ended early: ${stderr}`)), reject);
	});
	const [, status = ""] = /^(nsenter .* status .*)$/m.exec(shown) ?? [];
	const [file = "", ...args] = status.split(" ");
	const child = spawn(file, [...args, "--json"], { stdio: ["ignore", "pipe", "inherit"] });
	const answer = (await child.stdout.setEncoding("utf8").toArray()).join("");
	assert.equal(JSON.parse(answer).state, "accelerating");
	process.kill(-(demo.child.pid ?? 0), "SIGINT");
	const { code, stdout, stderr } = await demo.ended;
	assert.equal(code, 0, stderr);
	assert.match(stdout, /overlay +█+/);
	assert.match(stdout, /With ONCache the same overlay carries /);
	assert.match(stdout, /Everything is removed/);
	assert.ok(existsSync(join(dir, "oncache-demo.json")));
	assert.deepEqual(leftovers("demo"), []);
});
