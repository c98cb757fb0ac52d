// IPv4 addresses as values: an unsigned 32-bit number in host order, never a string inside the program.

declare const brand: unique symbol;
export type Ipv4 = number & { readonly [brand]: "Ipv4" };

/** The address in dotted decimal. @throws {TypeError} when `text` is not four decimal numbers 0..255 */
export function parseIpv4(text: string): Ipv4 {
	const parts = text.split(".");
	if (parts.length !== 4 || !parts.every((part) => /^(0|[1-9]\d{0,2})$/.test(part) && Number(part) <= 255))
		throw new TypeError(`Cannot parse IPv4 address "${text}": expected four numbers 0..255 such as 10.244.1.2`);
	return parts.reduce((ip, part) => ip * 256 + Number(part), 0) as Ipv4;
}

export function formatIpv4(ip: Ipv4): string {
	return `${ip >>> 24}.${(ip >>> 16) & 255}.${(ip >>> 8) & 255}.${ip & 255}`;
}

/** Reads four bytes in network order. */
export function readIpv4(bytes: Uint8Array, offset = 0): Ipv4 {
	return new DataView(bytes.buffer, bytes.byteOffset).getUint32(offset) as Ipv4;
}
