// The server over a real unix socket; what it asks of the agent is a double.
import assert from "node:assert/strict";
import { existsSync, mkdtempSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { parseIpv4 } from "../net/ipv4.js";
import type { Status } from "./api.js";
import { AgentRefused, agentRequest } from "./client.js";
import { type Handlers, serve } from "./server.js";

const dir = mkdtempSync(join(tmpdir(), "oncache-test-"));
const socket = join(dir, "agent.sock");
const stop = new AbortController();
const asked: unknown[] = [];
let ready = false;

const double: Handlers = {
	ready: () => ready,
	metrics: async () => ({ contentType: "text/plain", text: "one 1\n" }),
	status: async () => ({ state: "off", agent: { pid: 4711 } }) as unknown as Status,
	flows: async (query) => {
		asked.push(query);
		return { total: 0, flows: [] };
	},
	flush: async (what) => {
		asked.push(what);
		return { pods: 0, hosts: 0, flows: 0, all: "all" in what };
	},
	lease: async (request) => {
		asked.push(request);
		return { id: "one", ttlMs: request.ttlMs, evicted: [] };
	},
	renew: (id, ttlMs) => id === "one" && ttlMs === 500,
	release: (id) => id === "one",
	cni: {
		add: async (request) => {
			asked.push(request);
			return { veth: "veth1", attached: true, why: null };
		},
		check: async () => ({ veth: "veth1", attached: false, why: "The device is down" }),
		del: async () => ({ veth: null, attached: false, why: null }),
		gc: async ({ valid }) => ({ removed: valid.length }),
	},
	pause: (request) => {
		asked.push(request);
		return { learning: false, using: false };
	},
	resume: () => ({ learning: true, using: true }),
	detach: () => {
		throw new Error("Cannot detach: the double says so");
	},
};

before(async () => {
	writeFileSync(socket, ""); // what a crashed agent has left
	await serve({ socket, handlers: double, signal: stop.signal });
});
after(() => {
	stop.abort();
	rmSync(dir, { recursive: true });
});

const refused = (code: string, status: number, words: RegExp) => (error: unknown) =>
	error instanceof AgentRefused && error.code === code && error.status === status && words.test(error.message);

test("the socket is for its owner and group only", () => {
	assert.equal(statSync(socket).mode & 0o777, 0o660);
});

test("requests arrive as values", async () => {
	asked.length = 0;
	await agentRequest(socket, "GET", "/v1/flows?pod=10.0.0.1&limit=5");
	await agentRequest(socket, "POST", "/v1/flush", { pod: "10.0.0.2" });
	await agentRequest(socket, "POST", "/v1/leases", { ttlMs: 500, evict: [{ all: true }] });
	assert.deepEqual(await agentRequest(socket, "POST", "/v1/leases/renew", { id: "one", ttlMs: 500 }), { held: true });
	assert.deepEqual(await agentRequest(socket, "POST", "/v1/leases/release", { id: "other" }), { held: false });
	await agentRequest(socket, "POST", "/v1/pause");
	await agentRequest(socket, "POST", "/v1/pause", { using: true });
	assert.deepEqual(asked, [
		{ pod: parseIpv4("10.0.0.1"), limit: 5 },
		{ pod: "10.0.0.2" },
		{ ttlMs: 500, evict: [{ all: true }] },
		{},
		{ using: true },
	]);
	assert.equal((await agentRequest<Status>(socket, "GET", "/v1/status")).agent.pid, 4711);
});

test("bad input is refused with what is wrong", async () => {
	const post = (path: string, body: unknown) => () => agentRequest(socket, "POST", path, body);
	await assert.rejects(post("/v1/flush", {}), refused("bad_request", 400, /exactly one/));
	await assert.rejects(post("/v1/flush", { pod: "10.0.0.1", all: true }), refused("bad_request", 400, /exactly one/));
	await assert.rejects(
		post("/v1/flush", { pod: "10.0.0" }),
		refused("bad_request", 400, /"pod": Cannot parse IPv4 address "10.0.0"/),
	);
	await assert.rejects(post("/v1/leases", { ttlMs: 1, evict: [] }), refused("bad_request", 400, /ttlMs/));
	await assert.rejects(
		post("/v1/flush", { flow: { protocol: "sctp", a: { ip: "10.0.0.1", port: 1 }, b: { ip: "10.0.0.2", port: 2 } } }),
		refused("bad_request", 400, /protocol/),
	);
	await assert.rejects(post("/v1/pause", { nonsense: 1 }), refused("bad_request", 400, /nonsense/));
	await assert.rejects(post("/v1/pause", "x".repeat(1_100_000)), refused("too_large", 413, /larger than 1048576/));
	await assert.rejects(() => agentRequest(socket, "GET", "/v1/flows?limit=-1"), refused("bad_request", 400, /limit/));
	await assert.rejects(() => agentRequest(socket, "GET", "/v2"), refused("not_found", 404, /No such path/));
	await assert.rejects(
		() => agentRequest(socket, "GET", "/v1/flush"),
		refused("method_not_allowed", 405, /takes POST/),
	);
});

test("what fails inside is an answer with its message, and the server goes on", async () => {
	await assert.rejects(() => agentRequest(socket, "POST", "/v1/detach"), refused("failed", 500, /the double says so/));
	await assert.rejects(() => agentRequest(socket, "GET", "/readyz"), /not ready/i);
	ready = true;
	assert.equal((await agentRequest<Status>(socket, "GET", "/v1/status")).state, "off");
});

test("the socket is removed at the end", () => {
	stop.abort();
	assert.equal(existsSync(socket), false);
});
