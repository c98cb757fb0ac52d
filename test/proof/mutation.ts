// Packets that are almost right, and packets that are not at all. All from one stream of random numbers.
import { checksum } from "../kernel/packet.js";

type Next = () => number;

/** The kernel's test run takes no shorter IPv4 frame. */
const SHORTEST = 34;
const LONGEST = 1600;
const upTo = (next: Next, limit: number): number => Math.floor(next() * limit);

/** Offsets of the IPv4 headers in a frame: of the pod's, and of one that is encapsulated. */
function headersOf(packet: Buffer): number[] {
	return packet.length >= 64 + 28 && packet[23] === 17 && packet.readUInt16BE(36) === 8472 ? [14, 64] : [14];
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
	// one field of an IPv4 header, most of the time with a checksum that fits
	(packet, next) => {
		const headers = headersOf(packet);
		const at = headers[upTo(next, headers.length)] as number;
		if (packet.length < at + 20) return packet;
		const fields = [
			() => packet.writeUInt8(upTo(next, 256), at),
			() => packet.writeUInt8(0x40 | upTo(next, 16), at),
			() => packet.writeUInt8(upTo(next, 256), at + 1),
			() => packet.writeUInt16BE((packet.readUInt16BE(at + 2) + upTo(next, 9) - 4) & 0xffff, at + 2),
			() => packet.writeUInt16BE(upTo(next, 65_536), at + 2),
			() => packet.writeUInt16BE(upTo(next, 65_536), at + 6),
			() => packet.writeUInt8(upTo(next, 4), at + 8),
			() => packet.writeUInt8([1, 2, 4, 6, 17, 41, 47, 50, 132, 255][upTo(next, 10)] as number, at + 9),
			() => flip(packet, at + 12 + upTo(next, 8), 1 << upTo(next, 8)),
		];
		(fields[upTo(next, fields.length)] as () => void)();
		if (next() < 0.8) {
			packet.writeUInt16BE(0, at + 10);
			packet.writeUInt16BE(checksum(packet.subarray(at, at + 20)), at + 10);
		}
		return packet;
	},
	// length fields that fit a packet that was cut or extended
	(packet, next) => {
		const longer = Buffer.concat([packet, Buffer.alloc(upTo(next, 40))]);
		const headers = headersOf(longer);
		for (const at of headers) {
			longer.writeUInt16BE(longer.length - at, at + 2);
			longer.writeUInt16BE(0, at + 10);
			longer.writeUInt16BE(checksum(longer.subarray(at, at + 20)), at + 10);
			if (longer[at + 9] === 17 && next() < 0.9 && longer.length >= at + 28)
				longer.writeUInt16BE(longer.length - at - 20, at + 24);
		}
		return longer;
	},
	// one field of the layers above
	(packet, next) => {
		const at = (headersOf(packet).at(-1) as number) + 20;
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

function flip(packet: Buffer, at: number, bits: number): void {
	packet.writeUInt8(packet.readUInt8(at) ^ (bits & 0xff), at);
}

/** One of `all`, as it is, changed a little, or beyond recognition. */
export function mutate(all: readonly Buffer[], next: Next): Buffer {
	if (next() < 0.05) {
		const packet = Buffer.from(Array.from({ length: SHORTEST + upTo(next, 200) }, () => upTo(next, 256)));
		if (next() < 0.7) packet.writeUInt16BE(0x0800, 12);
		return packet;
	}
	if (next() < 0.2) return Buffer.from(all[upTo(next, all.length)] as Buffer);
	let packet = Buffer.from(all[upTo(next, all.length)] as Buffer);
	for (let n = upTo(next, 3); n >= 0; n--)
		packet = Buffer.from((CHANGES[upTo(next, CHANGES.length)] as (typeof CHANGES)[number])(packet, next, all));
	return packet.length >= SHORTEST ? packet : Buffer.concat([packet, Buffer.alloc(SHORTEST - packet.length)]);
}
