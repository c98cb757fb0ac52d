// How pods hang on their host, as the plugins do it that make them: bridge (with hairpinMode or without), ptp, Calico.
// Answers lines for ip -batch and sysctls.
import {
	BRIDGE,
	isRouted,
	type LabHost,
	type LabPod,
	type LabSpec,
	nameOf,
	type PodSubnet,
	podMtu,
} from "./topology.js";
import { addLine } from "./underlay.js";

/** Calico's gateway: no host has it, every host answers for it. */
const LINK_LOCAL = { 4: "169.254.1.1", 6: "fe80::ecee:eeff:feee:eeee" } as const;
const CALICO_MAC = "ee:ee:ee:ee:ee:ee";

export function podWires(host: LabHost, spec: LabSpec): string[] {
	const mtu = podMtu(spec);
	if (spec.podNetwork === "netkit") return [];
	return host.pods.map(
		(pod) =>
			`link add ${pod.veth} mtu ${mtu} netns ${nameOf(host.netns)} type veth ` +
			`peer name eth0 address ${pod.mac} mtu ${mtu} netns ${nameOf(pod.netns)}`,
	);
}

/** On the host: iproute2 < 6.7 makes pairs of netkit devices, but does not name the other end. */
export function netkitLines(host: LabHost, spec: LabSpec): string[] {
	if (spec.podNetwork !== "netkit") return [];
	return host.pods.map(({ veth }) => `link add ${veth} mtu ${podMtu(spec)} type netkit`);
}

/** Likewise: the other ends into their pods. `peers`: their names, by those of the devices. */
export function netkitPeerLines(host: LabHost, spec: LabSpec, peers: ReadonlyMap<string, string>): string[] {
	return host.pods.map(
		({ veth, netns }) => `link set ${peers.get(veth)} mtu ${podMtu(spec)} name eth0 netns ${nameOf(netns)}`,
	);
}

/** Inside the pod. */
export function podLines(pod: LabPod, host: LabHost, spec: LabSpec): string[] {
	const links = ["link set lo up", "link set eth0 up"];
	const addresses = host.subnets.flatMap((subnet, i) => {
		const ip = pod.addresses[i] as string;
		const { family, length, gateway, cidr } = subnet;
		if (isRouted(spec))
			return [
				addLine(`${ip}/${hostLength(subnet)}`, "eth0"),
				`route add ${LINK_LOCAL[family]} dev eth0 scope link`,
				`route add default via ${LINK_LOCAL[family]} dev eth0`,
			];
		if (spec.podNetwork === "ptp")
			return [
				addLine(`${ip}/${length}`, "eth0", " noprefixroute"),
				`route add ${gateway} dev eth0 scope link src ${ip}`,
				`route add ${cidr} via ${gateway} dev eth0 src ${ip}`,
				`route add default via ${gateway} dev eth0`,
			];
		return [addLine(`${ip}/${length}`, "eth0"), `route add default via ${gateway} dev eth0`];
	});
	return [...links, ...addresses];
}

/** On the host. */
export function hostLines(host: LabHost, spec: LabSpec): string[] {
	if (spec.overlay === "antrea") return host.pods.map(({ veth }) => `link set ${veth} up`);
	if (isRouted(spec)) return routedLines(host, spec);
	if (spec.podNetwork === "ptp") return ptpLines(host);
	return bridgeLines(host, spec);
}

function bridgeLines(host: LabHost, spec: LabSpec): string[] {
	return [
		`link add ${BRIDGE} address ${host.bridgeMac} mtu ${podMtu(spec)} type bridge`,
		`link set ${BRIDGE} up`,
		...host.subnets.map(({ gateway, length }) => addLine(`${gateway}/${length}`, BRIDGE)),
		...host.pods.map(({ veth }) => `link set ${veth} master ${BRIDGE} up`),
		...(spec.podNetwork === "hairpin"
			? host.pods.map(({ veth }) => `link set ${veth} type bridge_slave hairpin on`)
			: []),
	];
}

function routedLines(host: LabHost, { podNetwork }: LabSpec): string[] {
	// A netkit device of the usual kind has no address.
	const address = podNetwork === "netkit" ? "" : `address ${CALICO_MAC} `;
	return [
		// The host answers for what it has a route to. On a real host that is its default route.
		...host.subnets.filter(({ family }) => family === 4).map(() => `route add ${LINK_LOCAL[4]} dev ${host.uplink}`),
		...host.pods.flatMap((pod) => [
			`link set ${pod.veth} ${address}up`,
			...pod.addresses.map((ip) => `route add ${ip} dev ${pod.veth} scope link`),
		]),
	];
}

function ptpLines(host: LabHost): string[] {
	return host.pods.flatMap((pod) => [
		`link set ${pod.veth} up`,
		...host.subnets.flatMap((subnet, i) => [
			addLine(`${subnet.gateway}/${hostLength(subnet)}`, pod.veth),
			`route add ${pod.addresses[i]} dev ${pod.veth} scope host`,
		]),
	]);
}

/** For devices that are there already. */
export function hostSysctls(host: LabHost, spec: LabSpec): string[] {
	// The kernel, too, hears what a switch in user space hears: it shall not answer for it.
	if (spec.datapath === "netdev")
		return [host.uplink, ...host.pods.map(({ veth }) => veth)].map((device) => `net/ipv4/conf/${device}/arp_ignore=8`);
	// The device below has no address; it hears every request, and would answer with its own MAC address.
	const uplink = spec.uplink === "macvlan" ? ["net/ipv4/conf/eth0/arp_ignore=1"] : [];
	if (!isRouted(spec) || host.subnets[0]?.family !== 4) return uplink;
	const pods = host.pods.flatMap(({ veth }) => [
		`net/ipv4/conf/${veth}/proxy_arp=1`,
		// Answers at once, not after up to 0.8 s.
		`net/ipv4/neigh/${veth}/proxy_delay=0`,
	]);
	return [...uplink, ...pods];
}

const hostLength = ({ family }: PodSubnet): number => (family === 4 ? 32 : 128);
