import assert from "node:assert/strict";
import { it } from "node:test";
import { decodeIp, encodeIp, formatEnd, formatIp, parseIp, readIp, writeIp } from "./ip.js";

const BOTH = [
	"0.0.0.0",
	"10.244.1.2",
	"255.255.255.255",
	"::",
	"::1",
	"fd00:10:244:1::2",
	"::ffff:0:0:0",
	"::1:10.0.0.1",
];

it("parseIp() and formatIp() are inverse for both families", () => {
	for (const text of BOTH.slice(0, 7)) assert.equal(formatIp(parseIp(text)), text);
});

it("writeIp() and readIp() are inverse, and IPv4 lies in 16 bytes as ::ffff:a.b.c.d", () => {
	const view = new DataView(new ArrayBuffer(24));
	for (const text of BOTH) {
		writeIp(view, 4, parseIp(text));
		assert.equal(readIp(view, 4), parseIp(text));
	}
	writeIp(view, 4, parseIp("10.244.1.2"));
	assert.equal(Buffer.from(view.buffer).toString("hex"), "0000000000000000000000000000ffff0af4010200000000");
});

it("encodeIp() and decodeIp() are inverse; other lengths are no address", () => {
	for (const text of BOTH) assert.equal(decodeIp(encodeIp(parseIp(text))), parseIp(text));
	assert.equal(decodeIp(Buffer.alloc(6)), undefined);
});

it("formatEnd() puts IPv6 in brackets", () => {
	assert.deepEqual([formatEnd("10.0.0.1", 80), formatEnd("fd00::1", 80)], ["10.0.0.1:80", "[fd00::1]:80"]);
});
