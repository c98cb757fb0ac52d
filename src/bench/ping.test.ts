import assert from "node:assert/strict";
import { test } from "node:test";
import { parsePing } from "./ping.js";

const OUTPUT = `3 packets transmitted, 3 received, 0% packet loss, time 200ms
rtt min/avg/max/mdev = 0.021/0.034/0.058/0.016 ms
`;

test("parsePing() reads the mean round trip", () => {
	assert.equal(parsePing(OUTPUT, "10.0.0.1"), 0.034);
});

test("parsePing() names the address that does not answer every time", () => {
	const lossy = OUTPUT.replace("3 received", "1 received");
	assert.throws(() => parsePing(lossy, "10.0.0.1"), /Cannot reach 10\.0\.0\.1: 1 of 3 pings were answered/);
	assert.throws(() => parsePing("", "10.0.0.1"), /Cannot reach 10\.0\.0\.1: 0 of 3/);
});
