import assert from "node:assert/strict";
import { test } from "node:test";
import { parseSockperf } from "./request-response.js";

const OUTPUT = `sockperf: Test ended
sockperf: [Total Run] RunTime=2.000 sec; Warm up time=400 msec; SentMessages=159825; ReceivedMessages=159824
sockperf: ========= Printing statistics for Server No: 0
sockperf: [Valid Duration] RunTime=1.550 sec; SentMessages=124276; ReceivedMessages=124000
sockperf: \u001b[2;35m====> avg-latency=6.214 (std-dev=0.905)\u001b[0m
`;

test("parseSockperf() counts answers in the valid duration, not in the warm-up", () => {
	assert.equal(parseSockperf(OUTPUT), 124000 / 1.55);
});

test("parseSockperf() refuses a run without answers, with sockperf's words", () => {
	assert.throws(
		() => parseSockperf("sockperf: No messages were received from the server."),
		/No messages were received/,
	);
	assert.throws(() => parseSockperf(OUTPUT.replaceAll("ReceivedMessages=124000", "ReceivedMessages=0")), /Cannot read/);
});
