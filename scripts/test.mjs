// Runs the tests in tiers, cheapest first, over what the build made; its last line counts over all tiers.
//   npm test                          everything
//   npm test -- --tier kernel         one tier (repeat for more)
//   npm test -- src/agent/plan.test.ts   some files
import { spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, relative, resolve } from "node:path";
import { run } from "node:test";
import { spec } from "node:test/reporters";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";

const root = fileURLToPath(new URL("..", import.meta.url));
process.chdir(root);

/** `files` says which tests (below dist/) belong to the tier, `alone` which of them have no other beside them; `timeoutMs` bounds one file. */
const TIERS = {
	check: { title: "format and lint" },
	pure: {
		title: "pure: no privileges",
		files: /^(src\/|test\/(kube|vm)\/|test\/[^/]+$)/,
		concurrency: true,
		timeoutMs: 60_000,
	},
	kernel: {
		title: "kernel: packets through the programs",
		files: /^test\/kernel\//,
		concurrency: true,
		timeoutMs: 180_000,
	},
	proof: {
		title: "proof: trying to break the promises, small",
		files: /^test\/proof\//,
		concurrency: 1,
		timeoutMs: 600_000,
	},
	e2e: {
		title: "e2e: real traffic in the lab",
		files: /^test\/e2e\//,
		concurrency: 2,
		// They measure, or list what the whole machine has.
		alone: /\/(bench|deploy|lab|lifecycle|traffic)\.test/,
		timeoutMs: 600_000,
	},
	vm: { title: "vm: some of these under other kernels, in virtual machines" },
};

/** Where `ip netns` and the labs keep what they make, and the pins. */
const OWN = ["/run/netns", "/run/oncache"];
const BPFFS = "/sys/fs/bpf";

const total = { pass: 0, fail: 0, skipped: 0 };
const { tiers, only } = readArguments();
if (process.getuid() === 0 && !process.env.ONCACHE_TEST_MOUNTS) isolate();
const tests = findTests();

for (const name of tiers) {
	process.stdout.write(`\n${TIERS[name].title}\n`);
	if (name === "check") check();
	else if (name === "vm") testKernels();
	else await runTier(TIERS[name]);
}
process.exitCode = total.fail > 0 ? 1 : 0;
process.stdout.write(`\n${total.pass} passed, ${total.fail} failed, ${total.skipped} skipped\n`);

function readArguments() {
	try {
		const options = { tier: { type: "string", multiple: true, default: [] } };
		const { values, positionals } = parseArgs({ options, allowPositionals: true });
		const unknown = values.tier.find((name) => !(name in TIERS));
		if (unknown !== undefined)
			throw new Error(`Unknown tier "${unknown}": choose from ${Object.keys(TIERS).join(", ")}`);
		const only = positionals.map(toBuiltTest);
		const tiersOf = only.map((path) => Object.keys(TIERS).find((name) => TIERS[name].files?.test(path)));
		const chosen = only.length > 0 ? tiersOf : values.tier.length > 0 ? values.tier : Object.keys(TIERS);
		return { tiers: Object.keys(TIERS).filter((name) => chosen.includes(name)), only };
	} catch (error) {
		process.stderr.write(`${error.message}\n`);
		process.exit(2);
	}
}

/**
 * Begins anew with mounts of its own: labs of other test runs, or of the machine's user, are not met, and what an
 * interrupted one leaves goes with its last process.
 */
function isolate() {
	const mounts = [
		...OWN.map((path) => `mkdir -p ${path} && mount -t tmpfs tmpfs ${path}`),
		`mount -t bpf bpf ${BPFFS}`,
	];
	const argv = [process.execPath, fileURLToPath(import.meta.url), ...process.argv.slice(2)];
	const { status } = spawnSync(
		"unshare",
		["--mount", "--propagation", "slave", "sh", "-c", `${mounts.join(" && ")} && exec "$@"`, "sh", ...argv],
		{ stdio: "inherit", env: { ...process.env, ONCACHE_TEST_MOUNTS: "own" } },
	);
	process.exit(status ?? 1);
}

/** src/x.test.ts, dist/src/x.test.js -> src/x.test.js */
function toBuiltTest(argument) {
	const given = relative(root, resolve(process.env.INIT_CWD ?? root, argument));
	const path = given.replace(/^dist\//, "").replace(/\.ts$/, ".js");
	if (path.endsWith(".test.js") && existsSync(join("dist", path))) return path;
	throw new Error(`Cannot run "${argument}": it is not a test file such as src/agent/config.test.ts`);
}

/** All built tests; those whose source is gone are removed first. */
function findTests() {
	const built = readdirSync("dist", { recursive: true }).filter((path) => path.endsWith(".test.js"));
	const isCurrent = (path) => existsSync(path.replace(/\.js$/, ".ts"));
	for (const stale of built.filter((path) => !isCurrent(path))) rmSync(join("dist", stale));
	const current = built.filter(isCurrent).sort();
	for (const path of current)
		if (!Object.values(TIERS).some(({ files }) => files?.test(path))) throw new Error(`No tier has ${path}`);
	return current;
}

function check() {
	const { status } = spawnSync("node_modules/.bin/biome", ["check"], { stdio: "inherit" });
	if (status !== 0) total.fail += 1;
}

function testKernels() {
	if (process.arch !== "x64") {
		process.stdout.write(`skipped: there are virtual machines for x64 only, this is ${process.arch}\n`);
		total.skipped += 1;
		return;
	}
	const folder = mkdtempSync(join(tmpdir(), "oncache-test-"));
	try {
		const json = join(folder, "results.json");
		const { status } = spawnSync(process.execPath, ["dist/test/vm/main.js", "--slice", "--json", json], {
			stdio: "inherit",
		});
		const { sums } = existsSync(json)
			? JSON.parse(readFileSync(json, "utf8"))
			: { sums: { pass: 0, fail: 0, skip: 0 } };
		total.pass += sums.pass;
		total.fail += status !== 0 && sums.fail === 0 ? 1 : sums.fail;
		total.skipped += sums.skip;
	} finally {
		rmSync(folder, { recursive: true });
	}
}

async function runTier({ title, files: belongs, concurrency, alone, timeoutMs }) {
	const files = tests.filter((path) => belongs.test(path) && (only.length === 0 || only.includes(path)));
	if (files.length === 0) {
		process.stdout.write(`no test found for "${title}": a tier without tests proves nothing\n`);
		total.fail += 1;
		return;
	}
	const isAlone = (path) => alone?.test(path) ?? false;
	await runFiles(
		files.filter((path) => !isAlone(path)),
		concurrency,
		timeoutMs,
	);
	await runFiles(files.filter(isAlone), 1, timeoutMs);
}

async function runFiles(files, concurrency, timeoutMs) {
	if (files.length === 0) return;
	const stream = run({ files: files.map((path) => resolve("dist", path)), concurrency, timeout: timeoutMs });
	// node:test reports its own sums as diagnostics: "pass 12", "fail 0", "cancelled 0", "skipped 0".
	stream.on("test:diagnostic", ({ nesting, message }) => {
		const [, what, count] = /^(pass|fail|cancelled|skipped|todo) (\d+)$/.exec(message) ?? [];
		if (nesting !== 0 || what === undefined) return;
		total[{ cancelled: "fail", todo: "skipped" }[what] ?? what] += Number(count);
	});
	for await (const text of stream.compose(new spec())) process.stdout.write(text);
}
