import assert from "node:assert/strict";
import { test } from "node:test";
import { Btf } from "./btf.js";

/** BTF with these types (words after the name offset) and strings. */
function btf(types: number[][], strings: string): Buffer {
	const body = Buffer.from(Uint32Array.from(types.flat()).buffer);
	const text = Buffer.from(strings);
	const head = Buffer.alloc(24);
	head.writeUInt16LE(0xeb9f, 0);
	head.writeUInt8(1, 2);
	head.writeUInt32LE(24, 4);
	head.writeUInt32LE(0, 8);
	head.writeUInt32LE(body.length, 12);
	head.writeUInt32LE(body.length, 16);
	head.writeUInt32LE(text.length, 20);
	return Buffer.concat([head, body, text]);
}

const [INT, ARRAY, STRUCT, ENUM, TYPEDEF] = [1, 3, 4, 6, 8].map((kind) => kind * 0x1000000) as [
	number,
	number,
	number,
	number,
	number,
];
const STRINGS = "\0u32\0point\0x\0y\0ip_t\0color\0RED\0";
const offsetOf = (name: string): number => STRINGS.indexOf(`\0${name}\0`) + 1;

test("Btf reads integers, structs, arrays, enums and typedefs", () => {
	const types = new Btf(
		btf(
			[
				[offsetOf("u32"), INT, 4, 32],
				[offsetOf("ip_t"), TYPEDEF, 1],
				[0, ARRAY, 0, 1, 1, 3],
				[offsetOf("point"), STRUCT + 2, 16, offsetOf("x"), 2, 0, offsetOf("y"), 3, 32],
				[offsetOf("color"), ENUM + 1, 4, offsetOf("RED"), 7],
			],
			STRINGS,
		),
	);
	assert.deepEqual(types.get(4), {
		kind: "struct",
		name: "point",
		size: 16,
		members: [
			{ name: "x", type: 2, offset: 0 },
			{ name: "y", type: 3, offset: 4 },
		],
	});
	assert.deepEqual([types.sizeOf(2), types.sizeOf(3), types.sizeOf(4)], [4, 12, 16]);
	assert.equal(types.resolve(2).kind, "int");
	assert.deepEqual(types.get(5), { kind: "enum", name: "color", values: [{ name: "RED", value: 7 }] });
});

test("Btf refuses what is not BTF", () => {
	assert.throws(() => new Btf(Buffer.from("ELF...")), /no BTF header/);
});
