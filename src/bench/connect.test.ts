import assert from "node:assert/strict";
import { test } from "node:test";
import { nginxConfig, parseAb } from "./connect.js";

const OUTPUT = `Concurrency Level:      1
Time taken for tests:   2.000 seconds
Complete requests:      16247
Failed requests:        0
Requests per second:    8123.45 [#/sec] (mean)
Time per request:       0.123 [ms] (mean)
`;

test("parseAb() reads the rate of requests", () => {
	assert.equal(parseAb(OUTPUT), 8123.45);
});

test("parseAb() refuses a run with failed requests, or without any", () => {
	assert.throws(() => parseAb(OUTPUT.replace(/Failed requests: +0/, "Failed requests:        3")), /3 requests failed/);
	assert.throws(() => parseAb(`${OUTPUT}Non-2xx responses:      5\n`), /5 requests failed/);
	assert.throws(() => parseAb("apr_socket_recv: Connection refused (111)\n"), /Connection refused/);
});

test("nginxConfig() writes nothing outside its directory", () => {
	const paths = nginxConfig("/tmp/x", "192.0.2.1", 8080).match(/ \/\w[^;]*;/g);
	assert.equal(paths?.length, 6);
	assert.ok(paths?.every((path) => path.startsWith(" /tmp/x/")));
});
