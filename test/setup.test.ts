// Runs scripts/setup.mjs in a copy of the repository's outline, with stand-ins for dpkg-query, apt-get, npm.
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { chmodSync, cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("../..", import.meta.url));
const script = "scripts/setup.mjs";
const { unsupported, modulesMatch } = await import(join(root, script));
const needsRoot = process.getuid?.() === 0 ? {} : { skip: "needs root" };

const folders: string[] = [];
after(() => {
	for (const folder of folders) rmSync(folder, { recursive: true, force: true });
});

const FINE = {
	platform: "linux",
	arch: "x64",
	node: "20.0.0",
	uid: 0,
	kernel: "6.1.0-9-amd64",
	hasBtf: true,
	hasApt: true,
};

const UNSUPPORTED: { name: string; machine: object; says: RegExp }[] = [
	{ name: "another system", machine: { platform: "darwin" }, says: /needs Linux, this is darwin: use a Debian 12/ },
	{ name: "another architecture", machine: { arch: "riscv64" }, says: /x64 and arm64, this is riscv64: use another/ },
	{ name: "an old Node", machine: { node: "18.20.4" }, says: /needs Node 20 or newer, this is 18\.20\.4: install/ },
	{ name: "a user that is not root", machine: { uid: 1000 }, says: /run it as root, as in: sudo npm start/ },
	{
		name: "an old kernel",
		machine: { kernel: "5.15.0-91" },
		says: /needs Linux 6\.1 or newer, this is 5\.15\.0-91: boot/,
	},
	{ name: "a kernel just too old", machine: { kernel: "6.0.12" }, says: /this is 6\.0\.12/ },
	{ name: "a kernel without BTF", machine: { hasBtf: false }, says: /CONFIG_DEBUG_INFO_BTF=y/ },
	{ name: "a system without apt-get", machine: { hasApt: false }, says: /no apt-get here .*: use Debian 12/ },
];

for (const { name, machine, says } of UNSUPPORTED)
	test(`set-up refuses ${name} in one sentence`, () => {
		const sentence = unsupported({ ...FINE, ...machine });
		assert.match(sentence, says);
		assert.equal(sentence.includes("\n"), false);
	});

test("set-up accepts Debian 12 on x64 and arm64, and newer kernels and Nodes", () => {
	for (const machine of [{}, { arch: "arm64" }, { kernel: "7.0.0" }, { kernel: "6.18.44" }, { node: "24.1.0" }])
		assert.equal(unsupported({ ...FINE, ...machine }), undefined);
});

test("modulesMatch() compares what is installed with the lock file, ignoring other machines' binaries", () => {
	const lock = {
		packages: {
			"": { name: "oncache" },
			"node_modules/a": { integrity: "1" },
			"node_modules/b-x64": { integrity: "2", cpu: ["x64"], os: ["linux"] },
			"node_modules/b-mac": { integrity: "3", cpu: ["x64"], os: ["darwin"] },
			"node_modules/b-musl": { integrity: "4", cpu: ["x64"], os: ["linux"], libc: ["musl"] },
		},
	};
	const installed = { packages: { "node_modules/a": { integrity: "1" }, "node_modules/b-x64": { integrity: "2" } } };
	assert.equal(modulesMatch(lock, installed, { arch: "x64" }), true);
	assert.equal(modulesMatch(lock, { packages: { "node_modules/a": { integrity: "1" } } }, { arch: "x64" }), false);
	const older = { packages: { ...installed.packages, "node_modules/a": { integrity: "0" } } };
	assert.equal(modulesMatch(lock, older, { arch: "x64" }), false);
	assert.equal(modulesMatch(lock, installed, { arch: "arm64" }), true);
});

