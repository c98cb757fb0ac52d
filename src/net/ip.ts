// Addresses of either family. Where the kernel keeps both in 16 bytes, IPv4 is ::ffff:a.b.c.d (RFC 4291, section 2.5.5.2).
import { formatIpv4, type Ipv4, parseIpv4, readIpv4 } from "./ipv4.js";
import { formatIpv6, type Ipv6, parseIpv6, readIpv6 } from "./ipv6.js";

/** Told apart by their type: Ipv4 is a number, Ipv6 a bigint. */
export type Ip = Ipv4 | Ipv6;

export const IPV4_BYTES = 4;
export const IPV6_BYTES = 16;
const MAPPED_HIGH = 0xffffn;

export function isIpv6(ip: Ip): ip is Ipv6 {
	return typeof ip === "bigint";
}

/** @throws {TypeError} when `text` is no address of either family */
export function parseIp(text: string): Ip {
	return text.includes(":") ? parseIpv6(text) : parseIpv4(text);
}

export function formatIp(ip: Ip): string {
	return isIpv6(ip) ? formatIpv6(ip) : formatIpv4(ip);
}

/** "10.244.1.2:80", "[fd00::2]:80" (RFC 5952, section 6). */
export function formatEnd(ip: string, port: number): string {
	return ip.includes(":") ? `[${ip}]:${port}` : `${ip}:${port}`;
}

/** Of 4 or 16 bytes in network order; undefined: of another length. */
export function decodeIp(bytes: Uint8Array): Ip | undefined {
	if (bytes.length === IPV4_BYTES) return readIpv4(bytes);
	return bytes.length === IPV6_BYTES ? readIpv6(bytes) : undefined;
}

/** In network order. */
export function encodeIp(ip: Ip): Buffer {
	const bytes = Buffer.alloc(isIpv6(ip) ? IPV6_BYTES : IPV4_BYTES);
	if (isIpv6(ip)) {
		bytes.writeBigUInt64BE(ip >> 64n, 0);
		bytes.writeBigUInt64BE(ip & 0xffffffffffffffffn, 8);
	} else bytes.writeUInt32BE(ip);
	return bytes;
}

/** 16 bytes in network order, of either family. */
export function readIp(view: DataView, at: number): Ip {
	const high = view.getBigUint64(at);
	const low = view.getBigUint64(at + 8);
	if (high === 0n && low >> 32n === MAPPED_HIGH) return Number(low & 0xffffffffn) as Ipv4;
	return ((high << 64n) | low) as Ipv6;
}

export function writeIp(view: DataView, at: number, ip: Ip): void {
	const value: bigint = isIpv6(ip) ? ip : (MAPPED_HIGH << 32n) | BigInt(ip);
	view.setBigUint64(at, value >> 64n);
	view.setBigUint64(at + 8, value & 0xffffffffffffffffn);
}
