// Packets for the kernel tests, built from the inside out: tcp(...) in ipv4(...) in ethernet(...), vxlan(...) around it.

import { encodeIp } from "../../src/net/ip.js";
import { type Ipv4, parseIpv4 } from "../../src/net/ipv4.js";
import { parseIpv6 } from "../../src/net/ipv6.js";
import { macBytes } from "../../src/net/mac.js";

/** One's complement sum of 16-bit words, folded and inverted (RFC 1071). */
export function checksum(...parts: Uint8Array[]): number {
	const bytes = Buffer.concat(parts);
	let sum = 0;
	for (let i = 0; i < bytes.length; i += 2) sum += bytes.readUInt8(i) * 256 + (bytes[i + 1] ?? 0);
	while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
	return ~sum & 0xffff;
}

/** Patches bytes at an offset: `at(packet, 20, 0x40)`. */
export function at(packet: Uint8Array, offset: number, ...bytes: number[]): Buffer {
	const copy = Buffer.from(packet);
	copy.set(bytes, offset);
	return copy;
}

export interface Ipv4Header {
	source: string;
	destination: string;
	protocol: number;
	tos?: number;
	ttl?: number;
	id?: number;
	/** Flags and fragment offset as one word. */
	fragment?: number;
	/** 4-byte aligned. */
	options?: Uint8Array;
	/** Instead of 4; the checksum is right all the same. */
	version?: number;
	/** Instead of the true one. */
	totalLength?: number;
	/** Added to the true one. */
	checksumError?: number;
}

const ip4 = (text: string): Buffer => {
	const bytes = Buffer.alloc(4);
	bytes.writeUInt32BE(parseIpv4(text) as Ipv4);
	return bytes;
};

export function ipv4(header: Ipv4Header, payload: Uint8Array): Buffer {
	const options = header.options ?? new Uint8Array();
	const head = Buffer.alloc(20);
	head[0] = ((header.version ?? 4) << 4) | (5 + options.length / 4);
	head[1] = header.tos ?? 0;
	head.writeUInt16BE(header.totalLength ?? 20 + options.length + payload.length, 2);
	head.writeUInt16BE(header.id ?? 0x1234, 4);
	head.writeUInt16BE(header.fragment ?? 0x4000, 6);
	head[8] = header.ttl ?? 64;
	head[9] = header.protocol;
	ip4(header.source).copy(head, 12);
	ip4(header.destination).copy(head, 16);
	head.writeUInt16BE((checksum(head, options) + (header.checksumError ?? 0)) & 0xffff, 10);
	return Buffer.concat([head, options, payload]);
}

export interface Ipv6Header {
	source: string;
	destination: string;
	nextHeader: number;
	/** Traffic class. */
	tclass?: number;
	flowLabel?: number;
	hopLimit?: number;
	/** Instead of 6. */
	version?: number;
	/** Instead of the true one. */
	payloadLength?: number;
}

export function ipv6(header: Ipv6Header, payload: Uint8Array): Buffer {
	const head = Buffer.alloc(8);
	const { version = 6, tclass = 0, flowLabel = 0 } = header;
	head.writeUInt32BE(((version << 28) | (tclass << 20) | flowLabel) >>> 0, 0);
	head.writeUInt16BE(header.payloadLength ?? payload.length, 4);
	head[6] = header.nextHeader;
	head[7] = header.hopLimit ?? 64;
	const ends = [header.source, header.destination].map((text) => encodeIp(parseIpv6(text)));
	return Buffer.concat([head, ...ends, payload]);
}

export function tcp(
	ports: { source: number; destination: number; flags?: number; offset?: number },
	payload = "",
): Buffer {
	const head = Buffer.alloc(20);
	head.writeUInt16BE(ports.source, 0);
	head.writeUInt16BE(ports.destination, 2);
	head.writeUInt32BE(0x01020304, 4);
	head.writeUInt32BE(0x05060708, 8);
	head[12] = (ports.offset ?? 5) << 4;
	head[13] = ports.flags ?? 0x10;
	head.writeUInt16BE(0xffff, 14);
	return Buffer.concat([head, Buffer.from(payload)]);
}

export function udp(
	ports: { source: number; destination: number; length?: number; checksum?: number },
	payload: Uint8Array | string = "",
): Buffer {
	const head = Buffer.alloc(8);
	const data = Buffer.from(payload);
	head.writeUInt16BE(ports.source, 0);
	head.writeUInt16BE(ports.destination, 2);
	head.writeUInt16BE(ports.length ?? 8 + data.length, 4);
	head.writeUInt16BE(ports.checksum ?? 0, 6);
	return Buffer.concat([head, data]);
}

export function icmp(type: number, code: number, id: number, payload = "abcdefgh"): Buffer {
	const head = Buffer.from([type, code, 0, 0, id >>> 8, id & 255, 0, 1]);
	const data = Buffer.from(payload);
	head.writeUInt16BE(checksum(head, data), 2);
	return Buffer.concat([head, data]);
}

export function ethernet(header: { source: string; destination: string; type?: number }, payload: Uint8Array): Buffer {
	const type = header.type ?? ((payload[0] ?? 0) >> 4 === 6 ? 0x86dd : 0x0800);
	return Buffer.concat([
		macBytes(header.destination),
		macBytes(header.source),
		Uint8Array.of(type >>> 8, type & 255),
		payload,
	]);
}

/** VXLAN header and inner frame, as UDP payload. RFC 7348. */
export function vxlan(vni: number, frame: Uint8Array, flags = 0x08): Buffer {
	const head = Buffer.alloc(8);
	head[0] = flags;
	head.writeUInt32BE(vni * 256, 4);
	return Buffer.concat([head, frame]);
}
