// A lab host as a machine that containers run on: beside the host's network namespace it has processes, mounts and a name of
// its own, as a node of kind (Kubernetes in Docker) has. Its /etc, /opt and /var are the machine's to read; what is written
// there, and all of /run, is the node's. So software runs as it is installed, with the paths it always has, and
// everything it has made (processes, mounts, files) goes when the node's first process ends.
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdirSync, readdirSync, readFileSync, rmdirSync, rmSync, writeFileSync } from "node:fs";
import { dirname } from "node:path";
import { setTimeout } from "node:timers/promises";
import { type Finished, inNetns, type RunOptions, run } from "./command.js";
import { patiently } from "./patience.js";
import type { LabHost } from "./topology.js";

const CGROUPS = "/sys/fs/cgroup";
const POLL_MS = 20;
const EMPTY_LIMIT_MS = patiently(5000);

export interface LabNode {
	host: LabHost;
	/** Its first process, as the machine counts. */
	pid: number;
	/** For cgroups of what runs on it, as containerd and podman take it: such as "/oncache-lab-h1-4711". */
	cgroup: string;
	/** Runs a command on the node. */
	run(argv: readonly string[], options?: RunOptions): Promise<Finished>;
	/** As {@link run} is to be called by something else, with `options` for nsenter. */
	argv(argv: readonly string[], ...options: string[]): string[];
	/** Where the machine finds a path of the node; sockets too can be connected there. */
	path(inside: string): string;
	/** Ends all its processes; nothing is left. */
	stop(): Promise<void>;
}

/**
 * Runs as the first process of the node, with the lab's directory and the host's name as $1 and $2. The kernel lets no
 * overlayfs be the upper layer of another, so there is room for one where containers' layers lie: /var/lib/containers and
 * /var/lib/containerd are file systems of their own. That shell waits for what is orphaned.
 */
const SETUP = `
mount --bind "$1" /mnt
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p "$1" /run/lock /run/node
mount --move /mnt "$1"
for dir in etc opt var; do
	mkdir -p /run/node/$dir.upper /run/node/$dir.work
	mount -t overlay -o lowerdir=/$dir,upperdir=/run/node/$dir.upper,workdir=/run/node/$dir.work overlay /$dir
done
for dir in containerd containers; do
	mkdir -p /var/lib/$dir
	mount -t tmpfs -o mode=711 tmpfs /var/lib/$dir
done
mount -t bpf -o mode=700 bpf /sys/fs/bpf
mount --make-rshared /
echo "$2" >/proc/sys/kernel/hostname
echo ready
exec >/dev/null
while :; do sleep 3600 & wait; done
`;

/**
 * The node ends with this process, whichever way this one ends.
 * @throws Error saying what could not be set up
 */
export async function startNode(host: LabHost, options: { signal?: AbortSignal | undefined } = {}): Promise<LabNode> {
	const dir = dirname(host.socket);
	mkdirSync(dir, { recursive: true, mode: 0o700 });
	const [file = "", ...args] = [
		...["setpriv", "--pdeathsig", "KILL", "--"],
		...inNetns(host.netns, ["unshare", "--mount", "--propagation", "slave", "--uts", "--ipc"]),
		...["--pid", "--fork", "--mount-proc", "--kill-child", "sh", "-ec", SETUP, "sh", dir, host.name],
	];
	options.signal?.throwIfAborted();
	const child = spawn(file, args, { stdio: ["ignore", "pipe", "pipe"] });
	const parent = child.pid;
	if (parent === undefined) throw new Error(`Cannot make a node of ${host.name}: ${file} did not start`);
	writeFileSync(recordOf(host), `${parent}\n`);
	try {
		await becomesReady(child, host);
		options.signal?.throwIfAborted();
		return nodeOf(host, child, parent);
	} catch (error) {
		await end(child);
		await clean(recordOf(host), parent);
		throw error;
	}
}

