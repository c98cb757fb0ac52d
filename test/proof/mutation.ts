// Packets that are almost right, and packets that are not at all. All from one stream of random numbers.
import { checksum } from "../kernel/packet.js";

type Next = () => number;

/** The kernel's test run takes no shorter IPv4 frame. */
const SHORTEST = 34;
const LONGEST = 1600;
const upTo = (next: Next, limit: number): number => Math.floor(next() * limit);

interface Header {
	at: number;
	family: 4 | 6;
	/** Without options. */
	length: number;
}

/** The IP headers in a frame: the pod's, and of one that is encapsulated the outer one too. By the EtherType before them. */
function headersOf(packet: Buffer): Header[] {
	const isOuter = packet.length >= 64 + 28 && packet[23] === 17 && packet.readUInt16BE(36) === 8472;
	return (isOuter ? [14, 64] : [14]).map((at) =>
		packet.readUInt16BE(at - 2) === 0x86dd && packet.length >= at + 40
			? { at, family: 6, length: 40 }
			: { at, family: 4, length: 20 },
	);
}

function sumUp(packet: Buffer, at: number): void {
	packet.writeUInt16BE(0, at + 10);
	packet.writeUInt16BE(checksum(packet.subarray(at, at + 20)), at + 10);
}

const CHANGES: ((packet: Buffer, next: Next, all: readonly Buffer[]) => Buffer)[] = [
	// some bits
	(packet, next) => {
		for (let n = upTo(next, 8); n >= 0; n--) flip(packet, upTo(next, packet.length), 1 << upTo(next, 8));
		return packet;
	},
	// a byte among the headers
	(packet, next) => {
		packet[upTo(next, Math.min(packet.length, 100))] = upTo(next, 256);
		return packet;
	},
	// shorter, and longer
	(packet, next) => packet.subarray(0, SHORTEST + upTo(next, Math.max(1, packet.length - SHORTEST))),
	(packet, next) =>
		Buffer.concat([packet, Buffer.from(Array.from({ length: 1 + upTo(next, 64) }, () => upTo(next, 256)))]),
	(packet, next) => Buffer.concat([packet, Buffer.alloc(upTo(next, Math.max(1, LONGEST - packet.length)))]),
	// the end of another one
	(packet, next, all) => {
		const other = all[upTo(next, all.length)] as Buffer;
		const at = upTo(next, Math.min(packet.length, other.length));
		return Buffer.concat([packet.subarray(0, at), other.subarray(at)]);
	},
	// one field of an IP header, most of the time with a checksum that fits
	(packet, next) => {
		const headers = headersOf(packet);
		const { at, family } = headers[upTo(next, headers.length)] as Header;
		if (packet.length < at + 20) return packet;
		if (family === 6) return changeIpv6(packet, at, next);
		const fields = [
			() => packet.writeUInt8(upTo(next, 256), at),
			() => packet.writeUInt8(0x40 | upTo(next, 16), at),
			() => packet.writeUInt8(upTo(next, 256), at + 1),
			() => packet.writeUInt16BE((packet.readUInt16BE(at + 2) + upTo(next, 9) - 4) & 0xffff, at + 2),
			() => packet.writeUInt16BE(upTo(next, 65_536), at + 2),
			() => packet.writeUInt16BE(upTo(next, 65_536), at + 6),
			() => packet.writeUInt8(upTo(next, 4), at + 8),
			() => packet.writeUInt8(NEXT_HEADERS[upTo(next, NEXT_HEADERS.length)] as number, at + 9),
			() => flip(packet, at + 12 + upTo(next, 8), 1 << upTo(next, 8)),
		];
		(fields[upTo(next, fields.length)] as () => void)();
		if (next() < 0.8) sumUp(packet, at);
		return packet;
	},
	// an extension header, with lengths that fit (RFC 8200, section 4)
	(packet, next) => {
		const { at, family } = headersOf(packet).at(-1) as Header;
		if (family !== 6) return packet;
		const extension = Buffer.alloc(8);
		extension[0] = packet.readUInt8(at + 6);
		const longer = Buffer.concat([packet.subarray(0, at + 40), extension, packet.subarray(at + 40)]);
		longer[at + 6] = [0, 43, 44, 51, 60, 135][upTo(next, 6)] as number;
		return fitLengths(longer);
	},
	// length fields that fit a packet that was cut or extended
	(packet, next) => fitLengths(Buffer.concat([packet, Buffer.alloc(upTo(next, 40))]), next() < 0.9),
	// one field of the layers above
	(packet, next) => {
		const header = headersOf(packet).at(-1) as Header;
		const at = header.at + header.length;
		if (packet.length < at + 14) return packet;
		const fields = [
			() => packet.writeUInt16BE(upTo(next, 65_536), at),
			() => packet.writeUInt16BE(upTo(next, 65_536), at + 2),
			() => packet.writeUInt16BE(upTo(next, 64), at + 4),
			() => packet.writeUInt8(upTo(next, 256), at + 12),
			() => packet.writeUInt8(upTo(next, 256), at + 13),
			() => packet.writeUInt8(upTo(next, 20), at),
		];
		(fields[upTo(next, fields.length)] as () => void)();
		return packet;
	},
	// Ethernet and VXLAN
	(packet, next) => {
		const types = [0x0800, 0x0806, 0x8100, 0x88a8, 0x86dd, 0x8847, upTo(next, 65_536)];
		const at = packet.length > 64 && next() < 0.5 ? 62 : 12;
		packet.writeUInt16BE(types[upTo(next, types.length)] as number, at);
		return packet;
	},
	(packet, next) => {
		if (packet.length >= 50) flip(packet, 34 + upTo(next, 16), 1 << upTo(next, 8));
		return packet;
	},
];

