// Conversations between two pods that notice every loss: `talk.js serve`, and `talk.js ask IP SECONDS [briefly]`, which keeps a stream
// (unless briefly), request and response over TCP and UDP, and short connections going at once, and prints what it saw as JSON.
import { createSocket } from "node:dgram";
import { once } from "node:events";
import { connect, createServer, type Socket } from "node:net";
import { setTimeout } from "node:timers/promises";
import { DATAGRAM, ECHO, STREAM } from "./talk-ports.js";

/** What a stream consists of, again and again: a byte that is lost or moved changes what follows. */
const PATTERN = Buffer.from(Array.from({ length: 65_521 }, (_, i) => (i * 31 + (i >> 8)) & 0xff));
const ANSWER_MS = 3000;

export interface Talk {
	stream: { bytes: number; wrongBytes: number; longestStallMs: number; failed: string | null };
	tcp: { answers: number; longestMs: number; failed: string | null };
	udp: { answers: number; lost: number; longestMs: number };
	/** `longest`: of each step of one connection that took longest, ms. */
	connections: { done: number; longestMs: number; longest: string; failed: string | null };
}

const NO_STREAM: Talk["stream"] = { bytes: 0, wrongBytes: 0, longestStallMs: 0, failed: null };

const [, , what, ip = "", seconds, manner] = process.argv;
if (what === "serve") await serve();
else {
	const until = performance.now() + Number(seconds) * 1000;
	const [stream, tcp, udp, connections] = await Promise.all([
		manner === "briefly" ? NO_STREAM : streamTo(ip, until),
		requests(ip, until),
		datagrams(ip, until),
		shortConnections(ip, until),
	]);
	console.log(JSON.stringify({ stream, tcp, udp, connections } satisfies Talk));
	process.exit();
}

async function serve(): Promise<void> {
	const sink = createServer({ allowHalfOpen: true }, (socket) => {
		const seen = { bytes: 0, wrongBytes: 0, longestStallMs: 0 };
		let last = performance.now();
		socket.on("data", (chunk) => {
			const now = performance.now();
			seen.longestStallMs = Math.max(seen.longestStallMs, now - last);
			last = now;
			for (let at = 0; at < chunk.length; ) {
				const from = (seen.bytes + at) % PATTERN.length;
				const length = Math.min(chunk.length - at, PATTERN.length - from);
				const expected = PATTERN.subarray(from, from + length);
				if (expected.compare(chunk, at, at + length) !== 0) seen.wrongBytes += length;
				at += length;
			}
			seen.bytes += chunk.length;
		});
		socket.on("end", () => socket.end(JSON.stringify(seen)));
		socket.on("error", () => {});
	});
	const echo = createServer((socket) => {
		socket.setNoDelay(true);
		socket.on("data", (chunk) => socket.write(chunk));
		socket.on("error", () => {});
	});
	const datagram = createSocket("udp6"); // of both families
	datagram.on("message", (message, from) => datagram.send(message, from.port, from.address));
	sink.listen(STREAM);
	echo.listen(ECHO, undefined, 1024);
	datagram.bind(DATAGRAM);
	await Promise.all([once(sink, "listening"), once(echo, "listening"), once(datagram, "listening")]);
	console.log("listening");
}

async function streamTo(host: string, until: number): Promise<Talk["stream"]> {
	const socket = connect({ host, port: STREAM });
	let answer = "";
	socket.setEncoding("utf8").on("data", (text: string) => {
		answer += text;
	});
	try {
		await once(socket, "connect");
		const ended = once(socket, "end");
		ended.catch(() => {});
		while (performance.now() < until) if (!socket.write(PATTERN)) await once(socket, "drain");
		socket.end();
		await ended;
		return { ...JSON.parse(answer), failed: null };
	} catch (error) {
		return { ...NO_STREAM, failed: String(error) };
	}
}

/** Sends `message`, resolves when as many bytes have come back. */
async function ask(socket: Socket, message: Buffer): Promise<void> {
	let open = message.length;
	socket.write(message);
	while (open > 0) {
		const [chunk] = (await once(socket, "data", { signal: AbortSignal.timeout(ANSWER_MS) })) as [Buffer];
		open -= chunk.length;
	}
}

async function requests(host: string, until: number): Promise<Talk["tcp"]> {
	const result: Talk["tcp"] = { answers: 0, longestMs: 0, failed: null };
	const socket = connect({ host, port: ECHO, noDelay: true });
	try {
		await once(socket, "connect");
		while (performance.now() < until) {
			const started = performance.now();
			await ask(socket, Buffer.alloc(64, result.answers));
			result.longestMs = Math.max(result.longestMs, performance.now() - started);
			result.answers++;
		}
	} catch (error) {
		result.failed = String(error);
	}
	socket.destroy();
	return result;
}

async function datagrams(host: string, until: number): Promise<Talk["udp"]> {
	const result: Talk["udp"] = { answers: 0, lost: 0, longestMs: 0 };
	const socket = createSocket(host.includes(":") ? "udp6" : "udp4");
	while (performance.now() < until) {
		const started = performance.now();
		const answer = once(socket, "message", { signal: AbortSignal.timeout(ANSWER_MS) });
		socket.send(Buffer.alloc(200, result.answers), DATAGRAM, host);
		try {
			await answer;
			result.answers++;
			result.longestMs = Math.max(result.longestMs, performance.now() - started);
		} catch {
			result.lost++;
		}
	}
	socket.close();
	return result;
}

async function shortConnections(host: string, until: number): Promise<Talk["connections"]> {
	const result: Talk["connections"] = { done: 0, longestMs: 0, longest: "", failed: null };
	while (performance.now() < until && result.failed === null) {
		const started = performance.now();
		const socket = connect({ host, port: ECHO, noDelay: true });
		try {
			await once(socket, "connect", { signal: AbortSignal.timeout(ANSWER_MS) });
			const connected = performance.now();
			await ask(socket, Buffer.alloc(100, result.done));
			const answered = performance.now();
			const closed = once(socket, "close");
			socket.end();
			await closed;
			result.done++;
			const ended = performance.now();
			if (ended - started > result.longestMs) {
				const steps = [connected - started, answered - connected, ended - answered];
				result.longestMs = ended - started;
				result.longest = `connect, answer, close: ${steps.map((ms) => ms.toFixed(0)).join(", ")}`;
			}
		} catch (error) {
			result.failed = String(error);
		}
		socket.destroy();
		await setTimeout(2);
	}
	return result;
}
