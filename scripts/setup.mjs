// Prepares a machine for everything else: system packages, npm packages, build. Does only what is missing and
// says what it does on stderr, so that the standard output stays the program's. Needs nothing but Node.
import { spawn, spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, readdirSync, readFileSync, realpathSync, rmSync, writeFileSync } from "node:fs";
import { release } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("..", import.meta.url));
const BTF = "/sys/kernel/btf/vmlinux";
const POLICY = "/usr/sbin/policy-rc.d";
const STAMP = join(root, ".setup-stamp");
const RED = 31;
const CYAN = 36;
const OUTPUTS = ["dist/src/main.js", "bpf/oncache.bpf.o", "bin/oncache-cni"];

const PACKAGES = {
	clang: "compiles the eBPF programs",
	llvm: "strips the eBPF object (llvm-strip)",
	make: "builds bpf/",
	"libbpf-dev": "headers of the eBPF programs",
	"linux-libc-dev": "kernel headers of the eBPF programs",
	libbpf1: "loads the eBPF programs",
	iproute2: "ip, tc: the lab's devices and namespaces",
	"util-linux": "nsenter, taskset",
	procps: "sysctl, ps",
	iptables: "the lab's overlay, as a CNI sets it up",
	nftables: "the rule of dscp mode",
	conntrack: "looks into connection tracking",
	ethtool: "offload settings",
	"iputils-ping": "ping",
	strace: "makes system calls fail in the tests",
	tcpdump: "looks at the wire",
	python3: "raw frames in the tests",
	openssl: "a certificate for the tests' API server",
	iperf3: "stream traffic",
	sockperf: "request/response traffic",
	qperf: "the same over IPv6",
	"nginx-light": "web server of the application benchmark",
	"apache2-utils": "ab, its client",
	"openvswitch-switch": "the switch of the lab's Antrea",
	"containernetworking-plugins": "real CNI plugins, to be chained with and whose limits hold",
	containerd: "a container runtime of the tests",
	runc: "starts its containers",
	podman: "another one",
	"busybox-static": "what these containers run",
	buildah: "builds the container image",
	mmdebstrap: "makes what it is built on",
};

/** Of those packages: what systemd would start, or start again. */
const SERVICES = {
	nginx: ["nginx.service"],
	"openvswitch-switch": ["openvswitch-switch.service"],
	containerd: ["containerd.service"],
	podman: [
		...["podman.service", "podman.socket", "podman-restart.service"],
		...["podman-auto-update.service", "podman-auto-update.timer"],
	],
};

/** What stands in the way, in one sentence with what to do; undefined when nothing does. */
export function unsupported({ platform, arch, node, uid, kernel, hasBtf, hasApt }) {
	if (platform !== "linux") return `ONCache needs Linux, this is ${platform}: use a Debian 12 machine`;
	if (arch !== "x64" && arch !== "arm64")
		return `ONCache supports the architectures x64 and arm64, this is ${arch}: use another machine`;
	if (Number.parseInt(node, 10) < 20) return `ONCache needs Node 20 or newer, this is ${node}: install a newer Node`;
	if (uid !== 0) return "This needs root: run it as root, as in: sudo npm start";
	const [major = 0, minor = 0] = kernel.split(".").map((part) => Number.parseInt(part, 10));
	if (major < 6 || (major === 6 && minor < 1))
		return `ONCache needs Linux 6.1 or newer, this is ${kernel}: boot a newer kernel (Debian 12 has 6.1)`;
	if (!hasBtf) return `This kernel has no type information (${BTF}): boot one built with CONFIG_DEBUG_INFO_BTF=y`;
	if (!hasApt) return `There is no apt-get here to install system packages: use Debian 12, or a system like it`;
	return undefined;
}

/** Whether the packages that npm noted in node_modules are those of the lock file, for this machine. */
export function modulesMatch(lock, installed, { arch }) {
	const fits = ({ os, cpu, libc }) =>
		(os?.includes("linux") ?? true) && (cpu?.includes(arch) ?? true) && (libc?.includes("glibc") ?? true);
	return Object.entries(lock.packages).every(
		([path, wanted]) => path === "" || !fits(wanted) || installed.packages[path]?.integrity === wanted.integrity,
	);
}

