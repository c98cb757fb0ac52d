// Calls the real bandwidth plugin as a container runtime does: chained after the plugin that made the pod's devices.
import { inNetns, run } from "../../src/lab/command.js";
import type { LabHost, LabPod } from "../../src/lab/topology.js";

const PLUGIN_DIR = "/usr/lib/cni";

/** bit/s as the plugin's configuration names them, seen from the pod; 0 is no limit. */
export interface Limits {
	ingressRate: number;
	egressRate: number;
}

/** The plugin takes bursts in bits: what the rate gives in this time. */
export const BURST_S = 0.02;

export async function addLimits(host: LabHost, pod: LabPod, limits: Limits): Promise<void> {
	await callBandwidth("ADD", host, pod, limits);
}

/**
 * CNI DEL, and then what the kernel does when the pod goes: the plugin removes its IFB only and leaves the qdiscs to
 * the end of the veth.
 */
export async function removeLimits(host: LabHost, pod: LabPod, limits: Limits): Promise<void> {
	await callBandwidth("DEL", host, pod, limits);
	for (const qdisc of ["root", "ingress"])
		await run(inNetns(host.netns, ["tc", "qdisc", "del", "dev", pod.veth, qdisc]), { anyCode: true });
}

async function callBandwidth(command: "ADD" | "DEL", host: LabHost, pod: LabPod, limits: Limits): Promise<void> {
	const { ingressRate, egressRate } = limits;
	const configuration = {
		cniVersion: "0.4.0",
		name: "lab",
		type: "bandwidth",
		...(ingressRate > 0 ? { ingressRate, ingressBurst: ingressRate * BURST_S } : {}),
		...(egressRate > 0 ? { egressRate, egressBurst: egressRate * BURST_S } : {}),
		prevResult: {
			cniVersion: "0.4.0",
			interfaces: [{ name: pod.veth }, { name: "eth0", mac: pod.mac, sandbox: pod.netns }],
			ips: [{ version: "4", interface: 1, address: `${pod.ip}/24`, gateway: host.gateway }],
		},
	};
	const environment = {
		CNI_COMMAND: command,
		CNI_CONTAINERID: pod.name,
		CNI_NETNS: pod.netns,
		CNI_IFNAME: "eth0",
		CNI_PATH: PLUGIN_DIR,
	};
	const variables = Object.entries(environment).map(([name, value]) => `${name}=${value}`);
	const argv = inNetns(host.netns, ["env", ...variables, `${PLUGIN_DIR}/bandwidth`]);
	await run(argv, { input: JSON.stringify(configuration) });
}
