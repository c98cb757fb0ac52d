// The same over IPv6 (RFC 8200): what a pod may send, and much that it should not.

import { parseIpv6 } from "../../src/net/ipv6.js";
import { macBytes } from "../../src/net/mac.js";
import { checksum } from "../kernel/packet.js";
import {
	type Case,
	chooseByWeight,
	type End,
	type Flow,
	type Frame,
	type Points,
	type Protocol,
	pointsOf,
	SERVER_PORT,
	titleOf,
	type Way,
} from "./cases.js";
import { VNET_BYTES } from "./raw-socket.js";

const NUMBER = { icmp: 58, tcp: 6, udp: 17 } as const;
const [SYN, ACK, PSH] = [0x02, 0x10, 0x08];
const [HOP_BY_HOP, ROUTING, FRAGMENT, DESTINATION] = [0, 43, 44, 60];
const [ECHO_REQUEST, ECHO_REPLY] = [128, 129];
const HEADER = 40;
const [NEEDS_CSUM, GSO_TCPV6, GSO_UDP_L4] = [1, 4, 5];
/** Nobody listens, and nobody's state changes: neighbour discovery is not sent. */
const OTHER_ICMP = [100, 127, 130, 138, 200];

interface Shape {
	trafficClass?: number;
	flowLabel?: number;
	hopLimit?: number;
	/** Extension headers in order: their numbers, and their bytes with the next header left out. */
	extensions?: [number, Buffer][];
	flags?: number;
	payload?: Buffer;
	l4ChecksumError?: number;
	payloadLengthError?: number;
	udpLengthError?: number;
	tcpOffset?: number;
	tcpOptions?: Buffer;
	udpChecksum?: "none";
	nextHeader?: number;
	ethertype?: number;
	sourceMac?: string;
	destinationMac?: string;
	destinationIp?: string;
	version?: number;
	padding?: number;
	icmpType?: number;
}

export class Generator6 {
	readonly #next: () => number;
	readonly #ends: readonly End[];
	/** Of the path, bytes. */
	readonly #mtu: number;
	#port = 10_000;
	#id = 1;

