// IPv6 addresses as values: an unsigned 128-bit number in host order, never a string inside the program.
import { formatIpv4, type Ipv4, parseIpv4 } from "./ipv4.js";

declare const brand: unique symbol;
export type Ipv6 = bigint & { readonly [brand]: "Ipv6" };

const GROUPS = 8;
/** ::ffff:0:0/96 (RFC 4291, section 2.5.5.2). */
const MAPPED = 0xffffn;

/**
 * RFC 4291, section 2.2, as inet_pton() takes it: no zone, no prefix length.
 * @throws {TypeError} when `text` is something else
 */
export function parseIpv6(text: string): Ipv6 {
	const groups = groupsOf(text);
	if (!groups)
		throw new TypeError(
			`Cannot parse IPv6 address "${text}": expected eight groups of hexadecimal digits such as fd00::1`,
		);
	return groups.reduce((ip, group) => (ip << 16n) | BigInt(group), 0n) as Ipv6;
}

/** RFC 5952: lower case, no leading zeros, the first of the longest runs of zeros as "::"; IPv4-mapped ones end in dotted decimal. */
export function formatIpv6(ip: Ipv6): string {
	if (ip >> 32n === MAPPED) return `::ffff:${formatIpv4(Number(ip & 0xffffffffn) as Ipv4)}`;
	const groups = Array.from({ length: GROUPS }, (_, i) => Number((ip >> BigInt(16 * (GROUPS - 1 - i))) & 0xffffn));
	const run = longestRun(groups);
	const text = (some: readonly number[]): string => some.map((group) => group.toString(16)).join(":");
	return run ? `${text(groups.slice(0, run.from))}::${text(groups.slice(run.from + run.length))}` : text(groups);
}

/** Reads 16 bytes in network order. */
export function readIpv6(bytes: Uint8Array, offset = 0): Ipv6 {
	const view = new DataView(bytes.buffer, bytes.byteOffset);
	return ((view.getBigUint64(offset) << 64n) | view.getBigUint64(offset + 8)) as Ipv6;
}

function groupsOf(text: string): number[] | undefined {
	const halves = text.split("::");
	if (halves.length > 2) return undefined;
	const [head, tail] = halves.map((half, i) => sideOf(half, i === halves.length - 1));
	if (!head || (halves.length === 2 && !tail)) return undefined;
	if (!tail) return head.length === GROUPS ? head : undefined;
	const missing = GROUPS - head.length - tail.length;
	return missing >= 1 ? [...head, ...new Array<number>(missing).fill(0), ...tail] : undefined;
}

/** Groups between colons; an IPv4 address may be the last two. */
function sideOf(text: string, isLast: boolean): number[] | undefined {
	if (text === "") return [];
	const groups: number[] = [];
	const parts = text.split(":");
	for (const [i, part] of parts.entries()) {
		if (isLast && i === parts.length - 1 && part.includes(".")) {
			if (!/^[\d.]+$/.test(part)) return undefined;
			try {
				const ip = parseIpv4(part);
				groups.push(ip >>> 16, ip & 0xffff);
			} catch {
				return undefined;
			}
		} else if (/^[0-9a-f]{1,4}$/i.test(part)) groups.push(Number.parseInt(part, 16));
		else return undefined;
	}
	return groups;
}

/** A single group of zeros is not shortened. */
function longestRun(groups: readonly number[]): { from: number; length: number } | undefined {
	let best = { from: 0, length: 1 };
	let length = 0;
	for (const [i, group] of groups.entries()) {
		length = group === 0 ? length + 1 : 0;
		if (length > best.length) best = { from: i + 1 - length, length };
	}
	return best.length > 1 ? best : undefined;
}
