// Measures this build beside that of another revision, in the same rounds:
//   npm run compare -- REVISION [options of oncache bench]
// The revision is built in a directory of its own, which is removed again; nothing here changes.
import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, symlinkSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("..", import.meta.url));
const [revision, ...options] = process.argv.slice(2);
const DEFAULTS = ["--scenarios", "tcp-rr,udp-rr,tcp-stream,udp-stream", "--rounds", "9"];

if (revision === undefined || revision.startsWith("-")) fail(2, "Usage: npm run compare -- REVISION [BENCH OPTION...]");
const commit = git("rev-parse", "--verify", "--quiet", `${revision}^{commit}`).stdout.trim();
if (commit === "") fail(2, `There is no revision "${revision}": name a tag, a branch or a commit`);

// Ctrl-C reaches the benchmark too, which ends by itself; this one stays to clean up.
process.on("SIGINT", () => {});
const dir = mkdtempSync(join(tmpdir(), "oncache-compare-"));
const checkout = join(dir, "build");
try {
	must("check out the revision", git("worktree", "add", "--detach", checkout, commit));
	// What it needs to build is what this one has: only the difference between the two is to be measured.
	symlinkSync(join(root, "node_modules"), join(checkout, "node_modules"));
	process.stderr.write(`building ${revision} (${commit.slice(0, 12)})\n`);
	must("build it", run("npm", ["run", "build"], { cwd: checkout }));
	const bench = ["bench", ...DEFAULTS, ...options, "--baseline", checkout];
	process.exitCode = run(join(root, "bin/oncache"), bench, { stdio: "inherit" }).status ?? 1;
} catch (error) {
	process.stderr.write(`${error.message}\n`);
	process.exitCode = 1;
} finally {
	git("worktree", "remove", "--force", checkout);
	rmSync(dir, { recursive: true, force: true });
}

function git(...args) {
	return run("git", args, { cwd: root });
}

function run(file, args, more) {
	return spawnSync(file, args, { encoding: "utf8", ...more });
}

function must(what, { status, error, stdout, stderr }) {
	if (status === 0) return;
	const words = error?.message ?? `${stdout}${stderr}`.trim().split("\n").slice(-5).join("\n");
	throw new Error(`Cannot ${what}: ${words}`);
}

function fail(code, text) {
	process.stderr.write(`${text}\n`);
	process.exit(code);
}