/** Only for the tests in virtual machines (--vm). */
const VM_PACKAGES = {
	"qemu-system-x86": "boots other kernels",
	kmod: "finds their modules",
	"xz-utils": "unpacks modules of one kernel",
	zstd: "and of another",
	"debian-archive-keyring": "tells Debian's packages from others",
};

if (realpathSync(process.argv[1]) === fileURLToPath(import.meta.url)) await main();

async function main() {
	if (process.argv.includes("--vm") && process.arch === "x64") Object.assign(PACKAGES, VM_PACKAGES);
	const complaint = unsupported({
		platform: process.platform,
		arch: process.arch,
		node: process.versions.node,
		uid: process.getuid?.(),
		kernel: release(),
		hasBtf: existsSync(BTF),
		hasApt: isInPath("apt-get"),
	});
	if (complaint !== undefined) fail(complaint);

	const did = [await installPackages(), await installModules(), await build()];
	say(did.includes(true) ? "done" : "nothing to do");
}

/** Each step returns whether there was anything to do. */
async function installPackages() {
	const installed = installedPackages();
	const missing = Object.keys(PACKAGES).filter((name) => !installed.has(name));
	if (missing.length === 0) return false;
	say(`installing ${missing.length} Debian package${missing.length > 1 ? "s" : ""} with apt-get:`);
	for (const name of missing) process.stderr.write(`  ${name.padEnd(29)}${PACKAGES[name]}\n`);

	const apt = ["-o", "DPkg::Lock::Timeout=120", "-o", "Acquire::Retries=1", "-q"];
	const update = await run("apt-get update", "apt-get", [...apt, "update"]);
	const settle = refuseServices(Object.keys(SERVICES).flatMap((name) => (installed.has(name) ? [] : SERVICES[name])));
	// Where an earlier installation was interrupted, apt-get refuses to work before this.
	await run("dpkg --configure", "dpkg", ["--configure", "-a"]);
	const install = await run("apt-get install", "apt-get", [
		...[...apt, "install", "-y", "--no-install-recommends"],
		...missing,
	]);
	settle();
	if (install.code === 0) return true;

	process.stderr.write(install.tail());
	if (/Failed to fetch|Could not resolve|Could not connect/.test(update.output + install.output))
		fail("Cannot reach the Debian package servers: check the network and /etc/apt/sources.list, then run it again");
	fail(`apt-get install failed (exit ${install.code}, its last lines are above): repair that, then run it again`);
}

function installedPackages() {
	const query = ["-W", `-f=\${Package} \${db:Status-Status}\n`, ...Object.keys(PACKAGES), ...Object.keys(SERVICES)];
	const { error, stdout } = spawnSync("dpkg-query", query, { encoding: "utf8" });
	if (error) fail(`Cannot ask dpkg-query what is installed (${error.code}): use Debian 12, or a system like it`);
	const lines = stdout.split("\n").map((line) => line.split(" "));
	return new Set(lines.filter(([, status]) => status === "installed").map(([name]) => name));
}

/** Debian starts them, now and at boot; the lab and the benchmark only want the programs. Returns what to do afterwards. */
function refuseServices(units) {
	// An init script's name has no suffix.
	const names = units.flatMap((unit) => [unit, unit.replace(/\.service$/, "")]);
	const policy = `#!/bin/sh\ncase "$1" in ${names.join("|") || "-"}) exit 101 ;; esac\n`;
	const remove = () => {
		if (existsSync(POLICY) && readFileSync(POLICY, "utf8") === policy) rmSync(POLICY);
	};
	if (!existsSync(POLICY)) writeFileSync(POLICY, policy, { mode: 0o755 });
	process.once("exit", remove);
	return () => {
		remove();
		if (units.length > 0 && isInPath("systemctl"))
			spawnSync("systemctl", ["--quiet", "disable", ...units], { stdio: "ignore" });
	};
}

