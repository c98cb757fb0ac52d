import assert from "node:assert/strict";
import { test } from "node:test";
import { isListening, Listener } from "./listener.js";

const TCP = `  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 020200C0:4E21 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 69857 1 00000000a472f072
   1: 020200C0:4E22 010200C0:9C40 01 00000000:00000000 00:00000000 00000000     0        0 69858 1 00000000a472f073
`;
const UDP = `   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops
13924: 020200C0:4E21 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 69865 2 00000000d11f3099 0
`;

test("isListening() finds a socket that waits for peers", () => {
	assert.equal(isListening(TCP, "192.0.2.2", 20001, "tcp"), true);
	assert.equal(isListening(UDP, "192.0.2.2", 20001, "udp"), true);
});

const TCP6 = `  sl  local_address                         remote_address                        st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: B80D0120000000000000000001000000:4E21 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1 1
`;

test("isListening() reads IPv6 addresses as the kernel prints them", () => {
	assert.equal(isListening(TCP6, "2001:db8::1", 20001, "tcp"), true);
	assert.equal(isListening(TCP6, "2001:db8::2", 20001, "tcp"), false);
});

test("isListening() takes neither a connection nor another address for one", () => {
	assert.equal(isListening(TCP, "192.0.2.2", 20002, "tcp"), false);
	assert.equal(isListening(TCP, "192.0.2.1", 20001, "tcp"), false);
	assert.equal(isListening("", "192.0.2.2", 20001, "tcp"), false);
});

const options = { ip: "127.0.0.1", port: 1, protocol: "tcp", signal: new AbortController().signal } as const;

test("Listener.start() of a program that ends says why", async () => {
	const argv = ["sh", "-c", "echo no port left >&2; exit 3"];
	await assert.rejects(Listener.start({ ...options, argv }), /Cannot start server "sh .*it ended: no port left/);
});

test("Listener.start() of a program that is not there says so", async () => {
	await assert.rejects(Listener.start({ ...options, argv: ["oncache-no-such-tool"] }), /it ended: .*ENOENT/);
});
