// Transfers over very many TCP connections that stay open, run inside pods: `transfers.js serve IP PORT`, and
// `transfers.js send IP PORT CONNECTIONS SECONDS`, which goes round the connections with a transfer and its answer each.
import { once } from "node:events";
import { connect, createServer, type Socket } from "node:net";

const TRANSFER_BYTES = 64 * 1024;
/** Connections that are being opened, or transfer, at the same time. */
const AT_ONCE = 16;

function serve(ip: string, port: number): void {
	const server = createServer((socket) => {
		let bytes = 0;
		socket.on("data", (data) => {
			bytes += data.length;
			for (; bytes >= TRANSFER_BYTES; bytes -= TRANSFER_BYTES) socket.write("!");
		});
		socket.on("error", () => {});
	});
	server.listen({ host: ip, port, backlog: 4096 }, () => console.log("listening"));
}

/** Prints { transfers, bytes, seconds }; every connection transfers at least once. */
async function send(ip: string, port: number, connections: number, seconds: number): Promise<void> {
	const sockets: Socket[] = [];
	await workers(async () => {
		while (sockets.length < connections) {
			const socket = connect({ host: ip, port, noDelay: true });
			sockets.push(socket);
			await once(socket, "connect");
		}
	});
	const data = Buffer.alloc(TRANSFER_BYTES);
	const started = performance.now();
	let next = 0;
	await workers(async () => {
		while (next < sockets.length || performance.now() - started < seconds * 1000) {
			const socket = sockets[next++ % sockets.length] as Socket;
			socket.write(data);
			await once(socket, "data");
		}
	});
	const took = (performance.now() - started) / 1000;
	console.log(JSON.stringify({ transfers: next, bytes: next * TRANSFER_BYTES, seconds: took }));
	for (const socket of sockets) socket.resetAndDestroy();
}

async function workers(work: () => Promise<void>): Promise<void> {
	await Promise.all(Array.from({ length: AT_ONCE }, work));
}

const [, , what, ip = "", ...numbers] = process.argv;
const [port = 0, connections = 0, seconds = 0] = numbers.map(Number);
if (what === "serve") serve(ip, port);
else await send(ip, port, connections, seconds);
