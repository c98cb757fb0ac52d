import assert from "node:assert/strict";
import { it } from "node:test";
import { macBytes, readMac } from "./mac.js";

it("readMac() reads six bytes at an offset as lower-case text", () => {
	assert.equal(readMac(Uint8Array.of(9, 0x0a, 0x58, 0x0a, 0xf4, 1, 0xff, 9), 1), "0a:58:0a:f4:01:ff");
});

it("macBytes() and readMac() are inverse", () => {
	assert.equal(readMac(macBytes("0A:58:0a:F4:01:02")), "0a:58:0a:f4:01:02");
	assert.equal(macBytes("00:00:00:00:00:00").length, 6);
});

it("macBytes() refuses everything but six bytes, and names the text", () => {
	for (const text of [
		"",
		"0a:58:0a:f4:01",
		"0a:58:0a:f4:01:02:03",
		"0a-58-0a-f4-01-02",
		"0g:58:0a:f4:01:02",
		"a:58:0a:f4:01:02",
	])
		assert.throws(() => macBytes(text), {
			name: "TypeError",
			message: new RegExp(`^Cannot parse MAC address "${text}"`),
		});
});
