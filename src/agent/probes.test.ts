// Probes and metrics over TCP: those, and nothing else.
import assert from "node:assert/strict";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { test } from "node:test";
import { serveProbes } from "./probes.js";

async function freePort(): Promise<number> {
	const server = createServer();
	await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
	const { port } = server.address() as AddressInfo;
	await new Promise((resolve) => server.close(resolve));
	return port;
}

test("serveProbes() answers probes and metrics, refuses the rest, and ends with its signal", async () => {
	const ending = new AbortController();
	const port = await freePort();
	let ready = false;
	const probes = {
		ready: () => ready,
		metrics: async () => ({ contentType: "text/plain; version=0.0.4", text: "one 1\n" }),
	};
	await serveProbes({ host: "127.0.0.1", port }, { probes, signal: ending.signal });
	const ask = async (path: string, method = "GET"): Promise<[number, string]> => {
		const response = await fetch(`http://127.0.0.1:${port}${path}`, { method });
		return [response.status, await response.text()];
	};
	assert.deepEqual(await ask("/livez"), [200, "ok\n"]);
	assert.deepEqual(await ask("/readyz"), [503, "not ready\n"]);
	ready = true;
	assert.deepEqual(await ask("/readyz"), [200, "ok\n"]);
	assert.deepEqual(await ask("/metrics"), [200, "one 1\n"]);
	assert.deepEqual(await ask("/metrics", "POST"), [405, ""]);
	for (const path of ["/v1/status", "/v1/detach", "/", "/metrics/x"]) assert.equal((await ask(path))[0], 404);
	assert.equal((await ask("/v1/detach", "POST"))[0], 404);
	await assert.rejects(
		serveProbes({ host: "127.0.0.1", port }, { probes, signal: ending.signal }),
		/Cannot serve metrics at "127.0.0.1" port \d+ \(metricsAddress\): .*EADDRINUSE/,
	);
	ending.abort();
	await assert.rejects(ask("/livez"));
});