async function installModules() {
	const lock = readJson(join(root, "package-lock.json"));
	const installed = readJson(join(root, "node_modules/.package-lock.json"));
	if (installed !== undefined && modulesMatch(lock, installed, process)) return false;
	if (!isInPath("npm")) fail("There is no npm here: install it together with Node 20 or newer");
	say("installing npm packages");
	const npm = await run("npm ci", "npm", [
		...["ci", "--ignore-scripts", "--no-audit", "--no-fund"],
		...["--fetch-retry-mintimeout=1000", "--fetch-retry-maxtimeout=5000"],
	]);
	if (npm.code === 0) return true;

	process.stderr.write(npm.tail(60));
	if (/ENOTFOUND|EAI_AGAIN|ECONNREFUSED|ECONNRESET|ETIMEDOUT|ENETUNREACH|EHOSTUNREACH/.test(npm.output))
		fail("Cannot reach the npm registry: check the network and npm's registry and proxy settings, then run it again");
	fail(`npm ci failed (exit ${npm.code}, messages above): repair that, then run it again`);
}

async function build() {
	const sources = hashOfSources();
	const isBuilt = OUTPUTS.every((path) => existsSync(join(root, path)));
	if (isBuilt && existsSync(STAMP) && readFileSync(STAMP, "utf8") === sources) return false;
	say("building the program and its eBPF object");
	const { code, tail } = await run("npm run build", "npm", ["run", "--silent", "build"]);
	if (code !== 0) {
		process.stderr.write(tail(60));
		fail("The build failed (messages above): correct the source, then run it again");
	}
	writeFileSync(STAMP, sources);
	return true;
}

function hashOfSources() {
	const hash = createHash("sha256");
	const list = (folder) => readdirSync(join(root, folder), { recursive: true }).map((path) => join(folder, path));
	const files = [
		...["package-lock.json", "tsconfig.json", "scripts/bundle.mjs"],
		...[...list("src"), ...list("test")].filter((path) => path.endsWith(".ts")),
		...list("bpf").filter((path) => /\.[ch]$|Makefile$/.test(path)),
	];
	for (const path of files.sort())
		hash
			.update(`${path}\0`)
			.update(readFileSync(join(root, path)))
			.update("\0");
	return hash.digest("hex");
}

/** Runs a command in the project's folder, showing that it lives; its output is kept for the case that it fails. */
function run(title, command, args) {
	const started = Date.now();
	let output = "";
	const child = spawn(command, args, {
		cwd: root,
		env: { ...process.env, DEBIAN_FRONTEND: "noninteractive" },
		stdio: ["ignore", "pipe", "pipe"],
	});
	for (const stream of [child.stdout, child.stderr])
		stream.setEncoding("utf8").on("data", (text) => {
			output += text;
		});

	const lines = () => output.split("\n").filter((line) => line.trim() !== "");
	const isTerminal = process.stderr.isTTY;
	const timer = setInterval(
		() => {
			const line = `  ${title}: ${Math.round((Date.now() - started) / 1000)} s  ${lines().at(-1) ?? ""}`;
			const width = (process.stderr.columns ?? 80) - 1;
			process.stderr.write(isTerminal ? `\r\x1b[K${line.slice(0, width)}` : `${line}\n`);
		},
		isTerminal ? 500 : 5000,
	);
	let interruptedBy;
	const interrupt = (signal) => {
		interruptedBy = signal;
		child.kill(signal);
	};
	for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) process.on(signal, interrupt);

	return new Promise((resolve) => {
		const settle = (code, signal) => {
			clearInterval(timer);
			if (isTerminal) process.stderr.write("\r\x1b[K");
			for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) process.off(signal, interrupt);
			const stoppedBy = interruptedBy ?? signal;
			if (stoppedBy) fail(`${title} was interrupted (${stoppedBy}): run it again to go on`);
			const tail = (count = 15) =>
				lines()
					.slice(-count)
					.map((line) => `  ${line}\n`)
					.join("");
			resolve({ code, output, tail });
		};
		child.once("error", (error) => fail(`Cannot run "${command}" (${error.code}): install it, then run it again`));
		child.once("close", settle);
	});
}

function isInPath(command) {
	return (process.env.PATH ?? "").split(":").some((folder) => existsSync(join(folder, command)));
}

function readJson(path) {
	return existsSync(path) ? JSON.parse(readFileSync(path, "utf8")) : undefined;
}

function say(text) {
	process.stderr.write(`${paint(CYAN, "Set-up:")} ${text}\n`);
}

function fail(sentence) {
	process.stderr.write(`${paint(RED, "Set-up:")} ${sentence}\n`);
	process.exit(1);
}

function paint(colour, text) {
	return process.stderr.isTTY && !process.env.NO_COLOR ? `\x1b[${colour}m${text}\x1b[0m` : text;
}
