// The overlay under attack: three hosts with two pods each, a machine in the underlay that is no host (h4, also on a cable
// of its own to h1), and a station at each pod, at that machine and at the third host's uplink. The pods themselves are mute.
//
//   h1: h1p1 (victim), h1p2 (neighbour)    h2: h2p1 (the victim's partner), h2p2    h3: h3p1, h3p2    h4: fabric, cable
import type { FlowList, Status } from "../../src/agent/api.js";
import { agentRequest } from "../../src/agent/client.js";
import { type LabAgent, startAgent } from "../../src/lab/agent.js";
import { inNetns, run } from "../../src/lab/command.js";
import { labDown, labUp } from "../../src/lab/lab.js";
import { DEFAULT_SPEC, type Lab, type LabHost, type LabPod, macOf, prefix } from "../../src/lab/topology.js";
import { parseIpv4 } from "../../src/net/ipv4.js";
import { checksum, ethernet, icmp, ipv4, tcp, udp } from "../kernel/packet.js";
import { openStation, type Station } from "./station.js";

export const PLACES = ["h1p1", "h1p2", "h2p1", "h2p2", "h3p1", "h3", "h4", "cable"] as const;
export type Place = (typeof PLACES)[number];
export type L4 = "tcp" | "udp" | "icmp";
export const L4S: readonly L4[] = ["tcp", "udp", "icmp"];
const PROTOCOL = { icmp: 1, tcp: 6, udp: 17 } as const;
const PORTS = { local: 40000, remote: 80 };
const ECHO_ID = 777;
/** For a frame to arrive, or for flows to become warm: after an attack with forged marks ONCache does not ask for a second. */
const LIMIT_MS = 5000;

export interface Field {
	lab: Lab;
	stations: Record<Place, Station>;
	/** Of hosts with an agent. */
	hosts: LabHost[];
	down(): Promise<void>;
}

export const STRANGER = { ip: "192.168.77.66", mac: macOf(0x10, 66, 0), cableMac: macOf(0x10, 67, 0) };
export const CABLE_MAC = macOf(0x10, 68, 0);

/** Agents with `args` on all hosts unless undefined. */
export async function openField(name: string, args: readonly string[] | undefined): Promise<Field> {
	await labDown(name);
	const lab = await labUp({ ...DEFAULT_SPEC, name, hosts: 3 });
	const opened: { close(): Promise<void> }[] = [];
	const down = async (): Promise<void> => {
		await Promise.all(opened.map((each) => each.close()));
		await labDown(name);
	};
	try {
		await addStranger(lab);
		for (const host of lab.hosts) await run(inNetns(host.netns, ["sysctl", "-qw", ...HOST_SYSCTLS]));
		for (const pod of lab.hosts.flatMap(({ pods }) => pods))
			await run(inNetns(pod.netns, ["iptables", "-A", "INPUT", "-j", "DROP"]));
		const stations = {} as Record<Place, Station>;
		for (const place of PLACES) {
			const { netns, device } = siteOf(lab, place);
			const station = await openStation(netns, device);
			stations[place] = station;
			opened.push(station);
		}
		if (args)
			for (const host of lab.hosts) {
				const agent: LabAgent = await startAgent(host, { args });
				opened.unshift({ close: () => agent.stop() });
			}
		return { lab, stations, hosts: args ? lab.hosts : [], down };
	} catch (error) {
		await down();
		throw error;
	}
}

/** As the agent sets it; no connection times out, no ICMP error is left out for there being many: time is not the subject. */
const HOST_SYSCTLS = [
	"net.netfilter.nf_conntrack_tcp_be_liberal=1",
	"net.netfilter.nf_conntrack_icmp_timeout=6000",
	"net.netfilter.nf_conntrack_udp_timeout=6000",
	"net.netfilter.nf_conntrack_udp_timeout_stream=6000",
	"net.ipv4.icmp_ratemask=0",
];

