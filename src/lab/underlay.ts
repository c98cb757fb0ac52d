// The network that joins the hosts: cables, what they are plugged into, uplinks. Answers lines for ip -batch.
import {
	type Family,
	type Lab,
	type LabHost,
	macOf,
	nameOf,
	segmentOf,
	UPLINK_MTU,
	underlayAddress,
	underlayLength,
	uplinkFamilies,
} from "./topology.js";

/** Two hosts share a cable; more are plugged into bridges in a namespace of their own. A bond has two cables. */
export function cables({ hosts, fabric, spec }: Lab): string[] {
	const [first, second] = hosts as [LabHost, LabHost];
	const devices = spec.uplink === "bond" ? ["eth0", "eth1"] : ["eth0"];
	return devices.flatMap((device) => {
		if (!fabric) return [`${end(first, device)} type veth peer name ${end(second, device).replace("link add ", "")}`];
		return hosts.map(
			(host) => `${end(host, device)} type veth peer name ${port(host, device)} netns ${nameOf(fabric)}`,
		);
	});

	function end(host: LabHost, device: string): string {
		const isBelow = spec.uplink === "macvlan" || device === "eth1";
		const mac = isBelow ? macOf(0x11, host.number, 0) : host.mac;
		return `link add ${device} address ${mac} mtu ${UPLINK_MTU} netns ${nameOf(host.netns)}`;
	}
}

const port = (host: LabHost, device: string): string => `port-${host.name}${device === "eth1" ? "b" : ""}`;

/** A bridge for each subnet of the underlay, and routing between them if there are two. */
export function fabricLines({ hosts, spec }: Lab): string[] {
	const bridgeOf = (segment: number): string => (spec.direct ? `fabric${segment}` : "fabric");
	const segments = [...new Set(hosts.map((host) => segmentOf(spec, host.number)))];
	return [
		...segments.flatMap((segment) => [
			`link add ${bridgeOf(segment)} type bridge`,
			`link set ${bridgeOf(segment)} up`,
			...(spec.direct ? uplinkFamilies(spec).map((family) => gatewayLine(family, segment, bridgeOf(segment))) : []),
		]),
		...hosts.flatMap((host) =>
			(spec.uplink === "bond" ? ["eth0", "eth1"] : ["eth0"]).map(
				(device) => `link set ${port(host, device)} master ${bridgeOf(segmentOf(spec, host.number))} up`,
			),
		),
	];
}

function gatewayLine(family: Family, segment: number, bridge: string): string {
	return addLine(`${underlayAddress(family, segment, 254)}/${underlayLength(family)}`, bridge);
}

/** The uplink with its addresses. */
export function uplinkLines(host: LabHost, { hosts, spec }: Lab): string[] {
	const { uplink, mac } = host;
	const devices = {
		veth: [],
		aliased: [],
		macvlan: ["link set eth0 up", `link add link eth0 name ${uplink} address ${mac} type macvlan mode bridge`],
		vlan: ["link set eth0 up", `link add link eth0 name ${uplink} type vlan id 77`],
		bond: [
			`link add ${uplink} address ${mac} type bond mode active-backup miimon 100`,
			...["eth0", "eth1"].map((device) => `link set ${device} master ${uplink}`),
			// Else each end takes the one that was up first, and two ends may have taken different cables.
			`link set ${uplink} type bond primary eth0`,
		],
	}[spec.uplink];
	const own = segmentOf(spec, host.number);
	const other = hosts.map(({ number }) => segmentOf(spec, number)).find((segment) => segment !== own);
	return [
		...devices,
		`link set ${uplink} up`,
		...uplinkFamilies(spec).flatMap((family) => {
			const length = underlayLength(family);
			const alias = `${underlayAddress(family, own, 100 + host.number)}/${length}`;
			return [
				...(spec.uplink === "aliased" ? [addLine(alias, uplink)] : []),
				addLine(`${host.nodeIps[family]}/${length}`, uplink),
				...(other
					? [`route add ${underlayAddress(family, other, 0)}/${length} via ${underlayAddress(family, own, 254)}`]
					: []),
			];
		}),
	];
}

/** IPv6 addresses are usable at once, without asking the neighbours whether they have them. */
export function addLine(address: string, device: string, more = ""): string {
	return `addr add ${address} dev ${device}${more}${address.includes(":") ? " nodad" : ""}`;
}
