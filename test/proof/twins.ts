// Two labs with the same addresses, one with ONCache: the same frames go into both, and what comes out anywhere is compared.
import { setTimeout } from "node:timers/promises";
import type { Status } from "../../src/agent/api.js";
import { agentRequest } from "../../src/agent/client.js";
import { type LabAgent, startAgent } from "../../src/lab/agent.js";
import { inNetns, run } from "../../src/lab/command.js";
import { labDown, labUp } from "../../src/lab/lab.js";
import { type Lab, type LabSpec, specOf, uplinkFamilies } from "../../src/lab/topology.js";
import { checksum } from "../kernel/packet.js";
import type { Case } from "./cases.js";
import { RawSocket, VNET_BYTES } from "./raw-socket.js";

/** A frame may be under way so long; only a difference is waited for. */
const LATE_MS = 300;
const TUNNEL_PORT = 8472;
const ICMP = 1;
const UDP = 17;
const UDP_OVER_IPV4 = 14 + 20;
const UDP_OVER_IPV6 = 14 + 40;
/** IPv6 extension header. */
const FRAGMENT = 44;
const ICMPV6 = 58;
/** ICMPv6 Time Exceeded, fragment reassembly time exceeded (RFC 4443). */
const REASSEMBLY_TIMEOUT = 0x0301;
/** Second byte of every Service's address. */
const SERVICES = 96;

/** Where frames go in and are seen. */
export interface Place {
	name: string;
	netns: string;
	device: string;
	/** What is seen there is encapsulated. */
	isWire: boolean;
}

export interface World {
	lab: Lab;
	places: Place[];
	sockets: RawSocket[];
	agents: LabAgent[];
}

export interface Twins {
	plain: World;
	cached: World;
	close(): Promise<void>;
}

export interface TwinOptions {
	/** Of the labs, whose pods are two for each host and of both families; the name has at most 8 characters. */
	spec: Pick<LabSpec, "name"> & Partial<LabSpec>;
	/** Of the agents. */
	args: readonly string[];
	places: (lab: Lab) => Place[];
	signal: AbortSignal;
}

export async function openTwins({ spec, args, places, signal }: TwinOptions): Promise<Twins> {
	const worlds: World[] = [];
	const close = async (): Promise<void> => {
		for (const { sockets, agents, lab } of worlds) {
			for (const socket of sockets) socket.close();
			for (const agent of agents) await agent.stop();
			await labDown(lab.spec.name);
		}
	};
	try {
		for (const suffix of ["off", "on"])
			worlds.push(await openWorld({ ...spec, name: `${spec.name}-${suffix}` }, places, signal));
		const [plain, cached] = worlds as [World, World];
		for (const host of cached.lab.hosts) cached.agents.push(await startAgent(host, { args, signal }));
		return { plain, cached, close };
	} catch (error) {
		await close();
		throw error;
	}
}

