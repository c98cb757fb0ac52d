import assert from "node:assert/strict";
import { it } from "node:test";
import { formatIpv4, parseIpv4, readIpv4 } from "./ipv4.js";

it("parseIpv4() and formatIpv4() are inverse", () => {
	for (const text of ["0.0.0.0", "10.244.1.2", "127.0.0.1", "128.0.0.1", "192.168.7.254", "255.255.255.255"])
		assert.equal(formatIpv4(parseIpv4(text)), text);
});

it("parseIpv4() gives an unsigned number in host order", () => {
	assert.equal(parseIpv4("10.0.0.1"), 0x0a000001);
	assert.equal(parseIpv4("255.255.255.255"), 0xffffffff);
});

it("parseIpv4() refuses everything but four decimal numbers, and names the text", () => {
	for (const text of [
		"",
		"10.0.0",
		"10.0.0.0.1",
		"10.0.0.256",
		"10.0.0.01",
		"10.0.0.-1",
		"10.0.0.1 ",
		"a.b.c.d",
		"0x0a.0.0.1",
		"fd00::1",
	])
		assert.throws(() => parseIpv4(text), {
			name: "TypeError",
			message: new RegExp(`^Cannot parse IPv4 address "${text}"`),
		});
});

it("readIpv4() reads network order at an offset, also from a view into a larger buffer", () => {
	const bytes = Uint8Array.of(9, 9, 9, 192, 168, 7, 1, 9).subarray(1);
	assert.equal(formatIpv4(readIpv4(bytes, 2)), "192.168.7.1");
	assert.equal(formatIpv4(readIpv4(Uint8Array.of(10, 0, 0, 1))), "10.0.0.1");
});
