import assert from "node:assert/strict";
import { it } from "node:test";
import { encodeAttribute, encodeU32, isSet, parseAttributes, readText } from "./attribute.js";

it("encodeAttribute() writes length and type, and pads to four bytes", () => {
	assert.equal(encodeAttribute(3, Buffer.from("lo\0")).toString("hex"), "070003006c6f0000");
	assert.equal(encodeU32(29, 8).toString("hex"), "08001d0008000000");
});

it("parseAttributes() reads what encodeAttribute() wrote, from an offset", () => {
	const bytes = Buffer.concat([Buffer.alloc(16), encodeAttribute(3, Buffer.from("eth0\0")), encodeU32(4, 1500)]);
	const attributes = parseAttributes(bytes, 16);
	assert.equal(attributes.size, 2);
	assert.equal(readText(attributes.get(3)), "eth0");
	assert.equal(attributes.get(4)?.readUInt32LE(), 1500);
});

it("parseAttributes() ignores the bits for nested and big endian", () => {
	assert.ok(parseAttributes(encodeU32(18 | 0x8000, 0)).has(18));
});

it("parseAttributes() refuses lengths that lie, with both numbers", () => {
	assert.throws(() => parseAttributes(Buffer.from("0c000100ffffffff", "hex")), /at byte 0: it claims 12 bytes of 8/);
	assert.throws(() => parseAttributes(Buffer.from("00000100", "hex")), /claims 0 bytes of 4/);
});

it("parseAttributes() takes the last of a type that repeats", () => {
	assert.equal(
		parseAttributes(Buffer.concat([encodeU32(4, 1), encodeU32(4, 2)]))
			.get(4)
			?.readUInt32LE(),
		2,
	);
});

it("isSet() takes a flag without a value and a byte that is not 0", () => {
	const of = (value: number[]) => parseAttributes(encodeAttribute(1, Uint8Array.from(value)));
	assert.equal(isSet(of([]), 1), true);
	assert.equal(isSet(of([1]), 1), true);
	assert.equal(isSet(of([0]), 1), false);
	assert.equal(isSet(of([]), 2), false);
});
