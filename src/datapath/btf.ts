// Reads BPF type information (Documentation/bpf/btf.rst): the layouts and enums of the C side. Pure.

export interface BtfMember {
	name: string;
	type: number;
	/** In bytes. */
	offset: number;
}

export type BtfType =
	| { kind: "int"; name: string; size: number; signed: boolean }
	| { kind: "pointer" | "const" | "volatile" | "restrict"; type: number }
	| { kind: "array"; type: number; length: number }
	| { kind: "struct" | "union"; name: string; size: number; members: BtfMember[] }
	| { kind: "enum"; name: string; values: { name: string; value: number }[] }
	| { kind: "typedef"; name: string; type: number }
	| { kind: "var"; name: string; type: number }
	| { kind: "datasec"; name: string; size: number; variables: { type: number; offset: number; size: number }[] }
	| { kind: "other"; name: string };

const BTF_MAGIC = 0xeb9f;
const KINDS = [
	"void", "int", "pointer", "array", "struct", "union", "enum", "forward", "typedef", "volatile", "const", "restrict",
	"function", "prototype", "var", "datasec", "float", "decl_tag", "type_tag", "enum64",
] as const; // biome-ignore format: a table by number

/** Types by their number; 0 is void. */
export class Btf {
	readonly types: readonly BtfType[];

	constructor(data: Buffer) {
		if (data.length < 24 || data.readUInt16LE(0) !== BTF_MAGIC) throw new Error("Cannot read BTF: no BTF header");
		const headerLength = data.readUInt32LE(4);
		const typesAt = headerLength + data.readUInt32LE(8);
		const typesEnd = typesAt + data.readUInt32LE(12);
		const stringsAt = headerLength + data.readUInt32LE(16);
		const text = (offset: number): string => {
			const start = stringsAt + offset;
			return data.toString("utf8", start, data.indexOf(0, start));
		};
		const types: BtfType[] = [{ kind: "other", name: "void" }];
		for (let at = typesAt; at < typesEnd; ) {
			const name = text(data.readUInt32LE(at));
			const info = data.readUInt32LE(at + 4);
			const count = info & 0xffff;
			const sizeOrType = data.readUInt32LE(at + 8);
			const kind = KINDS[(info >>> 24) & 0x1f];
			const u32 = (index: number): number => data.readUInt32LE(at + 12 + 4 * index);
			let words = 0;
			switch (kind) {
				case "int":
					types.push({ kind, name, size: sizeOrType, signed: ((u32(0) >>> 24) & 1) === 1 });
					words = 1;
					break;
				case "pointer":
				case "const":
				case "volatile":
				case "restrict": // biome-ignore format: one meaning
					types.push({ kind, type: sizeOrType });
					break;
				case "array":
					types.push({ kind, type: u32(0), length: u32(2) });
					words = 3;
					break;
				case "struct":
				case "union": {
					// biome-ignore format: one meaning
					const members = Array.from({ length: count }, (_, i) => ({
						name: text(u32(3 * i)),
						type: u32(3 * i + 1),
						offset: (u32(3 * i + 2) & 0xffffff) / 8,
					}));
					types.push({ kind, name, size: sizeOrType, members });
					words = 3 * count;
					break;
				}
				case "enum": {
					const values = Array.from({ length: count }, (_, i) => ({
						name: text(u32(2 * i)),
						value: u32(2 * i + 1) | 0,
					}));
					types.push({ kind, name, values });
					words = 2 * count;
					break;
				}
				case "typedef":
				case "var": // biome-ignore format: one meaning
					types.push({ kind, name, type: sizeOrType });
					words = kind === "var" ? 1 : 0;
					break;
				case "datasec": {
					const variables = Array.from({ length: count }, (_, i) => ({
						type: u32(3 * i),
						offset: u32(3 * i + 1),
						size: u32(3 * i + 2),
					}));
					types.push({ kind, name, size: sizeOrType, variables });
					words = 3 * count;
					break;
				}
				case "enum64":
					types.push({ kind: "other", name });
					words = 3 * count;
					break;
				case "prototype":
					types.push({ kind: "other", name });
					words = 2 * count;
					break;
				case "decl_tag":
					types.push({ kind: "other", name });
					words = 1;
					break;
				default:
					types.push({ kind: "other", name });
			}
			at += 12 + 4 * words;
		}
		this.types = types;
	}

	get(id: number): BtfType {
		const type = this.types[id];
		if (!type) throw new Error(`Cannot read BTF: no type ${id}`);
		return type;
	}

	/** Follows const, volatile and, unless `keep`, typedefs. */
	resolve(id: number): BtfType {
		const type = this.get(id);
		return type.kind === "const" || type.kind === "volatile" || type.kind === "restrict" || type.kind === "typedef"
			? this.resolve(type.type)
			: type;
	}

	sizeOf(id: number): number {
		const type = this.resolve(id);
		switch (type.kind) {
			case "int":
			case "struct":
			case "union": return type.size; // biome-ignore format: a table
			case "enum": return 4; // biome-ignore format: a table
			case "pointer": return 8; // biome-ignore format: a table
			case "array": return type.length * this.sizeOf(type.type); // biome-ignore format: a table
			default:
				throw new Error(`Cannot tell the size of BTF type ${id}`);
		}
	}
}
