import assert from "node:assert/strict";
import { it } from "node:test";
import { formatIpv6, parseIpv6, readIpv6 } from "./ipv6.js";

it("formatIpv6() gives the canonical text (RFC 5952) of what parseIpv6() took", () => {
	for (const [text, canonical] of [
		["::", "::"],
		["::1", "::1"],
		["1::", "1::"],
		["fd00:10:244:1::2", "fd00:10:244:1::2"],
		["FD00:0010:0244:0001:0000:0000:0000:0002", "fd00:10:244:1::2"],
		["2001:db8:0:1:1:1:1:1", "2001:db8:0:1:1:1:1:1"],
		["2001:0:0:1:0:0:0:1", "2001:0:0:1::1"],
		["2001:db8:0:0:1:0:0:1", "2001:db8::1:0:0:1"],
		["1:2:3:4:5:6:7::", "1:2:3:4:5:6:7:0"],
		["::2:3:4:5:6:7:8", "0:2:3:4:5:6:7:8"],
		["::ffff:10.1.2.3", "::ffff:10.1.2.3"],
		["::ffff:0a01:0203", "::ffff:10.1.2.3"],
		["64:ff9b::192.0.2.33", "64:ff9b::c000:221"],
		["ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"],
	] as const)
		assert.equal(formatIpv6(parseIpv6(text)), canonical);
});

it("parseIpv6() gives an unsigned number in host order", () => {
	assert.equal(parseIpv6("::1"), 1n);
	assert.equal(parseIpv6("fd00::"), 0xfd00n << 112n);
	assert.equal(parseIpv6("::ffff:10.0.0.1"), 0xffff_0a00_0001n);
});

it("parseIpv6() refuses what inet_pton() refuses, and names the text", () => {
	for (const text of [
		"",
		":",
		":::",
		"1",
		"1:2:3:4:5:6:7",
		"1:2:3:4:5:6:7:8:9",
		"1:2:3:4::5:6:7:8",
		"1::2::3",
		"12345::",
		"g::",
		":1::",
		"1::2:",
		"fe80::1%eth0",
		"fd00::1/64",
		" ::1",
		"::10.0.0",
		"::10.0.0.256",
		"10.0.0.1::",
		"::1.2.3.4:5",
		"1:2:3:4:5:6:7:1.2.3.4",
		"10.0.0.1",
	])
		assert.throws(() => parseIpv6(text), {
			name: "TypeError",
			message: `Cannot parse IPv6 address "${text}": expected eight groups of hexadecimal digits such as fd00::1`,
		});
});

it("readIpv6() reads network order at an offset, also from a view into a larger buffer", () => {
	const bytes = Uint8Array.of(9, 9, 0xfd, 0, ...new Array(13).fill(0), 1, 9).subarray(1);
	assert.equal(formatIpv6(readIpv6(bytes, 1)), "fd00::1");
});
