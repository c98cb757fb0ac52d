// The two ends of conversations that say who answered, run inside pods:
//   talker.js serve NAME PORT "::"|"0.0.0.0"        answers TCP and UDP, with "::" also IPv6
//   talker.js ask tcp|udp IP PORT BYTES COUNT       one conversation after the other, each from a port of its own;
//                                                   prints the answers as JSON
// Every byte of a UDP answer and of a TCP stream goes both ways.
import { createSocket } from "node:dgram";
import { once } from "node:events";
import { connect, createServer, isIPv6 } from "node:net";
import { patiently } from "../../src/lab/patience.js";

export interface Answer {
	/** Of the server. */
	name: string;
	/** Address that the server saw. */
	from: string;
	/** That arrived there. */
	bytes: number;
}

const ANSWER_MS = patiently(2000);
/** Of a TCP stream; the next one is sent when this one has come back. */
const PIECE_BYTES = 65_536;
const [, , what, ...args] = process.argv;

if (what === "serve") await serve(args[0] ?? "", Number(args[1]), args[2] ?? "");
else if (what === "ask") {
	const [protocol, ip = "", port, bytes, count] = args;
	const askOnce = protocol === "tcp" ? askTcp : askUdp;
	const answers: Answer[] = [];
	try {
		for (let i = 0; i < Number(count); i++) answers.push(await askOnce(ip, Number(port), Number(bytes)));
		console.log(JSON.stringify(answers));
	} catch (error) {
		console.error(`After ${answers.length} answers: ${error}`);
		process.exitCode = 1;
	}
}

async function serve(name: string, port: number, host: string): Promise<void> {
	const answer = (from: string | undefined, bytes: number): Answer => ({
		name,
		from: from?.replace("::ffff:", "") ?? "",
		bytes,
	});
	const server = createServer({ allowHalfOpen: true }, (socket) => {
		let bytes = 0;
		socket.on("error", () => {});
		socket.on("data", (chunk) => {
			bytes += chunk.length;
			socket.write(chunk);
		});
		socket.on("end", () => socket.end(JSON.stringify(answer(socket.remoteAddress, bytes))));
	});
	server.listen(port, host);
	await once(server, "listening");
	const udp = createSocket(host === "::" ? "udp6" : "udp4");
	udp.on("message", (message, from) =>
		udp.send(
			Buffer.from(JSON.stringify(answer(from.address, message.length)).padEnd(message.length)),
			from.port,
			from.address,
		),
	);
	udp.bind(port, host);
	await once(udp, "listening");
	console.log("listening");
}

async function askTcp(ip: string, port: number, bytes: number): Promise<Answer> {
	const socket = connect({ host: ip, port, timeout: ANSWER_MS });
	socket.on("timeout", () => socket.destroy(new Error(`No answer from ${ip}:${port}`)));
	const socketEnd = once(socket, "end");
	let left = bytes;
	let piece = 0;
	let text = "";
	socket.on("connect", next);
	socket.on("data", (chunk: Buffer) => {
		const echoed = Math.min(piece, chunk.length);
		piece -= echoed;
		text += chunk.subarray(echoed).toString();
		if (echoed > 0 && piece === 0) next();
	});
	await socketEnd;
	return JSON.parse(text) as Answer;

	function next(): void {
		piece = Math.min(left, PIECE_BYTES);
		left -= piece;
		if (piece === 0) socket.end();
		else socket.write(Buffer.alloc(piece));
	}
}

async function askUdp(ip: string, port: number, bytes: number): Promise<Answer> {
	const socket = createSocket(isIPv6(ip) ? "udp6" : "udp4");
	try {
		socket.connect(port, ip); // to hear that nobody is there
		await once(socket, "connect");
		const answer = once(socket, "message", { signal: AbortSignal.timeout(ANSWER_MS) });
		socket.send(Buffer.alloc(bytes));
		const [message] = (await answer) as [Buffer];
		return JSON.parse(message.toString()) as Answer;
	} finally {
		socket.close();
	}
}
