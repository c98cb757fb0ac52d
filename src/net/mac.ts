// MAC addresses as values: lower-case, colon-separated text.

declare const brand: unique symbol;
export type MacAddress = string & { readonly [brand]: "MacAddress" };

const HEX = Array.from({ length: 256 }, (_, byte) => byte.toString(16).padStart(2, "0"));

export function readMac(bytes: Uint8Array, offset = 0): MacAddress {
	const hex = (i: number): string => HEX[bytes[offset + i] as number] as string;
	return `${hex(0)}:${hex(1)}:${hex(2)}:${hex(3)}:${hex(4)}:${hex(5)}` as MacAddress;
}

/** @throws {TypeError} when `text` is not six hexadecimal bytes */
export function macBytes(text: string): Uint8Array {
	if (!/^([0-9a-f]{2}:){5}[0-9a-f]{2}$/i.test(text))
		throw new TypeError(`Cannot parse MAC address "${text}": expected six bytes such as 0a:58:0a:f4:01:02`);
	return Uint8Array.from(text.split(":"), (b) => Number.parseInt(b, 16));
}
