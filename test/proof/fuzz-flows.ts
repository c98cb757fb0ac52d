// The warm flows that the fuzzing proof sends packets of: every kind that ONCache accelerates, in the world of test/kernel/world.ts.
//
//   pod (pod0) ------.
//                     }--- this host --- wire --- remote host, remote pod
//   other (pod1) ----'
import { formatIp, type Ip, isIpv6, parseIp } from "../../src/net/ip.js";
import type { MacAddress } from "../../src/net/mac.js";
import { POD6, REMOTE6 } from "../kernel/ipv6.js";
import { ethernet, icmp, ipv4, ipv6, tcp, udp } from "../kernel/packet.js";
import {
	ECHO_ID, fromPod, inbound, type L4, MAC, MARK, outbound, POD, REMOTE, tool, toPod, type World,
} from "../kernel/world.js"; // biome-ignore format: a list

/** Where a packet enters or leaves this host. */
export type Place = "pod" | "other" | "wire";

export interface Tuple {
	source: Ip;
	destination: Ip;
	/** Of ICMP echo: the identifier, and 0. */
	sourcePort: number;
	destinationPort: number;
}

/** One direction of a flow. */
export interface Leg {
	l4: L4;
	from: Place;
	to: Place;
	/** As it enters this host, and as it leaves it: a Service's are not the same. */
	enters: Tuple;
	leaves: Tuple;
	translated: boolean;
	/** It is an echo request. */
	asks: boolean;
}

export const OTHER_MAC = "0a:58:00:00:00:03";
export const OTHER_MTU = 1400;
const MAC_OF = { pod: MAC.pod, other: OTHER_MAC };
const [OTHER, OTHER6] = ["10.244.1.3", "fd00:10:244:1::3"];
const [SERVICE, SERVICE6] = ["10.96.0.10", "fd00:10:96::10"];
const PROTOCOL = { 4: { tcp: 6, udp: 17, icmp: 1 }, 6: { tcp: 6, udp: 17, icmp: 58 } };

const swap = ({ source, destination, sourcePort, destinationPort }: Tuple): Tuple => ({
	source: destination,
	destination: source,
	sourcePort: destinationPort,
	destinationPort: sourcePort,
});

/** Both directions of a flow that the pod has begun: to whom, and who that is. */
function flow(l4: L4, to: Place, pod: string, called: string, callee = called): Leg[] {
	const [source, destination] = [parseIp(pod), parseIp(called)];
	const sourcePort = l4 === "icmp" ? ECHO_ID : 40_000 + flows++;
	const destinationPort = l4 === "icmp" ? 0 : 80;
	const enters = { source, sourcePort, destination, destinationPort };
	const translated = callee !== called;
	const leaves = translated ? { ...enters, destination: parseIp(callee), destinationPort: 8080 } : enters;
	return [
		{ l4, from: "pod", to, enters, leaves, translated, asks: true },
		{ l4, from: to, to: "pod", enters: swap(leaves), leaves: swap(enters), translated, asks: false },
	];
}
let flows = 0;

const ANY: L4[] = ["tcp", "udp", "icmp"];
const PORTED: L4[] = ["tcp", "udp"];
/** Both directions of each: to another host and to a pod of this one, directly and through a Service, over IPv4 and IPv6. */
export const FLOWS: readonly (readonly Leg[])[] = [
	...ANY.flatMap((l4) => [flow(l4, "wire", POD, REMOTE), flow(l4, "wire", POD6, REMOTE6)]),
	...ANY.flatMap((l4) => [flow(l4, "other", POD, OTHER), flow(l4, "other", POD6, OTHER6)]),
	...PORTED.flatMap((l4) => [flow(l4, "wire", POD, SERVICE, REMOTE), flow(l4, "wire", POD6, SERVICE6, REMOTE6)]),
	...PORTED.flatMap((l4) => [flow(l4, "other", POD, SERVICE, OTHER), flow(l4, "other", POD6, SERVICE6, OTHER6)]),
];
export const LEGS: readonly Leg[] = FLOWS.flat();

/** A packet of a leg, without Ethernet header. Its L4 checksum says nothing: whoever looks at it is the receiver. */
export function packetOf(
	{ l4, asks }: Leg,
	tuple: Tuple,
	{ tos = 0, ttl = 64 }: { tos?: number; ttl?: number } = {},
): Buffer {
	const family = isIpv6(tuple.source) ? 6 : 4;
	const ports = { source: tuple.sourcePort, destination: tuple.destinationPort };
	const ends = { source: formatIp(tuple.source), destination: formatIp(tuple.destination) };
	const body = {
		tcp: () => tcp(ports, "hello"),
		udp: () => udp({ ...ports, checksum: 0x1234 }, "hello"),
		icmp: () => icmp(family === 4 ? (asks ? 8 : 0) : asks ? 128 : 129, 0, ECHO_ID, "hello"),
	}[l4]();
	return family === 4
		? ipv4({ ...ends, protocol: PROTOCOL[4][l4], tos, ttl }, body)
		: ipv6({ ...ends, nextHeader: PROTOCOL[6][l4], tclass: tos, hopLimit: ttl, flowLabel: 0x54321 }, body);
}