/** IPv4 protocols, and what may follow an IPv6 header. */
const NEXT_HEADERS = [0, 1, 2, 4, 6, 17, 41, 43, 44, 47, 50, 58, 59, 60, 132, 255];

function changeIpv6(packet: Buffer, at: number, next: Next): Buffer {
	const fields = [
		() => packet.writeUInt8(upTo(next, 256), at),
		() => packet.writeUInt8(0x60 | upTo(next, 16), at),
		() => packet.writeUInt16BE(upTo(next, 65_536), at + 2),
		() => packet.writeUInt16BE((packet.readUInt16BE(at + 4) + upTo(next, 9) - 4) & 0xffff, at + 4),
		() => packet.writeUInt16BE(upTo(next, 65_536), at + 4),
		() => packet.writeUInt8(NEXT_HEADERS[upTo(next, NEXT_HEADERS.length)] as number, at + 6),
		() => packet.writeUInt8(upTo(next, 4), at + 7),
		() => flip(packet, at + 8 + upTo(next, 32), 1 << upTo(next, 8)),
		// link-local, multicast, IPv4-mapped
		() => packet.writeUInt16BE([0xfe80, 0xff02, 0][upTo(next, 3)] as number, at + (next() < 0.5 ? 8 : 24)),
	];
	(fields[upTo(next, fields.length)] as () => void)();
	return packet;
}

/** Of every header, as far as the packet reaches. */
function fitLengths(packet: Buffer, isUdp = true): Buffer {
	for (const { at, family, length } of headersOf(packet)) {
		if (family === 6) packet.writeUInt16BE(packet.length - at - length, at + 4);
		else {
			packet.writeUInt16BE(packet.length - at, at + 2);
			sumUp(packet, at);
		}
		const protocol = packet[at + (family === 6 ? 6 : 9)];
		if (protocol === 17 && isUdp && packet.length >= at + length + 8)
			packet.writeUInt16BE(packet.length - at - length, at + length + 4);
	}
	return packet;
}

function flip(packet: Buffer, at: number, bits: number): void {
	packet.writeUInt8(packet.readUInt8(at) ^ (bits & 0xff), at);
}

/** `original` as it is, changed a little, with parts of others, or something else altogether. */
export function mutate(original: Buffer, all: readonly Buffer[], next: Next): Buffer {
	if (next() < 0.05) {
		const packet = Buffer.from(Array.from({ length: SHORTEST + upTo(next, 200) }, () => upTo(next, 256)));
		if (next() < 0.7) packet.writeUInt16BE(next() < 0.5 ? 0x0800 : 0x86dd, 12);
		return packet;
	}
	if (next() < 0.2) return Buffer.from(original);
	let packet = Buffer.from(original);
	for (let n = upTo(next, 3); n >= 0; n--)
		packet = Buffer.from((CHANGES[upTo(next, CHANGES.length)] as (typeof CHANGES)[number])(packet, next, all));
	return packet.length >= SHORTEST ? packet : Buffer.concat([packet, Buffer.alloc(SHORTEST - packet.length)]);
}
