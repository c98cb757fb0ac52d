import assert from "node:assert/strict";
import { test } from "node:test";
import { parseQperf } from "./qperf.js";

test("parseQperf() makes round trips per second of the latency of one way", () => {
	assert.equal(parseQperf("tcp_lat:\n    latency  =  10 us\n"), 50_000);
	assert.equal(parseQperf("udp_lat:\n    latency  =  8000.0 ns\n"), 62_500);
});

test("parseQperf() refuses a run in which nothing was measured", () => {
	assert.throws(() => parseQperf("tcp_lat:\n    latency  =  0 ns\n"), /Cannot read the result of qperf/);
	assert.throws(() => parseQperf("tcp_lat: failed to connect\n"), /failed to connect/);
});