async function openWorld(
	spec: TwinOptions["spec"],
	placesOf: TwinOptions["places"],
	signal: AbortSignal,
): Promise<World> {
	await labDown(spec.name);
	const lab = await labUp(specOf({ pods: 2, family: "dual", ...spec }), { signal });
	const inside = (netns: string, ...argv: string[]) => run(inNetns(netns, argv), { anyCode: true, signal });
	for (const host of lab.hosts) {
		// Errors are not rationed; and what ONCache needs of connection tracking holds for both.
		for (const setting of ["icmp_ratelimit=0", "icmp_msgs_per_sec=1000000", "icmp_msgs_burst=1000000"])
			await inside(host.netns, "sysctl", "-qw", `net.ipv4.${setting}`);
		await inside(host.netns, "sysctl", "-qw", "net.ipv6.icmp.ratelimit=0");
		await inside(host.netns, "sysctl", "-qw", "net.netfilter.nf_conntrack_tcp_be_liberal=1");
		// What is for a Service and is not translated would be answered with errors, which are rationed for both hosts together.
		for (const services of ["10.96.0.0/12", "fd00:10:96::/112"])
			await inside(host.netns, "ip", "route", "add", "blackhole", services);
		// A pod may send more than the tunnel takes.
		for (const device of ["cni0", ...host.pods.map(({ veth }) => veth)])
			await inside(host.netns, "ip", "link", "set", device, "mtu", "2000");
		for (const pod of host.pods) {
			await inside(pod.netns, "ip", "link", "set", "eth0", "mtu", "2000");
			// The pods' own kernels stay silent.
			for (const tool of ["iptables", "ip6tables"])
				for (const chain of ["INPUT", "OUTPUT"]) await inside(pod.netns, tool, "-A", chain, "-j", "DROP");
			for (const ip of pod.addresses)
				await inside(host.netns, "ip", "neigh", "replace", ip, "lladdr", pod.mac, "dev", "cni0", "nud", "permanent");
		}
		for (const other of lab.hosts)
			if (other !== host)
				for (const family of uplinkFamilies(lab.spec))
					await inside(
						host.netns,
						..."ip neigh replace".split(" "),
						other.nodeIps[family] as string,
						...`lladdr ${other.mac} dev ${host.uplink} nud permanent`.split(" "),
					);
	}
	const places = placesOf(lab);
	return { lab, places, sockets: places.map(({ netns, device }) => new RawSocket(netns, device)), agents: [] };
}

export async function gatewayMacs(lab: Lab): Promise<string[]> {
	return Promise.all(
		lab.hosts.map(async (host) => {
			const { stdout } = await run(inNetns(host.netns, ["ip", "-j", "link", "show", "cni0"]));
			return (JSON.parse(stdout) as [{ address: string }])[0].address;
		}),
	);
}

/** Packets on the fast path so far, all hosts and directions. */
export async function fastPackets({ lab }: World): Promise<number> {
	const statuses = await Promise.all(lab.hosts.map(({ socket }) => agentRequest<Status>(socket, "GET", "/v1/status")));
	return statuses.reduce((sum, { packets }) => sum + packets.egress.fast + packets.ingress.fast, 0);
}

/**
 * One case through both.
 * @returns the number of frames seen in the plain one, and each place with a difference in one line
 */
export async function compare(
	one: Case,
	{ plain, cached }: Pick<Twins, "plain" | "cached">,
	lateMs = LATE_MS,
): Promise<{ frames: number; differences: string[] }> {
	const worlds = [plain, cached] as const;
	for (const { sockets } of worlds) for (const socket of sockets) for (const _ of socket.received());
	for (const { sockets } of worlds) for (const { from, bytes, vnet } of one.frames) sockets[from]?.send(bytes, vnet);
	const [without, withIt] = worlds.map(({ sockets }) => sockets.map(() => [] as string[])) as [string[][], string[][]];
	const deadline = performance.now() + lateMs;
	let wrong: number[];
	do {
		for (const [{ sockets, places }, seen] of [[plain, without], [cached, withIt]] as const) // biome-ignore format: pairs
			for (const [at, socket] of sockets.entries())
				for (const frame of socket.received()) {
					const text = blank(frame, places[at]?.isWire ?? false, one.anyOuterPort ?? false);
					if (text !== undefined) seen[at]?.push(text);
				}
		wrong = plain.places.flatMap((_, at) => (asOne(without[at]) === asOne(withIt[at]) ? [] : [at]));
		if (wrong.length > 0) await setTimeout(1);
	} while (wrong.length > 0 && performance.now() < deadline);
	const sent = one.frames.map(({ from, bytes }) => `${from}:${bytes.toString("hex")}`).join(" ");
	return {
		frames: without.reduce((sum, { length }) => sum + length, 0),
		differences: wrong.map(
			(at) =>
				`${one.sort}, at ${plain.places[at]?.name}: sent ${sent.slice(0, 400)}; without ONCache ` +
				`${JSON.stringify(without[at]).slice(0, 500)}; with it ${JSON.stringify(withIt[at]).slice(0, 500)}`,
		),
	};
}