test("the lock file names every optional package: npm ci refuses it otherwise, even for other machines' binaries", () => {
	const { packages } = JSON.parse(readFileSync(join(root, "package-lock.json"), "utf8")) as {
		packages: Record<string, { optionalDependencies?: Record<string, string> }>;
	};
	const named = Object.values(packages).flatMap(({ optionalDependencies = {} }) => Object.keys(optionalDependencies));
	assert.deepEqual(
		named.filter((name) => !(`node_modules/${name}` in packages)),
		[],
	);
});

interface Tools {
	/** Packages that dpkg-query does not know until apt-get installs them. */
	missing?: string[];
	aptGet?: string;
	npm?: string;
}

/** A repository's outline with a PATH of its own; run() says what set-up printed, `calls` what it started. */
function sandbox({ missing = [], aptGet = "", npm = "" }: Tools) {
	const folder = mkdtempSync(join(tmpdir(), "oncache-setup-"));
	folders.push(folder);
	const tools = join(folder, "tools");
	for (const name of ["scripts", "src", "test", "bpf", "bin", "tools"]) mkdirSync(join(folder, name));
	cpSync(join(root, script), join(folder, script));
	writeFileSync(join(folder, "package-lock.json"), '{"packages":{"":{},"node_modules/a":{"integrity":"1"}}}');
	writeFileSync(join(folder, "tsconfig.json"), "{}");
	writeFileSync(join(folder, "scripts/bundle.mjs"), "");
	writeFileSync(join(folder, "src/main.ts"), "");

	const tool = (name: string, body: string) =>
		writeFileSync(join(tools, name), `#!/bin/sh\n${body}\necho "${name} $*" >>${folder}/calls\n`, { mode: 0o755 });
	const known = `for p; do case " ${missing.join(" ")} " in *" $p "*) [ -e ${folder}/installed ] || continue;; esac; echo "$p installed"; done`;
	tool("dpkg-query", `${known}; exit 0`);
	tool("dpkg", "");
	tool("apt-get", `${aptGet}\ncase "$*" in *install*) touch ${folder}/installed;; esac`);
	tool(
		"npm",
		`${npm}
case $1 in
ci) mkdir -p node_modules; echo '{"packages":{"node_modules/a":{"integrity":"1"}}}' >node_modules/.package-lock.json;;
run) mkdir -p dist/src; touch dist/src/main.js bpf/oncache.bpf.o bin/oncache-cni;;
esac`,
	);
	return {
		folder,
		run(options: { uid?: number } = {}) {
			rmSync(join(folder, "calls"), { force: true });
			const path = `${tools}:/usr/bin:/bin`;
			const env = { PATH: path };
			const { status, stdout, stderr } = spawnSync(process.execPath, [join(folder, script)], {
				...{ env, encoding: "utf8", ...options },
			});
			const calls = join(folder, "calls");
			return { status, stdout, stderr, calls: existsSync(calls) ? readFileSync(calls, "utf8").trim().split("\n") : [] };
		},
	};
}

test("set-up installs what is missing, shows it, and has nothing to do the next time", needsRoot, () => {
	const machine = sandbox({ missing: ["iperf3", "tcpdump"] });
	const first = machine.run();
	assert.equal(first.status, 0, first.stderr);
	assert.equal(first.stdout, "", "the standard output is the program's");
	assert.match(first.stderr, /^Set-up: installing 2 Debian packages with apt-get:\n {2}tcpdump +looks .*\n {2}iperf3 /);
	assert.deepEqual(first.calls, [
		"apt-get -o DPkg::Lock::Timeout=120 -o Acquire::Retries=1 -q update",
		"dpkg --configure -a",
		"apt-get -o DPkg::Lock::Timeout=120 -o Acquire::Retries=1 -q install -y --no-install-recommends tcpdump iperf3",
		"npm ci --ignore-scripts --no-audit --no-fund --fetch-retry-mintimeout=1000 --fetch-retry-maxtimeout=5000",
		"npm run --silent build",
	]);

	const second = machine.run();
	assert.deepEqual({ ...second }, { status: 0, stdout: "", stderr: "Set-up: nothing to do\n", calls: [] });
});