	constructor(next: () => number, ends: readonly End[], mtu: number) {
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

	#bytes(length: number): Buffer {
		return Buffer.from(Array.from({ length }, () => this.#upTo(256)));
	}

	newFlow(protocol: Protocol, way: Way): Flow {
		this.#port = this.#port >= 60_000 ? 10_000 : this.#port + 1;
		return { protocol, way, ports: [this.#port, protocol === "icmp" ? 0 : SERVER_PORT] };
	}

	/** Both ends speak, often enough that everything is learned. */
	begin(flow: Flow): Frame[] {
		const say = (from: 0 | 1, flags?: number): Frame =>
			this.#frame(from, flow, flags === undefined ? {} : { flags, payload: Buffer.alloc(0) });
		const opening = flow.protocol === "tcp" ? [say(0, SYN), say(1, SYN | ACK), say(0, ACK)] : [];
		return [...opening, say(0), say(1), say(0), say(1), say(0), say(1)];
	}

	next(flows: readonly Flow[]): Case {
		const flow = this.#pick(flows);
		const from = this.#upTo(2) as 0 | 1;
		const one = (sort: string, shape: Shape): Case => ({
			sort: `${titleOf(flow)} ${sort}`,
			frames: [this.#frame(from, flow, shape)],
		});
		const isTcp = flow.protocol === "tcp";
		const isUdp = flow.protocol === "udp";
		const sorts: [number, () => Case][] = [
			[10, () => one("plain", { payload: this.#bytes(this.#upTo(600)) })],
			[6, () => one("of every size around the limits", { payload: this.#bytes(this.#size(flow.protocol)) })],
			[6, () => one("traffic class", { trafficClass: this.#upTo(256) })],
			[4, () => this.#labels(flow.protocol, flow.way)],
			[4, () => one("hop limit", { hopLimit: this.#pick([0, 1, 2, 3, 255]) })],
			[6, () => one("extension headers", { extensions: this.#extensions() })],
			[4, () => one("payload length that lies", { payloadLengthError: this.#upTo(41) - 20 })],
			[2, () => one("another version", { version: this.#pick([0, 4, 5, 15]) })],
			[3, () => one("padding", { payload: this.#bytes(this.#upTo(4)), padding: 1 + this.#upTo(30) })],
			[4, () => this.#fragments(flow, from)],
			[3, () => one("MAC addresses", this.#pick<Shape>([{ sourceMac: "0a:58:00:00:99:01" }, { destinationMac: "0a:58:00:00:99:02" }]))],
			[2, () => one("EtherType", { ethertype: this.#pick([0x0800, 0x8847, 0x88cc]) })],
			[2, () => one("VLAN", { ethertype: 0x8100 })],
			[3, () => one("other protocol", { nextHeader: this.#pick([4, 41, 47, 50, 59, 132, 253]) })],
			[2, () => one("multicast and link-local", this.#pick<Shape>([{ destinationIp: "ff02::1234", destinationMac: "33:33:00:00:12:34" }, { destinationIp: "fe80::1234" }, { destinationIp: "::ffff:10.244.2.2" }]))],
			[4, () => this.#icmpError(flow, from)],
		]; // biome-ignore format: a table
		if (isTcp)
			sorts.push(
				[4, () => one("harmless flags", { flags: ACK | this.#pick([0, PSH, 0x20, 0x40, 0x80, 0xc0]) })],
				[6, () => this.#life(flow.way)],
				[3, () => one("data offset", { tcpOffset: this.#upTo(16) })],
				[3, () => one("TCP options", { tcpOptions: this.#bytes(4 * (1 + this.#upTo(10))) })],
			);
		if (isUdp)
			sorts.push(
				[3, () => one("without checksum", { udpChecksum: "none" })],
				[3, () => one("UDP length that lies", { udpLengthError: this.#upTo(17) - 8 })],
			);
		if (isTcp || isUdp)
			sorts.push(
				[4, () => this.#gso(flow, from)],
				[2, () => one("L4 checksum", { l4ChecksumError: 1 + this.#upTo(65_534) })],
			);
		else sorts.push([3, () => one("other types", { icmpType: this.#pick(OTHER_ICMP) })]);
		return chooseByWeight(sorts, this.#next);
	}

	#size(protocol: Protocol): number {
		const room = this.#mtu - HEADER - (protocol === "tcp" ? 20 : 8);
		return this.#pick([0, 1, 2, room - 1, room, room + 1, room + 50]);
	}

	/** One to three, each well-formed (RFC 8200, section 4). */
	#extensions(): [number, Buffer][] {
		const padding = (): Buffer => Buffer.of(0, 0, 1, 4, 0, 0, 0, 0); // PadN
		const choices: [number, Buffer][][] = [
			[[HOP_BY_HOP, padding()]],
			[[DESTINATION, padding()]],
			[[HOP_BY_HOP, Buffer.of(0, 0, 5, 2, 0, 0, 1, 0)], [DESTINATION, padding()]], // router alert
			[[ROUTING, Buffer.of(0, 0, 0, 0, 0, 0, 0, 0)]],
			[[FRAGMENT, Buffer.of(0, 0, 0, 0, 0, 0, 0, 7)]], // of one piece (RFC 6946)
		]; // biome-ignore format: a table
		return this.#pick(choices);
	}

	#end(at: number): End {
		return this.#ends[at] as End;
	}

	#frame(from: 0 | 1, flow: Flow, shape: Shape): Frame {
		const points = pointsOf(this.#ends, flow, from);
		return this.#sent(
			from,
			flow,
			shape,
			this.#ip(points, shape, NUMBER[flow.protocol], this.#l4(from, flow, shape, points)),
		);
	}

	#sent(from: 0 | 1, flow: Flow, shape: Shape, packet: Buffer, vnet?: Buffer): Frame {
		const [me, other] = [this.#end(flow.way.ends[from]), this.#end(flow.way.ends[1 - from] as number)];
		const isNeighbour = me.host === other.host && pointsOf(this.#ends, flow, from).destination.ip === other.ip;
		const type = shape.ethertype ?? 0x86dd;
		const tag = type === 0x8100 ? Buffer.of(0x81, 0, 0, this.#upTo(10), 0x86, 0xdd) : Buffer.of(type >>> 8, type & 255);
		const bytes = Buffer.concat([
			macBytes(shape.destinationMac ?? (isNeighbour ? other.mac : me.gatewayMac)),
			macBytes(shape.sourceMac ?? me.mac),
			tag,
			packet,
			Buffer.alloc(shape.padding ?? 0, 0xee),
		]);
		return { from: flow.way.ends[from], bytes, ...(vnet && { vnet }) };
	}

	#l4(from: 0 | 1, flow: Flow, shape: Shape, { source, destination }: Points): Buffer {
		const payload = shape.payload ?? this.#bytes(8 + this.#upTo(32));
		let head: Buffer;
		let checksumAt: number;
		switch (flow.protocol) {
			case "tcp": {
				head = Buffer.concat([Buffer.alloc(20), shape.tcpOptions ?? Buffer.alloc(0)]);
				head.writeUInt16BE(source.port, 0);
				head.writeUInt16BE(destination.port, 2);
				const flags = shape.flags ?? ACK | PSH;
				const syn = flags & SYN ? -1 : 0;
				head.writeUInt32BE((from === 0 ? 1000 : 5000) + syn, 4);
				head.writeUInt32BE(flags & ACK ? (from === 0 ? 5000 : 1000) : 0, 8);
				head[12] = (shape.tcpOffset ?? head.length / 4) << 4;
				head[13] = flags;
				head.writeUInt16BE(0xffff, 14);
				checksumAt = 16;
				break;
			}
			case "udp":
				head = Buffer.alloc(8);
				head.writeUInt16BE(source.port, 0);
				head.writeUInt16BE(destination.port, 2);
				head.writeUInt16BE(8 + payload.length + (shape.udpLengthError ?? 0), 4);
				checksumAt = 6;
				break;
			case "icmp": {
				const type = shape.icmpType ?? (from === 0 ? ECHO_REQUEST : ECHO_REPLY);
				head = Buffer.from([type, 0, 0, 0, flow.ports[0] >>> 8, flow.ports[0] & 255, 0, 1]);
				checksumAt = 2;
				break;
			}
		}
		if (shape.udpChecksum === "none") return Buffer.concat([head, payload]);
		const pseudo = pseudoHeader(source.ip, destination.ip, NUMBER[flow.protocol], head.length + payload.length);
		const sum = (checksum(pseudo, head, payload) || 0xffff) + (shape.l4ChecksumError ?? 0);
		head.writeUInt16BE(sum & 0xffff, checksumAt);
		return Buffer.concat([head, payload]);
	}

	#ip({ source, destination }: Points, shape: Shape, protocol: number, l4: Buffer): Buffer {
		const chain = shape.extensions ?? [];
		const last = shape.nextHeader ?? protocol;
		const extensions = chain.map(([, bytes], i) => {
			const copy = Buffer.from(bytes);
			copy[0] = chain[i + 1]?.[0] ?? last;
			return copy;
		});
		const payload = Buffer.concat([...extensions, l4]);
		const head = Buffer.alloc(HEADER);
		const word =
			(((shape.version ?? 6) << 28) | ((shape.trafficClass ?? 0) << 20) | (shape.flowLabel ?? 0x12345)) >>> 0;
		head.writeUInt32BE(word, 0);
		head.writeUInt16BE((payload.length + (shape.payloadLengthError ?? 0)) & 0xffff, 4);
		head[6] = chain[0]?.[0] ?? last;
		head[7] = shape.hopLimit ?? 64;
		ip6(source.ip).copy(head, 8);
		ip6(shape.destinationIp ?? destination.ip).copy(head, 24);
		return Buffer.concat([head, payload]);
	}

	/** A datagram in pieces (RFC 8200, section 4.5): in order, reversed, one missing. */
	#fragments(flow: Flow, from: 0 | 1): Case {
		const points = pointsOf(this.#ends, flow, from);
		const whole = this.#l4(from, flow, { payload: this.#bytes(100 + this.#upTo(2500)) }, points);
		const step = 8 * (3 + this.#upTo(100));
		const id = this.#id++;
		const pieces: Frame[] = [];
		for (let at = 0; at < whole.length; at += step) {
			const more = at + step < whole.length ? 1 : 0;
			const header = Buffer.alloc(8);
			header.writeUInt16BE(at | more, 2);
			header.writeUInt32BE(id, 4);
			const piece = whole.subarray(at, at + step);
			pieces.push(
				this.#sent(
					from,
					flow,
					{},
					this.#ip(points, { extensions: [[FRAGMENT, header]] }, NUMBER[flow.protocol], piece),
				),
			);
		}
		const order = this.#pick(["in order", "reversed", "one missing"] as const);
		const frames =
			order === "reversed"
				? pieces.reverse()
				: order === "in order"
					? pieces
					: pieces.filter((_, i) => i !== pieces.length >> 1);
		return { sort: `${titleOf(flow)} fragments, ${order}`, frames };
	}

	/** An ICMPv6 error that quotes a packet of the other end (RFC 4443). */
	#icmpError(flow: Flow, from: 0 | 1): Case {
		const other = (1 - from) as 0 | 1;
		const received = pointsOf(this.#ends, flow, other, true);
		const packet = this.#ip(received, {}, NUMBER[flow.protocol], this.#l4(other, flow, {}, received));
		const quoted = packet.subarray(0, HEADER + 8 + this.#upTo(20));
		const [type, code] = this.#pick([[1, 0], [1, 1], [1, 4], [2, 0], [3, 0], [4, 1]] as const); // biome-ignore format: pairs
		const message = Buffer.concat([Buffer.of(type, code, 0, 0, 0, 0, 5, 0x14), quoted]);
		const points = pointsOf(this.#ends, flow, from);
		const pseudo = pseudoHeader(points.source.ip, points.destination.ip, NUMBER.icmp, message.length);
		message.writeUInt16BE(checksum(pseudo, message), 2);
		return {
			sort: `icmp error about ${titleOf(flow)}`,
			frames: [this.#sent(from, flow, {}, this.#ip(points, {}, NUMBER.icmp, message))],
		};
	}

	/**
	 * A flow of its own whose label changes. The tunnel device's source port comes from the label too; ONCache's is the
	 * flow's, until the next packet that confirms it.
	 */
	#labels(protocol: Protocol, way: Way): Case {
		const flow = this.newFlow(protocol, way);
		const other = [0, 1, 0].map((end) => this.#frame(end as 0 | 1, flow, { flowLabel: this.#upTo(0x100000) }));
		return { sort: `${titleOf(flow)} flow label`, frames: [...this.begin(flow), ...other], anyOuterPort: true };
	}

	/** A connection of its own: begun, used, hit by any flags, used again. */
	#life(way: Way): Case {
		const flow = this.newFlow("tcp", way);
		const from = this.#upTo(2) as 0 | 1;
		const after = [0, 1, 0].map((end) => this.#frame(end as 0 | 1, flow, {}));
		const odd = this.#frame(from, flow, { flags: this.#upTo(64) });
		return { sort: `${titleOf(flow)} control flags`, frames: [...this.begin(flow), odd, ...after] };
	}

	/** A packet that the sender's device would cut: larger than any MTU, its checksum partial. */
	#gso(flow: Flow, from: 0 | 1): Case {
		const isTcp = flow.protocol === "tcp";
		const header = isTcp ? 20 : 8;
		const size = this.#pick([100, 536, 1000, this.#mtu - HEADER - header]);
		const payload = this.#bytes(size * (2 + this.#upTo(Math.min(20, Math.floor(40_000 / size)))) + this.#upTo(size));
		const points = pointsOf(this.#ends, flow, from);
		const l4 = this.#l4(from, flow, { payload }, points);
		const checksumAt = isTcp ? 16 : 6;
		const pseudo = pseudoHeader(points.source.ip, points.destination.ip, NUMBER[flow.protocol], l4.length);
		l4.writeUInt16BE(~checksum(pseudo) & 0xffff, checksumAt);
		const vnet = Buffer.alloc(VNET_BYTES);
		vnet[0] = NEEDS_CSUM;
		vnet[1] = isTcp ? GSO_TCPV6 : GSO_UDP_L4;
		vnet.writeUInt16LE(14 + HEADER + header, 2);
		vnet.writeUInt16LE(size, 4);
		vnet.writeUInt16LE(14 + HEADER, 6);
		vnet.writeUInt16LE(checksumAt, 8);
		const packet = this.#ip(points, { trafficClass: this.#pick([0, 1, 2, 3]) }, NUMBER[flow.protocol], l4);
		return { sort: `${titleOf(flow)} GSO`, frames: [this.#sent(from, flow, {}, packet, vnet)] };
	}
}

function ip6(text: string): Buffer {
	return Buffer.from(parseIpv6(text).toString(16).padStart(32, "0"), "hex");
}

function pseudoHeader(source: string, destination: string, protocol: number, length: number): Buffer {
	const rest = Buffer.alloc(8);
	rest.writeUInt32BE(length, 0);
	rest[7] = protocol;
	return Buffer.concat([ip6(source), ip6(destination), rest]);
}
