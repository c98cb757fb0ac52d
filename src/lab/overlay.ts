// The overlay: tunnel devices, and what an agent such as flanneld enters about every peer. Answers lines for
// ip -batch and bridge -batch.
import {
	BRIDGE,
	type Family,
	isDirect,
	type Lab,
	type LabHost,
	type LabTunnel,
	type PodSubnet,
	podMtu,
	tunnelTo,
} from "./topology.js";
import { addLine } from "./underlay.js";

export function deviceLines(host: LabHost, lab: Lab): string[] {
	if (lab.spec.overlay === "antrea") return []; // the switch makes its own
	return host.tunnels.flatMap((tunnel) => [
		deviceLine(tunnel, host, lab),
		...(tunnel.families.includes(6) ? [`link set ${tunnel.name} addrgenmode none`] : []),
		`link set ${tunnel.name} up`,
		...(lab.spec.overlay === "bridged" ? [] : tunnelAddresses(tunnel, host)),
	]);
}

/** For each peer route and neighbour. */
export function peerLines(host: LabHost, lab: Lab): string[] {
	if (lab.spec.overlay === "antrea") return [];
	if (lab.spec.overlay === "bridged")
		return [`link set ${host.tunnel} master ${BRIDGE}`, ...bridgedNeighbours(host, lab)];
	const peers = lab.hosts.filter((other) => other !== host);
	return [
		...peers.flatMap((peer) => host.subnets.flatMap(({ family }, i) => lines(family, i, peer))),
		...(lab.spec.overlay === "calico" ? ownBlocks() : []),
	];

	function lines(family: Family, i: number, peer: LabHost): string[] {
		const subnet = peer.subnets[i] as PodSubnet;
		const blocks = blocksOf(subnet, lab);
		if (isDirect(lab, host, peer))
			return blocks.map((block) => `route add ${block} via ${peer.nodeIps[family]} dev ${host.uplink}`);
		const { name } = tunnelTo(host, peer, family);
		const far = tunnelTo(peer, host, family).mac;
		return [
			...blocks.map((block) => `route add ${block} via ${subnet.tunnelAddress} dev ${name} onlink`),
			`neigh add ${subnet.tunnelAddress} lladdr ${far} dev ${name} nud permanent`,
		];
	}

	/** What no pod has is nowhere else. */
	function ownBlocks(): string[] {
		return host.subnets.flatMap((subnet) => blocksOf(subnet, lab).map((block) => `route add blackhole ${block}`));
	}
}

/** bridge -batch: behind which host a MAC address is. */
export function fdbEntries(host: LabHost, lab: Lab): string[] {
	const peers = lab.hosts.filter((other) => other !== host && !isDirect(lab, host, other));
	const { overlay, fdb, underlay } = lab.spec;
	if (overlay === "geneve" || overlay === "antrea") return []; // such a device has one peer, or the flows say which
	const add = (mac: string, device: string, family: Family, peer: LabHost, how = "add"): string =>
		`fdb ${how} ${mac} dev ${device} dst ${peer.nodeIps[family]}`;
	if (overlay === "bridged") {
		const family = underlay === "ipv6" ? 6 : 4;
		if (fdb === "learning") return peers.map((peer) => add("00:00:00:00:00:00", host.tunnel, family, peer, "append"));
		return peers.flatMap((peer) =>
			[peer.bridgeMac, ...peer.pods.map(({ mac }) => mac)].map((mac) => add(mac, host.tunnel, family, peer)),
		);
	}
	return peers.flatMap((peer) => {
		const ways = host.subnets.map(
			({ family }) => [tunnelTo(host, peer, family), tunnelTo(peer, host, family)] as const,
		);
		const lines = ways.map(([near, far]) => add(far.mac, near.name, near.underlay, peer));
		return [...new Set(lines)];
	});
}

function deviceLine(tunnel: LabTunnel, host: LabHost, lab: Lab): string {
	const { overlay, port, fdb } = lab.spec;
	const start = `link add ${tunnel.name} address ${tunnel.mac} mtu ${podMtu(lab.spec)}`;
	const end = `dstport ${port}`;
	if (overlay === "geneve") {
		const peer = lab.hosts.find(({ name }) => name === tunnel.peer) as LabHost;
		return `${start} type geneve id ${tunnel.vni} remote ${peer.nodeIps[tunnel.underlay]} ${end} ${checksumWords(tunnel, lab)}`;
	}
	const learning =
		overlay !== "bridged" ? "nolearning" : fdb === "static" ? "nolearning proxy l2miss l3miss" : "learning";
	return (
		`${start} type vxlan id ${tunnel.vni} local ${host.nodeIps[tunnel.underlay]} ` +
		`dev ${host.uplink} ${end} ${learning} ${checksumWords(tunnel, lab)}`
	);
}

/** RFC 6935 lets a tunnel over IPv6 do without the checksum that UDP must have there. */
function checksumWords({ underlay }: LabTunnel, { spec }: Lab): string {
	if (underlay === 4) return spec.udpChecksum ? "udpcsum" : "noudpcsum";
	return spec.udpChecksum ? "noudp6zerocsumtx noudp6zerocsumrx" : "udp6zerocsumtx udp6zerocsumrx";
}

function tunnelAddresses({ name, families }: LabTunnel, host: LabHost): string[] {
	return host.subnets
		.filter(({ family }) => families.includes(family))
		.map(({ tunnelAddress, family }) => addLine(`${tunnelAddress}/${family === 4 ? 32 : 128}`, name));
}

/** As Docker enters them: the tunnel device answers the pods' questions for addresses elsewhere. */
function bridgedNeighbours(host: LabHost, { hosts, spec }: Lab): string[] {
	if (spec.fdb === "learning") return [];
	const line = (ip: string, mac: string): string => `neigh add ${ip} lladdr ${mac} dev ${host.tunnel} nud permanent`;
	return hosts
		.filter((other) => other !== host)
		.flatMap((peer) => [
			...peer.subnets.map(({ gateway }) => line(gateway, peer.bridgeMac)),
			...peer.pods.flatMap((pod) => pod.addresses.map((ip) => line(ip, pod.mac))),
		]);
}

/** Calico gives a host blocks of 64 addresses; others give it one subnet. */
function blocksOf(subnet: PodSubnet, { spec }: Lab): string[] {
	if (spec.overlay !== "calico") return [subnet.cidr];
	const count = Math.ceil((spec.pods + 2) / 64);
	const [start = ""] = subnet.cidr.split("/");
	return Array.from({ length: count }, (_, i) =>
		subnet.family === 4
			? `${start.replace(/\.0$/, `.${i * 64}`)}/26`
			: `${start}${i === 0 ? "" : (i * 64).toString(16)}/122`,
	);
}
