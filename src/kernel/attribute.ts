// Netlink attributes (struct nlattr): type-length-value records, padded to four bytes.
// Numbers are in host order; every machine that koffi is built for and ONCache runs on is little endian.

const HEADER_BYTES = 4;
/** Bits 14 and 15 say "nested" and "big endian"; the kernel does not set them reliably. */
const TYPE_MASK = 0x3fff;

export type Attributes = Map<number, Buffer>;

/** The attributes from `offset` to the end; values are views of `bytes`. A type that repeats: the last one counts. */
export function parseAttributes(bytes: Buffer, offset = 0): Attributes {
	const attributes: Attributes = new Map();
	while (offset + HEADER_BYTES <= bytes.length) {
		const length = bytes.readUInt16LE(offset);
		if (length < HEADER_BYTES || offset + length > bytes.length)
			throw new RangeError(
				`Cannot parse netlink attribute at byte ${offset}: it claims ${length} bytes of ${bytes.length - offset}`,
			);
		attributes.set(bytes.readUInt16LE(offset + 2) & TYPE_MASK, bytes.subarray(offset + HEADER_BYTES, offset + length));
		offset += align(length);
	}
	return attributes;
}

export function encodeAttribute(type: number, value: Uint8Array): Buffer {
	const length = HEADER_BYTES + value.length;
	const bytes = Buffer.alloc(align(length));
	bytes.writeUInt16LE(length, 0);
	bytes.writeUInt16LE(type, 2);
	bytes.set(value, HEADER_BYTES);
	return bytes;
}

export function encodeU32(type: number, value: number): Buffer {
	const bytes = Buffer.alloc(4);
	bytes.writeUInt32LE(value);
	return encodeAttribute(type, bytes);
}

/** A flag: either present without a value, or a byte that is not 0. */
export function isSet(attributes: Attributes, type: number): boolean {
	const value = attributes.get(type);
	return value !== undefined && (value.length === 0 || value[0] !== 0);
}

/** A zero-terminated string. */
export function readText(value: Buffer | undefined): string | undefined {
	if (value === undefined) return undefined;
	const end = value.indexOf(0);
	return value.toString("utf8", 0, end < 0 ? value.length : end);
}

export function align(length: number): number {
	return (length + 3) & ~3;
}
