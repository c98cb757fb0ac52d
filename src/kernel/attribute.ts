// Netlink attributes (struct nlattr): type-length-value records, padded to four bytes.
// Numbers are in host order; every machine that koffi is built for and ONCache runs on is little endian.

const HEADER_BYTES = 4;
/** Bits 14 and 15 say "nested" and "big endian"; the kernel does not set them reliably. */
const TYPE_MASK = 0x3fff;

/** Records one behind another, found where they lie: a list of devices has tens of thousands, and few are asked for. */
export class Attributes {
	readonly #bytes: Buffer;
	readonly #from: number;
	/** How many there are. */
	readonly size: number;

	/** From `offset` to the end. @throws RangeError when a length lies */
	constructor(bytes: Buffer, offset = 0) {
		this.#bytes = bytes;
		this.#from = offset;
		let size = 0;
		for (let at = offset; at + HEADER_BYTES <= bytes.length; size++) {
			const length = u16(bytes, at);
			if (length < HEADER_BYTES || at + length > bytes.length)
				throw new RangeError(
					`Cannot parse netlink attribute at byte ${at}: it claims ${length} bytes of ${bytes.length - at}`,
				);
			at += align(length);
		}
		this.size = size;
	}

	/** The value, a view of the bytes. Of a type that repeats the last one counts. */
	get(type: number): Buffer | undefined {
		const bytes = this.#bytes;
		let found = -1;
		for (let at = this.#from; at + HEADER_BYTES <= bytes.length; at += align(u16(bytes, at)))
			if ((u16(bytes, at + 2) & TYPE_MASK) === type) found = at;
		return found < 0 ? undefined : bytes.subarray(found + HEADER_BYTES, found + u16(bytes, found));
	}

	has(type: number): boolean {
		return this.get(type) !== undefined;
	}
}

export function parseAttributes(bytes: Buffer, offset = 0): Attributes {
	return new Attributes(bytes, offset);
}

function u16(bytes: Buffer, at: number): number {
	return (bytes[at] as number) | ((bytes[at + 1] as number) << 8);
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
