// A node's container network: the CNI's plugins and their configuration, where runtimes look for them. Pods get their devices on
// the lab's own bridge and their addresses from the host's subnet, as Flannel's plugin has it done.
import { mkdirSync, readdirSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { basename, join } from "node:path";
import type { LabNode } from "./node.js";
import { BRIDGE, type Lab, type LabHost, POD_NETWORK, podMtu } from "./topology.js";

export const CONF_DIR = "/etc/cni/net.d";
export const BIN_DIR = "/opt/cni/bin";
export const NETWORK = "cbr0";
/** Where Debian has the reference plugins. */
const PLUGINS = "/usr/lib/cni";
/** The lab's own pods have lower ones. */
const FIRST_ADDRESS = 102;
const MOST_ADDRESSES = 150;

export interface NetworkOptions {
	/** How many, for pods of the CNI, 1..150; default 150. */
	addresses?: number;
	/** Further plugins at the end of the chain, as they stand in a conflist. */
	chained?: readonly object[];
	/** Programs of such plugins, files of the machine. */
	programs?: readonly string[];
}

/** On a node whose lab has a bridge and IPv4. Configurations of the machine are none of the node's. */
export function writeNetwork(node: LabNode, lab: Lab, options: NetworkOptions): void {
	for (const dir of [CONF_DIR, BIN_DIR]) {
		mkdirSync(node.path(dir), { recursive: true });
		for (const name of readdirSync(node.path(dir))) rmSync(node.path(join(dir, name)), { recursive: true });
	}
	const programs = [...readdirSync(PLUGINS).map((name) => join(PLUGINS, name)), ...(options.programs ?? [])];
	for (const program of programs) symlinkSync(program, node.path(join(BIN_DIR, basename(program))));
	const list = JSON.stringify(conflist(node.host, lab, options), null, "\t");
	writeFileSync(node.path(join(CONF_DIR, "10-flannel.conflist")), `${list}\n`);
}

/** What Flannel's plugin gives to the bridge plugin, and the chain of its manifest. */
function conflist(host: LabHost, { spec }: Lab, { addresses = MOST_ADDRESSES, chained = [] }: NetworkOptions): object {
	const start = host.podCidr.replace(/\.0\/24$/, "");
	const range = {
		subnet: host.podCidr,
		rangeStart: `${start}.${FIRST_ADDRESS}`,
		rangeEnd: `${start}.${FIRST_ADDRESS + addresses - 1}`,
		gateway: host.gateway,
	};
	return {
		cniVersion: "1.0.0",
		name: NETWORK,
		plugins: [
			{
				type: "bridge",
				bridge: BRIDGE,
				mtu: podMtu(spec),
				isGateway: true,
				isDefaultGateway: true,
				hairpinMode: true,
				ipMasq: false,
				ipam: { type: "host-local", ranges: [[range]], routes: [{ dst: POD_NETWORK }] },
			},
			{ type: "portmap", capabilities: { portMappings: true } },
			...chained,
		],
	};
}
