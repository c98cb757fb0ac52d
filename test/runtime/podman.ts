// podman as Debian packages it, as root, with its network from the CNI: on a node of the lab (src/lab/node.ts), at the paths it always has.
//
//   const podman = await startPodman(host, lab);
//   const pod = await podman.run("a");          // also a place for the tests' own tools: { netns, ip }
//   await podman.node.stop();
import { rmSync, writeFileSync } from "node:fs";
import { BIN_DIR, CONF_DIR, NETWORK, type NetworkOptions, writeNetwork } from "../../src/lab/cni.js";
import { run } from "../../src/lab/command.js";
import { BUSYBOX, writeBusyboxImage } from "../../src/lab/image.js";
import { type LabNode, startNode } from "../../src/lab/node.js";
import type { Lab, LabHost } from "../../src/lab/topology.js";

export interface Podman {
	node: LabNode;
	/** Such as "podman version 4.3.1". */
	version: string;
	/** A busybox that sleeps. */
	run(name: string): Promise<PodmanContainer>;
	exec(name: string, argv: readonly string[]): Promise<string>;
	remove(name: string): Promise<void>;
}

export interface PodmanContainer {
	name: string;
	ip: string;
	addresses: string[];
	/** Path of its network namespace for this process. */
	netns: string;
}

export async function startPodman(host: LabHost, lab: Lab, options: NetworkOptions = {}): Promise<Podman> {
	const node = await startNode(host);
	try {
		writeNetwork(node, lab, options);
		writeFileSync(node.path("/etc/containers/containers.conf"), configuration(node));
		const archive = host.socket.replace(/sock$/, "busybox.tar");
		await writeBusyboxImage(archive);
		await run(["sh", "-c", `exec "$@" <${archive}`, "sh", ...node.argv(["podman", "load"])]);
		rmSync(archive);
		const version = (await node.run(["podman", "--version"])).stdout.trim();
		return podmanOf(node, version);
	} catch (error) {
		await node.stop();
		throw error;
	}
}

function podmanOf(node: LabNode, version: string): Podman {
	const podman = async (...args: string[]): Promise<string> => (await node.run(["podman", ...args])).stdout;
	return {
		node,
		version,
		run: async (name) => {
			await podman("run", "--detach", "--name", name, "--network", NETWORK, "--cap-add", "NET_RAW", BUSYBOX);
			const [container] = JSON.parse(await podman("inspect", name)) as [
				{ State: { Pid: number }; NetworkSettings: { Networks: Record<string, { IPAddress: string }> } },
			];
			const ip = container.NetworkSettings.Networks[NETWORK]?.IPAddress ?? "";
			return { name, ip, addresses: [ip], netns: node.path(`/proc/${container.State.Pid}/ns/net`) };
		},
		exec: (name, argv) => podman("exec", name, ...argv),
		remove: async (name) => {
			await podman("rm", "--force", "--time", "0", name);
		},
	};
}

/** No service manager runs on a node. */
const configuration = ({ cgroup }: LabNode): string => `
[containers]
cgroup_parent = "${cgroup}"
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime = "runc"
[network]
network_backend = "cni"
cni_plugin_dirs = ["${BIN_DIR}"]
network_config_dir = "${CONF_DIR}"
default_network = "${NETWORK}"
`;
