// MAC addresses as values: lower-case, colon-separated text.

declare const brand: unique symbol;
export type MacAddress = string & { readonly [brand]: "MacAddress" };

export function readMac(bytes: Uint8Array, offset = 0): MacAddress {
	return Array.from(bytes.subarray(offset, offset + 6), (b) => b.toString(16).padStart(2, "0")).join(":") as MacAddress;
}

/** @throws {TypeError} when `text` is not six hexadecimal bytes */
export function macBytes(text: string): Uint8Array {
	if (!/^([0-9a-f]{2}:){5}[0-9a-f]{2}$/i.test(text))
		throw new TypeError(`Cannot parse MAC address "${text}": expected six bytes such as 0a:58:0a:f4:01:02`);
	return Uint8Array.from(text.split(":"), (b) => Number.parseInt(b, 16));
}