/** Nodes that an earlier process started: their processes have ended with it, what is left is removed. */
export async function stopRecordedNodes(dir: string): Promise<void> {
	const files = existsSync(dir) ? readdirSync(dir).filter((file) => file.endsWith(".node")) : [];
	for (const file of files) {
		const parent = Number(readFileSync(`${dir}/${file}`, "utf8"));
		if (isNode(parent, dir)) kill(firstOf(parent) ?? parent);
		while (isNode(parent, dir)) await setTimeout(POLL_MS);
		await clean(`${dir}/${file}`, parent);
	}
}

const recordOf = (host: LabHost): string => host.socket.replace(/\.sock$/, ".node");

function nodeOf(host: LabHost, child: ChildProcess, parent: number): LabNode {
	const pid = firstOf(parent);
	if (pid === undefined) throw new Error(`Cannot make a node of ${host.name}: its first process has ended`);
	const cgroup = cgroupOf(recordOf(host), parent);
	const argv = (inner: readonly string[], ...options: string[]): string[] => [
		...["nsenter", "--target", String(pid), "--mount", "--uts", "--ipc", "--net", "--pid", ...options, "--"],
		...inner,
	];
	return {
		host,
		pid,
		cgroup,
		argv,
		run: (inner, options) => run(argv(inner), options),
		path: (inside) => `/proc/${pid}/root${inside}`,
		stop: async () => {
			await end(child);
			await clean(recordOf(host), parent);
		},
	};
}

async function becomesReady(child: ChildProcess, host: LabHost): Promise<void> {
	let said = "";
	let complaint = "";
	child.stderr?.setEncoding("utf8").on("data", (text: string) => {
		complaint += text;
	});
	await new Promise<void>((resolve, reject) => {
		child.stdout?.setEncoding("utf8").on("data", (text: string) => {
			said += text;
			if (said.includes("ready\n")) resolve();
		});
		child.once("error", reject);
		child.once("close", (code) =>
			reject(new Error(`Cannot make a node of ${host.name}: ${complaint.trim() || `exit code ${code}`}`)),
		);
	});
}

/** With the first process, the kernel ends all others; its parent exits when they have ended. */
async function end(child: ChildProcess): Promise<void> {
	if (child.exitCode !== null || child.signalCode !== null) return;
	const exited = once(child, "exit");
	kill(firstOf(child.pid ?? 0) ?? (child.pid as number));
	await exited;
}

function kill(pid: number): void {
	try {
		process.kill(pid, "SIGKILL");
	} catch (error) {
		if ((error as NodeJS.ErrnoException).code !== "ESRCH") throw error;
	}
}

/** The node's first process. */
function firstOf(parent: number): number | undefined {
	try {
		return Number(readFileSync(`/proc/${parent}/task/${parent}/children`, "utf8").trim()) || undefined;
	} catch {
		return undefined; // it has ended
	}
}

function isNode(parent: number, dir: string): boolean {
	try {
		return readFileSync(`/proc/${parent}/cmdline`, "utf8").split("\0").includes(dir);
	} catch {
		return false; // no such process
	}
}

/** cgroups are in no namespace's care: they stay when all their processes have gone. */
async function clean(record: string, parent: number): Promise<void> {
	const name = cgroupOf(record, parent);
	for (const hierarchy of [CGROUPS, ...subdirectories(CGROUPS)]) await removeTree(`${hierarchy}${name}`);
	rmSync(record, { force: true });
}

/** The parent's number makes it different from that of another lab of this name, in another /run. */
function cgroupOf(record: string, parent: number): string {
	const [lab, file = ""] = record.split("/").slice(-2);
	return `/oncache-${lab}-${file.replace(/\.node$/, "")}-${parent}`;
}

async function removeTree(cgroup: string): Promise<void> {
	if (!existsSync(cgroup)) return;
	for (const child of subdirectories(cgroup)) await removeTree(child);
	for (const deadline = performance.now() + EMPTY_LIMIT_MS; ; await setTimeout(POLL_MS))
		try {
			return rmdirSync(cgroup);
		} catch (error) {
			// Its processes may be ending just now.
			if ((error as NodeJS.ErrnoException).code !== "EBUSY" || performance.now() > deadline) throw error;
		}
}

function subdirectories(dir: string): string[] {
	return readdirSync(dir, { withFileTypes: true }).flatMap((entry) =>
		entry.isDirectory() ? [`${dir}/${entry.name}`] : [],
	);
}
