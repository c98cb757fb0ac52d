// Packets of every sort between two pods, from one stream of random numbers: what a pod may send, and much that it should not.
import type { Family, LabHost, LabPod } from "../../src/lab/topology.js";
import { parseIpv4 } from "../../src/net/ipv4.js";
import { macBytes } from "../../src/net/mac.js";
import { checksum } from "../kernel/packet.js";
import { VNET_BYTES } from "./raw-socket.js";

export interface Frame {
	/** Which place sends it; the pods come first. */
	from: number;
	bytes: Buffer;
	vnet?: Buffer;
}

export interface Case {
	sort: string;
	frames: Frame[];
	/** Another outer source port is no difference. */
	anyOuterPort?: boolean;
}

export interface End {
	ip: string;
	mac: string;
	gatewayMac: string;
	/** Ends on one host are neighbours on its bridge. */
	host: number;
}

export type Protocol = "tcp" | "udp" | "icmp";

/** From whom to whom. */
export interface Way {
	name: string;
	/** Two of the ends; the first one begins. */
	ends: [number, number];
	/** The Service that the first one calls instead of the second one. */
	service?: Point;
}

/** An address with a port; of ICMP the identifier, or 0. */
interface Point {
	ip: string;
	port: number;
}

export interface Points {
	source: Point;
	destination: Point;
}

/** A flow that is warm: both ends have spoken. */
export interface Flow {
	protocol: Protocol;
	way: Way;
	ports: [number, number];
}

/** Where every pod's server is, and every Service's. */
export const SERVER_PORT = 8000;

type Next = () => number;
const NUMBER = { icmp: 1, tcp: 6, udp: 17 } as const;
const [SYN, ACK, PSH] = [0x02, 0x10, 0x08];
const DF = 0x4000;
const MF = 0x2000;
const GSO_TCPV4 = 1;
const GSO_UDP_L4 = 5;
const NEEDS_CSUM = 1;

/** The first pods of the hosts, and then the second ones, by their addresses of one family. */
export function endsOf(hosts: readonly LabHost[], gatewayMacs: readonly string[], family: Family): End[] {
	return [0, 1].flatMap((pod) =>
		hosts.map(({ pods, subnets }, host) => {
			const { addresses, mac } = pods[pod] as LabPod;
			const ip = addresses[subnets.findIndex((subnet) => subnet.family === family)] as string;
			return { ip, mac, gatewayMac: gatewayMacs[host] as string, host };
		}),
	);
}

/** Who sends, and to whom, as it is in the packet where it is sent; `arrived`: where it is received. */
export function pointsOf(ends: readonly End[], { way, ports }: Flow, from: 0 | 1, arrived = false): Points {
	const [client, server] = way.ends.map((end, i) => ({ ip: ends[end]?.ip, port: ports[i] })) as [Point, Point];
	const called = way.service ?? server;
	return from === 0
		? { source: client, destination: arrived ? server : called }
		: { source: arrived ? called : server, destination: client };
}

/** One of them, as often as its weight says; the first one should rounding leave none. */
export function chooseByWeight(sorts: readonly [weight: number, make: () => Case][], next: () => number): Case {
	let at = next() * sorts.reduce((sum, [weight]) => sum + weight, 0);
	for (const [weight, make] of sorts) {
		at -= weight;
		if (at < 0) return make();
	}
	return (sorts[0] as [number, () => Case])[1]();
}

interface Shape {
	tos?: number;
	ttl?: number;
	fragment?: number;
	options?: Buffer;
	flags?: number;
	payload?: Buffer;
	/** Added to what is right. */
	ipChecksumError?: number;
	l4ChecksumError?: number;
	totalLengthError?: number;
	udpLengthError?: number;
	tcpOffset?: number;
	tcpOptions?: Buffer;
	udpChecksum?: "none";
	protocol?: number;
	ethertype?: number;
	sourceMac?: string;
	destinationMac?: string;
	destinationIp?: string;
	padding?: number;
	icmp?: Buffer;
}

const ip4 = (text: string): Buffer => {
	const bytes = Buffer.alloc(4);
	bytes.writeUInt32BE(parseIpv4(text));
	return bytes;
};

