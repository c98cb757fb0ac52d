import assert from "node:assert/strict";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import { after, before, test } from "node:test";
import { AgentRefused, AgentUnreachable, agentRequest } from "./client.js";

const folder = mkdtempSync(join(tmpdir(), "oncache-client-"));
const socket = join(folder, "agent.sock");
const server = createServer(answer);

async function answer(request: IncomingMessage, response: ServerResponse) {
	const body = await text(request);
	if (request.url === "/echo") response.end(JSON.stringify({ method: request.method, body }));
	else if (request.url === "/refuse")
		response.writeHead(409).end(JSON.stringify({ error: { code: "busy", message: "Cannot flush: busy" } }));
	else if (request.url === "/readyz") response.writeHead(503).end("not attached yet\n");
	else if (request.url === "/garbage") response.end("<html>");
	// Anything else is never answered.
}

before(async () => {
	server.listen(socket);
	await once(server, "listening");
});

after(() => {
	server.closeAllConnections();
	server.close();
	rmSync(folder, { recursive: true });
});

test("agentRequest() sends method and JSON body and returns the JSON answer", async () => {
	assert.deepEqual(await agentRequest(socket, "GET", "/echo"), { method: "GET", body: "" });
	assert.deepEqual(await agentRequest(socket, "POST", "/echo", { all: true }), {
		method: "POST",
		body: '{"all":true}',
	});
});

test("agentRequest() throws what the agent says when it refuses", async () => {
	await assert.rejects(agentRequest(socket, "POST", "/refuse", {}), (error) => {
		assert(error instanceof AgentRefused);
		assert.deepEqual([error.status, error.code, error.message], [409, "busy", "Cannot flush: busy"]);
		return true;
	});
	await assert.rejects(agentRequest(socket, "GET", "/readyz"), { name: "AgentRefused", message: "not attached yet" });
});

const NOBODY: [string, string, RegExp][] = [
	["there is no socket", join(folder, "none.sock"), /none\.sock": there is no such socket; start "oncache agent"/],
	["the path is not a socket", process.execPath, /not a socket|nobody listens/],
];

for (const [situation, path, message] of NOBODY)
	test(`agentRequest() says so when ${situation}`, async () => {
		await assert.rejects(agentRequest(path, "GET", "/echo"), (error) => {
			assert(error instanceof AgentUnreachable);
			assert.match(error.message, message);
			return true;
		});
	});

test("agentRequest() gives up on an agent that does not answer in time", async () => {
	await assert.rejects(agentRequest(socket, "GET", "/silence", undefined, { timeoutMs: 1 }), {
		name: "AgentUnreachable",
		message: `Cannot reach the agent at "${socket}": no answer within 1 ms`,
	});
});

test("agentRequest() ends when it is asked to", async () => {
	const ending = new AbortController();
	const pending = agentRequest(socket, "GET", "/silence", undefined, { signal: ending.signal });
	ending.abort();
	await assert.rejects(pending, { name: "AbortError" });
});

test("agentRequest() does not take an answer that is not JSON", async () => {
	await assert.rejects(agentRequest(socket, "GET", "/garbage"), { name: "AgentUnreachable" });
});