function siteOf(lab: Lab, place: Place): { netns: string; device: string } {
	if (place === "h4" || place === "cable") return { netns: strangerOf(lab), device: place === "h4" ? "eth0" : "eth1" };
	const host = hostOf(lab, place);
	return place.length === 2
		? { netns: host.netns, device: host.uplink }
		: { netns: podOf(lab, place).netns, device: "eth0" };
}

/** The lab's own clean-up finds it by this name. */
const strangerOf = (lab: Lab): string => `/run/netns/${prefix(lab.spec.name)}h4`;

export function hostOf(lab: Lab, place: string): LabHost {
	return lab.hosts.find(({ name }) => place.startsWith(name)) as LabHost;
}

export function podOf(lab: Lab, place: string): LabPod {
	return hostOf(lab, place).pods.find(({ name }) => name === place) as LabPod;
}

async function addStranger(lab: Lab): Promise<void> {
	const name = `${prefix(lab.spec.name)}h4`;
	const [h1] = lab.hosts as [LabHost];
	const nameIn = (netns: string): string => netns.slice(netns.lastIndexOf("/") + 1);
	const lines = [
		`netns add ${name}`,
		`link add eth0 address ${STRANGER.mac} netns ${name} type veth peer name port-h4 netns ${nameIn(lab.fabric ?? "")}`,
		`link add eth1 address ${STRANGER.cableMac} netns ${name} type veth ` +
			`peer name eth9 address ${CABLE_MAC} netns ${nameIn(h1.netns)}`,
	];
	await run(["ip", "-batch", "-"], { input: lines.join("\n") });
	await run(inNetns(strangerOf(lab), ["sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=1"]));
	await run(inNetns(strangerOf(lab), ["ip", "-batch", "-"]), { input: "link set eth0 up\nlink set eth1 up\n" });
	await run(inNetns(lab.fabric ?? "", ["ip", "link", "set", "port-h4", "master", "fabric", "up"]));
	await run(inNetns(h1.netns, ["ip", "link", "set", "eth9", "up"]));
}

export interface Flavour {
	tos?: number;
	ttl?: number;
	/** TCP only. */
	flags?: number;
	payload: string;
}

/** A packet of a warm flow: from the victim, or from its partner. */
export function flowPacket(lab: Lab, l4: L4, from: "h1p1" | "h2p1", { payload, flags, ...header }: Flavour): Buffer {
	const isOut = from === "h1p1";
	const ports = isOut
		? { source: PORTS.local, destination: PORTS.remote }
		: { source: PORTS.remote, destination: PORTS.local };
	const body = {
		tcp: () => tcp({ ...ports, ...(flags !== undefined && { flags }) }, payload),
		udp: () => udp(ports, payload),
		icmp: () => icmp(isOut ? 8 : 0, 0, ECHO_ID, payload),
	}[l4]();
	const [source, destination] = [podOf(lab, from).ip, podOf(lab, isOut ? "h2p1" : "h1p1").ip];
	// Connection tracking calls a TCP segment with a wrong checksum invalid.
	if (l4 === "tcp") body.writeUInt16BE(checksum(pseudoHeader(source, destination, body.length), body), 16);
	return ipv4({ source, destination, protocol: PROTOCOL[l4], ...header }, body);
}

function pseudoHeader(source: string, destination: string, length: number): Buffer {
	const bytes = Buffer.alloc(12);
	bytes.writeUInt32BE(parseIpv4(source), 0);
	bytes.writeUInt32BE(parseIpv4(destination), 4);
	bytes.writeUInt16BE(PROTOCOL.tcp, 8);
	bytes.writeUInt16BE(length, 10);
	return bytes;
}

export const gatewayMac = (lab: Lab, place: string): string =>
	macOf(0x30, lab.hosts.indexOf(hostOf(lab, place)) + 1, 0);

/** As a pod sends it to its gateway. */
export function podFrame(lab: Lab, place: Place, packet: Buffer, mac = podOf(lab, place).mac): Buffer {
	return ethernet({ source: mac, destination: gatewayMac(lab, place) }, packet);
}