/** As it enters this host, with these ECN bits in it and, from the wire, around it. */
export function entering(leg: Leg, tos: number, outerTos = 0): Buffer {
	const packet = packetOf(leg, leg.enters, { tos });
	if (leg.from === "wire") return inbound(packet, { ip: { tos: outerTos } });
	return fromPod(packet, { source: MAC_OF[leg.from] });
}

/** As the fallback has it where it leaves this host. */
export function leaving(leg: Leg): Buffer {
	const packet = packetOf(leg, leg.leaves, { ttl: 63 });
	if (leg.to === "wire") return outbound(packet);
	return leg.to === "pod" ? toPod(packet) : ethernet({ source: MAC.gateway, destination: OTHER_MAC }, packet);
}

export interface FlowWorld extends World {
	/** ifindex. */
	pod1: number;
}

/** A second pod, and the entries of connection tracking. */
export function prepare(): number {
	tool("ip", "link", "add", "pod1", "mtu", String(OTHER_MTU), "type", "veth", "peer", "name", "eth1");
	// Translation is a part of connection tracking only where a rule has asked for it.
	for (const family of ["ip", "ip6"]) {
		tool("nft", "add", "table", family, "nat");
		tool("nft", `add chain ${family} nat prerouting { type nat hook prerouting priority 0; }`);
	}
	for (const [there] of FLOWS) track(there as Leg);
	return Number(/^(\d+):/.exec(tool("ip", "-o", "link", "show", "pod1"))?.[1]);
}

function track({ l4, enters, leaves, translated }: Leg): void {
	if (l4 === "icmp") return;
	const state = l4 === "tcp" ? ["--state", "ESTABLISHED"] : [];
	const to = formatIp(leaves.destination);
	const dnat = translated ? ["--dst-nat", `${to.includes(":") ? `[${to}]` : to}:${leaves.destinationPort}`] : [];
	tool("conntrack", "-I", "-p", l4, "-s", formatIp(enters.source), "-d", formatIp(enters.destination), "--sport",
		String(enters.sourcePort), "--dport", String(enters.destinationPort), "--timeout", "3600", "--status",
		"SEEN_REPLY,ASSURED", ...state, ...dnat); // biome-ignore format: one command
}

export function addOther(world: World, pod1: number): FlowWorld {
	setPods(world, pod1);
	return { ...world, pod1 };
}

/** As if both pods had just sent from their own addresses: a mutated packet may have been the last, and only frames to its source would teach. */
export function setPods(world: World, pod1: number): void {
	const router = MAC.gateway as MacAddress;
	const common = { shaped: false, router, untracked: false, zones: { ipv4: 0, ipv6: 0 } };
	world.datapath.setVeths([
		{ ...common, ifindex: world.pod0, mtu: 1450 },
		{ ...common, ifindex: pod1, mtu: OTHER_MTU },
	]);
	world.datapath.noteSender(world.pod0, MAC.pod as MacAddress);
	world.datapath.noteSender(pod1, OTHER_MAC as MacAddress);
}

export function teach(world: FlowWorld, leg: Leg): void {
	const veths = { pod: world.pod0, other: world.pod1, wire: world.flannel };
	if (leg.to === "wire") world.run("egress_init", leaving(leg), { mark: MARK });
	else
		world.run("ingress_init", leaving(leg), {
			mark: MARK,
			ifindex: veths[leg.to],
			ingressIfindex: veths[leg.from],
		});
}

/** Its ends, whichever is which: "6 10.244.1.2:40000 10.244.2.2:80". */
export function nameOfFlow(protocol: number, tuple: Tuple): string {
	const ends = [`${tuple.source}:${tuple.sourcePort}`, `${tuple.destination}:${tuple.destinationPort}`];
	return `${protocol} ${ends.sort().join(" ")}`;
}

export const KNOWN: ReadonlySet<string> = new Set(
	LEGS.flatMap((leg) =>
		[leg.enters, leg.leaves].map((tuple) => nameOfFlow(PROTOCOL[isIpv6(tuple.source) ? 6 : 4][leg.l4], tuple)),
	),
);
export const OWN_PODS: readonly Ip[] = [POD, OTHER, POD6, OTHER6].map(parseIp);