function asOne(frames: readonly string[] | undefined): string {
	return [...(frames ?? [])].sort().join();
}

/**
 * The frame as text, without what may differ: the outer IPv4 ID, and the ID of what a host's own kernel makes (ICMP errors),
 * each with its checksum, which must be right; the ID of IPv6 fragments, which the kernel that cuts a packet chooses at random.
 * Undefined: not the subject (ARP, neighbour discovery, what an earlier case has left behind).
 */
function blank(received: Buffer, isWire: boolean, anyOuterPort: boolean): string | undefined {
	const vnet = received.subarray(0, VNET_BYTES);
	const frame = received.subarray(VNET_BYTES);
	if (frame.length < 14 || frame.readUInt16BE(12) === 0x0806) return undefined;
	let inner = 14;
	let wrong = "";
	const udp = isWire ? tunnelUdp(frame) : undefined;
	if (udp !== undefined) {
		if (udp === UDP_OVER_IPV4) wrong += blankId(frame, 14);
		if (anyOuterPort) frame.writeUInt16BE(0, udp);
		inner = udp + 8 + 8 + 14;
	}
	if (isChatter(frame, inner - 14) || isReassemblyTimeout(frame, inner)) return undefined;
	if (isFragment6(frame, inner)) frame.writeUInt32BE(0, inner + 44);
	if (isOfHost(frame.subarray(inner))) wrong += blankId(frame, inner);
	return `${vnet.toString("hex")} ${frame.toString("hex")}${wrong}`;
}

/** Where the outer UDP header is; undefined: not encapsulated. */
function tunnelUdp(frame: Buffer): number | undefined {
	const udp = frame.readUInt16BE(12) === 0x86dd ? UDP_OVER_IPV6 : UDP_OVER_IPV4;
	const protocol = frame[udp === UDP_OVER_IPV6 ? 20 : 23];
	return frame.length > udp + 30 && protocol === UDP && frame.readUInt16BE(udp + 2) === TUNNEL_PORT ? udp : undefined;
}

function isFragment6(frame: Buffer, at: number): boolean {
	return frame.length >= at + 48 && frame.readUInt16BE(at - 2) === 0x86dd && frame[at + 6] === FRAGMENT;
}

/** What IPv6 stacks say by themselves: from no address or a link-local one. */
function isChatter(frame: Buffer, at: number): boolean {
	if (frame.length < at + 54 || frame.readUInt16BE(at + 12) !== 0x86dd) return false;
	const source = frame.readUInt16BE(at + 22);
	return source === 0xfe80 || source === 0;
}

/** About fragments of a case a minute ago, when the other lab may have sent its own in the case before. */
function isReassemblyTimeout(frame: Buffer, at: number): boolean {
	return (
		frame.length >= at + 42 &&
		frame.readUInt16BE(at - 2) === 0x86dd &&
		frame[at + 6] === ICMPV6 &&
		frame.readUInt16BE(at + 40) === REASSEMBLY_TIMEOUT
	);
}

/** From an address of a host, or an ICMP error in the name of a Service: its backend's address is translated to it. */
function isOfHost(packet: Buffer): boolean {
	if (packet.length < 21) return false;
	const isService = packet[13] === SERVICES && packet[9] === ICMP && packet[20] !== 0;
	return packet[12] === 10 && (isService || packet.readUInt8(15) <= 1);
}

function blankId(frame: Buffer, at: number): string {
	const length = (frame.readUInt8(at) & 15) * 4;
	const isRight = checksum(frame.subarray(at, at + length)) === 0;
	frame.writeUInt16BE(0, at + 4);
	frame.writeUInt16BE(0, at + 10);
	return isRight ? "" : " with a wrong IP checksum";
}