/** A one-way datagram that belongs to no flow. */
export function strayPacket(source: string, destination: string, payload: string): Buffer {
	return ipv4({ source, destination, protocol: 17 }, udp({ source: 1009, destination: 9 }, payload));
}

/** Sends a frame and awaits the one with `sign` at `to`; what else arrives there is returned too. */
export async function sendAndAwait(
	field: Field,
	from: Place,
	frames: readonly Buffer[],
	to: Place,
	sign: string,
): Promise<string[]> {
	// biome-ignore format: a signature
	const hex = Buffer.from(sign).toString("hex");
	await field.stations[from].exchange(frames);
	const got: string[] = [];
	const deadline = performance.now() + LIMIT_MS;
	for (;;) {
		got.push(...(await field.stations[to].exchange([])));
		if (got.some((frame) => frame.includes(hex))) return got;
		if (performance.now() > deadline) throw new Error(`"${sign}" from ${from} did not arrive at ${to}`);
	}
}

let rounds = 0;

/** Both directions of the three flows, until ONCache uses them; a TCP connection begins anew. */
export async function warm(field: Field): Promise<void> {
	for (const l4 of L4S) {
		const opening = l4 === "tcp" ? [0x02, 0x12, 0x10, 0x10] : [undefined, undefined];
		for (const [i, flags] of opening.entries()) await say(field, l4, i % 2 === 0 ? "h1p1" : "h2p1", flags);
	}
	const deadline = performance.now() + LIMIT_MS;
	while (performance.now() < deadline) {
		for (const l4 of L4S) {
			await say(field, l4, "h1p1", undefined);
			await say(field, l4, "h2p1", undefined);
		}
		if (field.hosts.length === 0) return;
		const flows = (await flowsOf(field)).filter((flow) => flow.includes("usable usable"));
		if (flows.length === 2 * L4S.length) return;
	}
	throw new Error(`The flows do not become warm: ${(await flowsOf(field)).join("; ")}`);
}

async function say(field: Field, l4: L4, from: "h1p1" | "h2p1", flags: number | undefined): Promise<void> {
	const payload = `warm${String(rounds++).padStart(8, "0")}.`;
	const packet = flowPacket(field.lab, l4, from, { payload, ...(flags !== undefined && { flags }) });
	await sendAndAwait(field, from, [podFrame(field.lab, from, packet)], from === "h1p1" ? "h2p1" : "h1p1", payload);
}

/** All that the caches say of flows but their age, one line each. */
export async function flowsOf(field: Field): Promise<string[]> {
	const lists = field.hosts.map(async (host) => {
		const { flows } = await agentRequest<FlowList>(host.socket, "GET", "/v1/flows?limit=1000");
		return flows.map(({ protocol, local, remote, veth, host: peer, egress, ingress }) =>
			[host.name, protocol, local.ip, local.port, remote.ip, remote.port, veth, peer, egress.state, ingress.state].join(
				" ",
			),
		);
	});
	return (await Promise.all(lists)).flat().sort();
}

/** A TCP connection that somebody else has half closed stays so: the hosts forget all connections, and all flows. */
export async function forgetConnections({ lab, hosts }: Field): Promise<void> {
	for (const host of hosts) await agentRequest(host.socket, "POST", "/v1/flush", { all: true });
	await Promise.all(lab.hosts.map(({ netns }) => run(inNetns(netns, ["conntrack", "-F"]))));
}

export interface Counted {
	host: string;
	egressFast: number;
	ingressFast: number;
	/** Because the kernel would do something else: who forges a MAC address moves the bridge's entry, here as without ONCache. */
	evicted: number;
	learned: number;
}

export async function countedIn(field: Field): Promise<Counted[]> {
	return Promise.all(
		field.hosts.map(async (host) => {
			const { packets, lessons, coherency } = await agentRequest<Status>(host.socket, "GET", "/v1/status");
			return {
				host: host.name,
				egressFast: packets.egress.fast,
				ingressFast: packets.ingress.fast,
				evicted: coherency?.evicted ?? 0,
				learned: (lessons.egress.learned ?? 0) + (lessons.ingress.learned ?? 0),
			};
		}),
	);
}
