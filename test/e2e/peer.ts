// The two ends of a UDP conversation, run inside pods: `peer.js echo PORT [ADDRESS]`, and `peer.js ask IP PORT SOURCE_PORT SIZE...`,
// which sends a datagram of each size from one socket, waits for each echo, and prints how many came back right.
import { createSocket } from "node:dgram";
import { once } from "node:events";
import { isIPv6 } from "node:net";
import { patiently } from "../../src/lab/patience.js";

const ANSWER_MS = patiently(1000);
const [, , what, ...args] = process.argv;

if (what === "echo") {
	const [port, address = "0.0.0.0"] = args;
	const socket = createSocket(isIPv6(address) ? "udp6" : "udp4");
	socket.on("message", (message, from) => socket.send(message, from.port, from.address));
	socket.bind(Number(port), address);
	await once(socket, "listening");
	console.log("listening");
} else {
	const [ip = "", port, sourcePort, ...sizes] = args;
	const socket = createSocket(isIPv6(ip) ? "udp6" : "udp4");
	socket.bind(Number(sourcePort));
	await once(socket, "listening");
	let right = 0;
	for (const [round, size] of sizes.entries()) {
		const sent = Buffer.alloc(Number(size), round + 1);
		const answer = once(socket, "message", { signal: AbortSignal.timeout(ANSWER_MS) });
		socket.send(sent, Number(port), ip);
		try {
			const [got] = (await answer) as [Buffer];
			if (got.equals(sent)) right++;
		} catch {
			// no answer: not counted
		}
	}
	console.log(String(right));
	socket.close();
}