export class Generator {
	readonly #next: Next;
	readonly #ends: readonly End[];
	/** Of the path, bytes. */
	readonly #mtu: number;
	/** Ports that no flow has had yet. */
	#port = 10_000;
	#id = 0;

	constructor(next: Next, ends: readonly End[], mtu: number) {
		this.#next = next;
		this.#ends = ends;
		this.#mtu = mtu;
	}

	#upTo(limit: number): number {
		return Math.floor(this.#next() * limit);
	}

	#pick<T>(list: readonly T[]): T {
		return list[this.#upTo(list.length)] as T;
	}

	newFlow(protocol: Protocol, way: Way): Flow {
		this.#port = this.#port >= 60_000 ? 10_000 : this.#port + 1;
		return { protocol, way, ports: [this.#port, protocol === "icmp" ? 0 : SERVER_PORT] };
	}

	#end(at: number): End {
		return this.#ends[at] as End;
	}

	/** Both ends speak, often enough that everything is learned. */
	begin(flow: Flow): Frame[] {
		const say = (from: 0 | 1, flags?: number): Frame =>
			this.#frame(from, flow, flags === undefined ? {} : { flags, payload: Buffer.alloc(0) });
		const opening = flow.protocol === "tcp" ? [say(0, SYN), say(1, SYN | ACK), say(0, ACK)] : [];
		return [...opening, say(0), say(1), say(0), say(1), say(0), say(1)];
	}

	/** One of a warm flow, or of one that it begins and ends itself. */
	next(flows: readonly Flow[]): Case {
		const flow = this.#pick(flows);
		const from = this.#upTo(2) as 0 | 1;
		const one = (sort: string, shape: Shape): Case => ({
			sort: `${titleOf(flow)} ${sort}`,
			frames: [this.#frame(from, flow, shape)],
		});
		const sorts: [number, () => Case][] = [
			[10, () => one("plain", { payload: this.#payload(this.#upTo(600)) })],
			[
				6,
				() =>
					one("of every size around the limits", {
						payload: this.#payload(this.#size(flow.protocol)),
						fragment: this.#pick([0, DF]),
					}),
			],
			[6, () => one("TOS", { tos: this.#upTo(256) })],
			[4, () => one("TTL", { ttl: this.#pick([0, 1, 2, 3, 255]) })],
			[3, () => one("IP checksum", { ipChecksumError: 1 + this.#upTo(65_534) })],
			[3, () => one("IP options", { options: this.#pick(OPTIONS) })],
			[4, () => one("total length that lies", { totalLengthError: this.#upTo(41) - 20 })],
			[3, () => one("padding", { payload: this.#payload(this.#upTo(4)), padding: 1 + this.#upTo(30) })],
			[3, () => one("flags of the IP header", { fragment: this.#pick([0, DF, 0x8000, 0xc000]) })],
			[4, () => this.#fragments(flow, from)],
			[
				3,
				() =>
					one(
						"MAC addresses",
						this.#pick([
							{ sourceMac: "0a:58:00:00:99:01" },
							{ destinationMac: "0a:58:00:00:99:02" },
							{ destinationMac: "ff:ff:ff:ff:ff:ff" },
						]),
					),
			],
			[2, () => one("EtherType", { ethertype: this.#pick([0x86dd, 0x8847, 0x88cc, 0x0805]) })],
			[2, () => one("VLAN", { ethertype: 0x8100 })],
			[3, () => one("other protocol", { protocol: this.#pick([2, 4, 47, 50, 51, 132, 253]) })],
			[
				2,
				() =>
					one(
						"multicast and broadcast",
						this.#pick([
							{ destinationIp: "224.0.0.9", destinationMac: "01:00:5e:00:00:09" },
							{ destinationIp: "255.255.255.255", destinationMac: "ff:ff:ff:ff:ff:ff" },
						]),
					),
			],
			[4, () => this.#icmpError(flow, from)],
			...(flow.protocol === "tcp"
				? ([
						[4, () => one("harmless flags", { flags: ACK | this.#pick([0, PSH, 0x20, 0x40, 0x80, 0xc0]) })],
						[6, () => this.#life(flow.way)],
						[3, () => one("data offset", { tcpOffset: this.#upTo(16) })],
						[3, () => one("TCP options", { tcpOptions: this.#payload(4 * (1 + this.#upTo(10))) })],
						[4, () => this.#gso(flow, from)],
					] as [number, () => Case][])
				: []),
			...(flow.protocol === "udp"
				? ([
						[3, () => one("without checksum", { udpChecksum: "none" })],
						[3, () => one("UDP length that lies", { udpLengthError: this.#upTo(17) - 8 })],
						[4, () => this.#gso(flow, from)],
						[3, () => this.#oneWay(flow.way)],
					] as [number, () => Case][])
				: []),
			...(flow.protocol === "icmp"
				? ([[3, () => one("other types", { icmp: Buffer.of(this.#pick([4, 9, 13, 15, 17, 40]), this.#upTo(3)) })]] as [
						number,
						() => Case,
					][])
				: [[2, () => one("L4 checksum", { l4ChecksumError: 1 + this.#upTo(65_534) })] as [number, () => Case]]),
		];
		return chooseByWeight(sorts, this.#next);
	}

	#payload(length: number): Buffer {
		return Buffer.from(Array.from({ length }, () => this.#upTo(256)));
	}

	/** Payload bytes for which something begins or ends. */
	#size(protocol: Protocol): number {
		const header = protocol === "tcp" ? 40 : 28;
		return this.#pick([
			0,
			1,
			2,
			17,
			18,
			19,
			this.#mtu - header - 1,
			this.#mtu - header,
			this.#mtu - header + 1,
			this.#mtu - header + 50,
			1900 - header,
		]);
	}

	#frame(from: 0 | 1, flow: Flow, shape: Shape): Frame {
		const points = pointsOf(this.#ends, flow, from);
		const packet = this.#ip(points, shape, NUMBER[flow.protocol], this.#l4(from, flow, shape, points));
		return this.#sent(from, flow, shape, packet);
	}

	/** By the first or second end of the flow. */
	#sent(from: 0 | 1, flow: Flow, shape: Shape, packet: Buffer, vnet?: Buffer): Frame {
		const bytes = this.#ethernet(from, flow, shape, packet);
		return { from: flow.way.ends[from], bytes, ...(vnet && { vnet }) };
	}

	#l4(from: 0 | 1, flow: Flow, shape: Shape, points: Points): Buffer {
		const payload = shape.payload ?? this.#payload(8 + this.#upTo(32));
		const [source, destination] = [points.source.port, points.destination.port];
		let head: Buffer;
		let checksumAt: number;
		switch (flow.protocol) {
			case "tcp": {
				const options = shape.tcpOptions ?? Buffer.alloc(0);
				head = Buffer.concat([Buffer.alloc(20), options]);
				head.writeUInt16BE(source, 0);
				head.writeUInt16BE(destination, 2);
				// Always the same: what connection tracking thinks of windows is not the subject.
				const flags = shape.flags ?? ACK | PSH;
				head.writeUInt32BE(from === 0 ? 1000 + (flags & SYN ? -1 : 0) : 5000 + (flags & SYN ? -1 : 0), 4);
				head.writeUInt32BE(flags & ACK ? (from === 0 ? 5000 : 1000) : 0, 8);
				head[12] = (shape.tcpOffset ?? head.length / 4) << 4;
				head[13] = flags;
				head.writeUInt16BE(0xffff, 14);
				checksumAt = 16;
				break;
			}
			case "udp":
				head = Buffer.alloc(8);
				head.writeUInt16BE(source, 0);
				head.writeUInt16BE(destination, 2);
				head.writeUInt16BE(8 + payload.length + (shape.udpLengthError ?? 0), 4);
				checksumAt = 6;
				break;
			case "icmp":
				head = Buffer.from([from === 0 ? 8 : 0, 0, 0, 0, flow.ports[0] >>> 8, flow.ports[0] & 255, 0, 1]);
				if (shape.icmp) shape.icmp.copy(head);
				checksumAt = 2;
				break;
		}
		if (shape.udpChecksum === "none") return Buffer.concat([head, payload]);
		const pseudo =
			flow.protocol === "icmp"
				? Buffer.alloc(0)
				: pseudoHeader(points, NUMBER[flow.protocol], head.length + payload.length);
		const sum = (checksum(pseudo, head, payload) || 0xffff) + (shape.l4ChecksumError ?? 0);
		head.writeUInt16BE(sum & 0xffff, checksumAt);
		return Buffer.concat([head, payload]);
	}

	#ip({ source, destination }: Points, shape: Shape, protocol: number, l4: Buffer): Buffer {
		const options = shape.options ?? Buffer.alloc(0);
		const head = Buffer.concat([Buffer.alloc(20), options]);
		this.#id = (this.#id + 1) & 0xffff;
		head[0] = 0x40 | (head.length / 4);
		head[1] = shape.tos ?? 0;
		head.writeUInt16BE((head.length + l4.length + (shape.totalLengthError ?? 0)) & 0xffff, 2);
		head.writeUInt16BE(this.#id, 4);
		head.writeUInt16BE(shape.fragment ?? DF, 6);
		head[8] = shape.ttl ?? 64;
		head[9] = shape.protocol ?? protocol;
		ip4(source.ip).copy(head, 12);
		ip4(shape.destinationIp ?? destination.ip).copy(head, 16);
		head.writeUInt16BE((checksum(head) + (shape.ipChecksumError ?? 0)) & 0xffff, 10);
		return Buffer.concat([head, l4]);
	}

	#ethernet(from: 0 | 1, flow: Flow, shape: Shape, packet: Buffer): Buffer {
		const [me, other] = [this.#end(flow.way.ends[from]), this.#end(flow.way.ends[1 - from] as number)];
		const isNeighbour = me.host === other.host && pointsOf(this.#ends, flow, from).destination.ip === other.ip;
		const tag = shape.ethertype === 0x8100 ? Buffer.of(0x81, 0, 0, this.#upTo(10), 8, 0) : undefined;
		const type = Buffer.alloc(2);
		type.writeUInt16BE(shape.ethertype ?? 0x0800);
		return Buffer.concat([
			macBytes(shape.destinationMac ?? (isNeighbour ? other.mac : me.gatewayMac)),
			macBytes(shape.sourceMac ?? me.mac),
			tag ?? type,
			packet,
			Buffer.alloc(shape.padding ?? 0, 0xee),
		]);
	}

	/** A datagram in pieces: in order, out of order, one missing, one twice. */
	#fragments(flow: Flow, from: 0 | 1): Case {
		const points = pointsOf(this.#ends, flow, from);
		const whole = this.#l4(from, flow, { payload: this.#payload(100 + this.#upTo(3000)) }, points);
		const step = 8 * (3 + this.#upTo(100));
		const id = this.#id;
		const pieces: Frame[] = [];
		for (let at = 0; at < whole.length; at += step) {
			this.#id = id;
			const isLast = at + step >= whole.length;
			const packet = this.#ip(
				points,
				{ fragment: (isLast ? 0 : MF) | (at / 8) },
				NUMBER[flow.protocol],
				whole.subarray(at, at + step),
			);
			pieces.push(this.#sent(from, flow, {}, packet));
		}
		const order = this.#pick(["in order", "reversed", "shuffled", "one missing", "one twice"] as const);
		const frames =
			order === "reversed"
				? pieces.reverse()
				: order === "shuffled"
					? pieces
							.map((piece) => ({ piece, at: this.#next() }))
							.sort((a, b) => a.at - b.at)
							.map(({ piece }) => piece)
					: order === "one missing"
						? pieces.filter((_, i) => i !== pieces.length >> 1)
						: order === "one twice"
							? [pieces[0] as Frame, ...pieces]
							: pieces;
		return { sort: `${titleOf(flow)} fragments, ${order}`, frames };
	}

	/** An ICMP error that quotes a packet of the other end (RFC 792). */
	#icmpError(flow: Flow, from: 0 | 1): Case {
		const other = (1 - from) as 0 | 1;
		const received = pointsOf(this.#ends, flow, other, true);
		const quoted = this.#ip(received, {}, NUMBER[flow.protocol], this.#l4(other, flow, {}, received)).subarray(
			0,
			28 + this.#upTo(20),
		);
		const [type, code] = this.#pick([[3, 0], [3, 1], [3, 3], [3, 4], [11, 0], [12, 0], [5, 1]] as const); // biome-ignore format: pairs
		const message = Buffer.concat([Buffer.of(type, code, 0, 0, 0, 0, 5, 0x14), quoted]);
		message.writeUInt16BE(checksum(message), 2);
		return {
			sort: `icmp error about ${titleOf(flow)}`,
			frames: [this.#sent(from, flow, {}, this.#ip(pointsOf(this.#ends, flow, from), {}, 1, message))],
		};
	}

	/** A connection of its own: begun, used, hit by any flags, used again. */
	#life(way: Way): Case {
		const flow = this.newFlow("tcp", way);
		const from = this.#upTo(2) as 0 | 1;
		const flags = this.#upTo(64);
		const after = [0, 1, 0].map((end) => this.#frame(end as 0 | 1, flow, {}));
		return {
			sort: `${titleOf(flow)} control flags`,
			frames: [...this.begin(flow), this.#frame(from, flow, { flags }), ...after],
		};
	}

	/** UDP that nobody answers. */
	#oneWay(way: Way): Case {
		const flow = this.newFlow("udp", way);
		return { sort: `${titleOf(flow)} one way`, frames: [0, 1, 2, 3, 4].map(() => this.#frame(0, flow, {})) };
	}

	/** A packet that the sender's device would cut: larger than any MTU, its checksum partial. */
	#gso(flow: Flow, from: 0 | 1): Case {
		const isTcp = flow.protocol === "tcp";
		const header = isTcp ? 20 : 8;
		const size = this.#pick([100, 536, 1000, this.#mtu - 20 - header]);
		const payload = this.#payload(size * (2 + this.#upTo(Math.min(20, Math.floor(40_000 / size)))) + this.#upTo(size));
		const points = pointsOf(this.#ends, flow, from);
		const l4 = this.#l4(from, flow, { payload }, points);
		const checksumAt = isTcp ? 16 : 6;
		const pseudo = pseudoHeader(points, NUMBER[flow.protocol], l4.length);
		l4.writeUInt16BE(~checksum(pseudo) & 0xffff, checksumAt);
		const vnet = Buffer.alloc(VNET_BYTES);
		vnet[0] = NEEDS_CSUM;
		vnet[1] = isTcp ? GSO_TCPV4 : GSO_UDP_L4;
		vnet.writeUInt16LE(14 + 20 + header, 2);
		vnet.writeUInt16LE(size, 4);
		vnet.writeUInt16LE(34, 6);
		vnet.writeUInt16LE(checksumAt, 8);
		const packet = this.#ip(points, { tos: this.#pick([0, 1, 2, 3]) }, NUMBER[flow.protocol], l4);
		return { sort: `${titleOf(flow)} GSO`, frames: [this.#sent(from, flow, {}, packet, vnet)] };
	}
}

export const titleOf = ({ way, protocol }: Flow): string => (way.name === "" ? protocol : `${way.name}, ${protocol}`);

const OPTIONS = [
	Buffer.of(1, 1, 1, 0),
	Buffer.of(7, 7, 4, 0, 0, 0, 0, 0),
	Buffer.of(0x94, 4, 0, 0),
	// A timestamp option that is full already: two clocks are read at two times.
	Buffer.of(0x44, 8, 9, 0, 0, 0, 0, 0),
	Buffer.of(0x83, 7, 4, 10, 244, 2, 2, 0),
	Buffer.of(0x99, 4, 0, 0),
];

function pseudoHeader({ source, destination }: Points, protocol: number, length: number): Buffer {
	return Buffer.concat([ip4(source.ip), ip4(destination.ip), Buffer.of(0, protocol, length >>> 8, length & 255)]);
}
