// A node's container runtime: containerd as Debian packages it, at the paths it always has (socket, state, CNI), on a node of
// the lab (node.ts). Pods get their network from the CNI's plugins, in the lab's own bridge and overlay, as under Flannel:
//
//   const containerd = await startContainerd(host, lab);     // the namespaces, the daemon, its images, its CNI configuration
//   await containerd.importImage("image.tar");               // an OCI or Docker archive, for the CRI
//   const cri = await Cri.connect(containerd);               // test/runtime/cri.ts: pods as kubelet makes them
//   await containerd.stop();                                 // pods, processes, mounts, cgroups: nothing is left
//
// The machine's own containerd service is neither used nor touched. labDown() stops it too.
import { mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { dirname } from "node:path";
import { setTimeout } from "node:timers/promises";
import { BIN_DIR, CONF_DIR, type NetworkOptions, writeNetwork } from "./cni.js";
import { run } from "./command.js";
import { BUSYBOX, writeBusyboxImage } from "./image.js";
import { type LabNode, startNode } from "./node.js";
import { patiently } from "./patience.js";
import type { Lab, LabHost } from "./topology.js";

const SOCKET = "/run/containerd/containerd.sock";
const CONFIG = "/etc/containerd/config.toml";
const LOG = "/var/log/containerd.log";
/** The CRI's, in containerd. */
const NAMESPACE = "k8s.io";
const READY_LIMIT_MS = patiently(15_000);
const POLL_MS = 20;

export interface ContainerdOptions extends NetworkOptions {
	signal?: AbortSignal | undefined;
}

export interface Containerd {
	node: LabNode;
	/** Of containerd's API and of the CRI, as this process finds it. */
	socket: string;
	/** Reads an OCI or Docker archive, a file of the machine, with all names in it. @returns these names */
	importImage(file: string): Promise<string[]>;
	/** Ends containerd itself by SIGKILL and starts it again; pods go on. */
	restart(): Promise<void>;
	log(): string;
	stop(): Promise<void>;
}

/** On a host of a lab whose pods have a bridge. @throws Error with the last lines of its log */
export async function startContainerd(host: LabHost, lab: Lab, options: ContainerdOptions = {}): Promise<Containerd> {
	const node = await startNode(host, options);
	try {
		configure(node, lab, options);
		const containerd = containerdOf(node);
		await start(node, options.signal);
		const archive = host.socket.replace(/sock$/, "busybox.tar");
		await writeBusyboxImage(archive, options);
		await importImage(node, archive, options.signal);
		rmSync(archive);
		return containerd;
	} catch (error) {
		await node.stop();
		throw error;
	}
}

function containerdOf(node: LabNode): Containerd {
	const log = (): string => readFileSync(node.path(LOG), "utf8");
	return {
		node,
		socket: node.path(SOCKET),
		log,
		importImage: (file) => importImage(node, file),
		restart: async () => {
			await node.run(["sh", "-c", "kill -9 $(cat /run/containerd.pid)"]);
			await start(node);
		},
		stop: () => node.stop(),
	};
}

/** An orphan in the node, as if its service manager had started it. */
async function start(node: LabNode, signal?: AbortSignal): Promise<void> {
	const command = `setsid containerd >>${LOG} 2>&1 & echo $! >/run/containerd.pid`;
	await node.run(["sh", "-c", command], { signal });
	const deadline = performance.now() + READY_LIMIT_MS;
	for (;;) {
		const { code, stderr } = await node.run(["ctr", "version"], { anyCode: true, signal });
		if (code === 0) return;
		if (performance.now() > deadline) {
			const words = readFileSync(node.path(LOG), "utf8").trim().split("\n").slice(-5).join("\n");
			throw new Error(`Cannot start containerd on ${node.host.name}: ${stderr.trim()}\n${words}`);
		}
		await setTimeout(POLL_MS);
	}
}

async function importImage(node: LabNode, file: string, signal?: AbortSignal): Promise<string[]> {
	// Not on the node: the archive is a file of the machine.
	const ctr = ["ctr", "--address", node.path(SOCKET), "--namespace", NAMESPACE, "images"];
	const { stdout } = await run([...ctr, "import", file], { signal });
	const names = [...stdout.matchAll(/^unpacking (\S+) \(/gm)].map(([, name = ""]) => name);
	const deadline = performance.now() + READY_LIMIT_MS;
	for (;;) {
		// The CRI hears of new images by events, and marks those that it knows.
		const known = await run([...ctr, "list", "--quiet", 'labels."io.cri-containerd.image"==managed'], { signal });
		if (names.every((name) => known.stdout.split("\n").includes(name))) return names;
		if (performance.now() > deadline) throw new Error(`Cannot import image "${file}": the CRI does not see it`);
		await setTimeout(POLL_MS);
	}
}

function configure(node: LabNode, lab: Lab, options: ContainerdOptions): void {
	writeNetwork(node, lab, options);
	mkdirSync(node.path(dirname(CONFIG)), { recursive: true });
	writeFileSync(node.path(CONFIG), CONFIGURATION);
}

/**
 * Without snapshotters that this kernel or machine may lack. Sandboxes would get a lower oom_score_adj than containerd itself, which
 * a machine that is a container or sandbox (no CAP_SYS_RESOURCE) does not allow.
 */
const CONFIGURATION = `
version = 2
disabled_plugins = [
	"io.containerd.internal.v1.opt",
	"io.containerd.snapshotter.v1.aufs",
	"io.containerd.snapshotter.v1.btrfs",
	"io.containerd.snapshotter.v1.devmapper",
	"io.containerd.snapshotter.v1.zfs",
]
[plugins."io.containerd.grpc.v1.cri"]
	sandbox_image = "${BUSYBOX}"
	restrict_oom_score_adj = true
[plugins."io.containerd.grpc.v1.cri".cni]
	bin_dir = "${BIN_DIR}"
	conf_dir = "${CONF_DIR}"
`;
