// Which network the node has, told from the node's own state: devices first, which are what packets meet, and the CNI's
// configuration for what devices do not tell. Says what ONCache will do with it, and refuses what it must not touch. Pure.
import type { Link } from "../kernel/link.js";
import type { NetworkStatus } from "./api.js";

export interface Evidence {
	links: readonly Pick<Link, "name" | "kind" | "up">[];
	/** "type" of each plugin of the active network configuration; none: it could not be read. */
	plugins: readonly string[];
	/** Where that configuration is. */
	confDir: string | undefined;
}

interface Network {
	name: string;
	/** Devices of it, by name. */
	devices: RegExp;
	/** Plugin types of it. */
	plugins: RegExp;
}

/** In this order: the first that is found. */
const NETWORKS: readonly Network[] = [
	{ name: "Cilium", devices: /^cilium_(host|net|vxlan|geneve)$/, plugins: /^cilium-cni$/ },
	{ name: "OVN-Kubernetes", devices: /^ovn-k8s-mp\d+$/, plugins: /^ovn-k8s-cni-overlay$/ },
	{ name: "Antrea", devices: /^antrea-(gw|tun|wg)\d+$/, plugins: /^antrea$/ },
	{
		name: "Calico",
		devices: /^(vxlan(-v6)?\.calico|cali[\da-f]{11}|wireguard\.cali|bpf(in|out)\.cali)$/,
		plugins: /^calico$/,
	},
	{ name: "Flannel", devices: /^flannel(\.|-v6\.|-wg)/, plugins: /^flannel$/ },
	{ name: "Weave Net", devices: /^(weave|vxlan-6784)$/, plugins: /^weave-net$/ },
	{ name: "kube-router", devices: /^kube-bridge$/, plugins: /^kube-router$/ },
];

const K3S = /\/rancher\/(k3s|rke2)\//;

export function recognise(evidence: Evidence): NetworkStatus {
	const { links, plugins, confDir } = evidence;
	const found = NETWORKS.find(({ devices }) => links.some(({ name }) => devices.test(name)));
	const configured = NETWORKS.find((network) => plugins.some((type) => network.plugins.test(type)));
	const refused = refusalOf(links);
	const network = found ?? configured;
	const name = isCanal(links, plugins) ? "Canal" : (network?.name ?? "unknown");
	const [, distribution] = K3S.exec(confDir ?? "") ?? [];
	const devices = network ? links.filter((link) => network.devices.test(link.name)).map((link) => link.name) : [];
	return {
		name: distribution === undefined || name === "unknown" ? name : `${name} (${distribution})`,
		evidence: [
			...(devices.length > 0 ? [`devices ${shortened(devices)}`] : []),
			...(plugins.length > 0 ? [`network configuration with ${plugins.join(", ")}`] : []),
		],
		plan: refused ?? planOf(links),
		refused: refused !== undefined,
	};
}

/**
 * Why nothing on this host may be accelerated; undefined: it may. What is refused here has a fast path of its own in eBPF,
 * which decides in ways that neither the kernel's routes nor its connection tracking tell.
 */
export function refusalOf(links: Evidence["links"]): string | undefined {
	const has = (name: RegExp): boolean => links.some((link) => name.test(link.name));
	if (has(/^cilium_(host|net|vxlan|geneve)$/))
		return "Cilium forwards the pods' packets by its own eBPF programs and connection tracking, which ONCache cannot read: nothing is attached";
	if (has(/^bpf(in|out)\.cali$/))
		return "Calico's eBPF data plane forwards the pods' packets and has connection tracking of its own, which ONCache cannot read: nothing is attached";
	return undefined;
}

function planOf(links: Evidence["links"]): string {
	const isThere = (test: (link: Evidence["links"][number]) => boolean): boolean => links.some(test);
	const encrypted = links
		.filter(({ kind, name }) => kind === "wireguard" || name === "flannel-wg")
		.map(({ name }) => name);
	const through =
		encrypted.length > 0 ? `; what goes through WireGuard (${encrypted.join(", ")}) stays on the overlay` : "";
	if (isThere(({ kind }) => kind === "vxlan" || kind === "geneve"))
		return `Pod traffic through the VXLAN or Geneve tunnel is accelerated, each tunnel device as its line says${through}`;
	if (encrypted.length > 0)
		return `Nothing between hosts: WireGuard (${encrypted.join(", ")}) encrypts what the fast path would have to send`;
	if (isThere(({ kind, up }) => (kind === "ipip" || kind === "ip6tnl" || kind === "sit") && up))
		return "Nothing between hosts: the overlay is IPIP, which has no inner Ethernet header and no UDP port; Calico does VXLAN with vxlanMode: Always";
	return "Nothing between hosts: there is no tunnel device, so no overlay whose cost could be saved";
}

/** Calico's policies over Flannel's network. */
function isCanal(links: Evidence["links"], plugins: readonly string[]): boolean {
	const has = (name: RegExp): boolean => links.some((link) => name.test(link.name));
	return has(/^flannel\.\d/) && (has(/^cali[\da-f]{11}$/) || plugins.includes("calico"));
}

function shortened(names: readonly string[]): string {
	return names.length > 3 ? `${names.slice(0, 3).join(", ")} and ${names.length - 3} more` : names.join(", ");
}