test("set-up builds again when a source changed, appeared or went, and when the build is gone", needsRoot, () => {
	const { folder, run } = sandbox({});
	run();
	const changes: (() => void)[] = [
		() => writeFileSync(join(folder, "src/main.ts"), "// changed"),
		() => writeFileSync(join(folder, "bpf/new.h"), ""),
		() => rmSync(join(folder, "bpf/new.h")),
		() => rmSync(join(folder, "bpf/oncache.bpf.o")),
		() => rmSync(join(folder, "dist"), { recursive: true }),
	];
	for (const change of changes) {
		change();
		assert.deepEqual(run().calls, ["npm run --silent build"]);
	}
	assert.deepEqual(run().calls, []);
});

test("set-up installs npm packages again when the lock file changed", needsRoot, () => {
	const { folder, run } = sandbox({});
	run();
	writeFileSync(join(folder, "package-lock.json"), '{"packages":{"node_modules/a":{"integrity":"2"}}}');
	assert.match(run().calls[0] ?? "", /^npm ci /);
});

const FAILURES: { name: string; tools: Tools; says: RegExp }[] = [
	{
		name: "Debian's servers cannot be reached",
		tools: {
			missing: ["iperf3"],
			aptGet:
				'case "$*" in *update*) echo "W: Failed to fetch http://x  Could not resolve \'x\'"; exit 0;; *) exit 100;; esac',
		},
		says: /\nSet-up: Cannot reach the Debian package servers: check the network .*\n$/,
	},
	{
		name: "apt-get fails otherwise",
		tools: { missing: ["iperf3"], aptGet: 'case "$*" in *install*) echo E: dpkg was interrupted; exit 100;; esac' },
		says: /\n {2}E: dpkg was interrupted\nSet-up: apt-get install failed \(exit 100.*\n$/,
	},
	{
		name: "the npm registry cannot be reached",
		tools: { npm: "echo npm error code EAI_AGAIN; exit 1" },
		says: /\nSet-up: Cannot reach the npm registry: check the network .*\n$/,
	},
	{
		name: "the build fails",
		tools: { npm: '[ $1 = ci ] || { echo "src/x.ts(1,1): error TS1: no"; exit 2; }' },
		says: /error TS1: no\nSet-up: The build failed \(messages above\): correct the source, then run it again\n$/,
	},
];

for (const { name, tools, says } of FAILURES)
	test(`set-up says in one sentence that ${name}`, needsRoot, () => {
		const { status, stderr } = sandbox(tools).run();
		assert.equal(status, 1);
		assert.match(stderr, says);
	});

test("set-up started by another user than root says how to start it", needsRoot, (context) => {
	const { folder, run } = sandbox({});
	chmodSync(folder, 0o755);
	const { status, stderr } = run({ uid: 65534 });
	if (status === null) return context.skip(`another user cannot run ${process.execPath}`);
	assert.equal(status, 1);
	assert.equal(stderr, "Set-up: This needs root: run it as root, as in: sudo npm start\n");
});

test("bin/oncache works from another directory and through a symbolic link, or says how to build", () => {
	const folder = mkdtempSync(join(tmpdir(), "oncache-bin-"));
	folders.push(folder);
	cpSync(join(root, "bin"), join(folder, "bin"), { recursive: true });
	const run = (path: string) => spawnSync(path, ["--version"], { cwd: "/", encoding: "utf8" });
	spawnSync("ln", ["-s", join(root, "bin/oncache"), join(folder, "link")]);
	assert.match(run(join(folder, "link")).stdout, /^\d+\.\d+\.\d+\n$/);

	const unbuilt = run(join(folder, "bin/oncache"));
	assert.equal(unbuilt.status, 1);
	assert.equal(unbuilt.stderr, `oncache: Cannot start: it is not built yet; run "npm run setup" in ${folder}\n`);
});
