// Numbered datagrams with times: `beacon.js echo PORT` answers and reports what arrives, `beacon.js send IP PORT INTERVAL_MS SOURCE_PORT...`
// sends one from each source port at each interval and reports what it sent and what was answered. Reports are lines of
// JSON: [source port, number, ms of the kernel's monotonic clock][], the same clock in all processes.
import { createSocket } from "node:dgram";
import { once } from "node:events";

export type Sighting = [sourcePort: number, number: number, atMs: number];
export interface Report {
	sent?: Sighting[];
	arrived?: Sighting[];
	answered?: Sighting[];
}

const REPORT_MS = 100;
/** net.core.rmem_max of most systems. */
const RECEIVE_BYTES = 212_992;
export const monotonicMs = (): number => Number(process.hrtime.bigint() / 1000n) / 1000;

const [, script, what, ...args] = process.argv;
if (script?.endsWith("beacon.js")) await (what === "echo" ? echo(Number(args[0])) : send(args));

function report(lists: () => Report): void {
	setInterval(() => {
		const text = JSON.stringify(lists());
		if (text !== "{}") process.stdout.write(`${text}\n`);
	}, REPORT_MS);
}

async function echo(port: number): Promise<void> {
	let arrived: Sighting[] = [];
	// Of both families. What waits must not be lost here: the kernel gives twice as much as the limit that it has.
	const socket = createSocket({ type: "udp6", recvBufferSize: RECEIVE_BYTES });
	socket.on("message", (message, from) => {
		arrived.push([from.port, message.readUInt32LE(0), monotonicMs()]);
		socket.send(message, from.port, from.address, () => {});
	});
	socket.bind(port);
	await once(socket, "listening");
	console.log("listening");
	report(() => {
		const list = arrived;
		arrived = [];
		return list.length > 0 ? { arrived: list } : {};
	});
}

async function send([ip = "", port, intervalMs, ...sourcePorts]: string[]): Promise<void> {
	let sent: Sighting[] = [];
	let answered: Sighting[] = [];
	const sockets = sourcePorts.map((text) => {
		const sourcePort = Number(text);
		const socket = createSocket(ip.includes(":") ? "udp6" : "udp4");
		socket.on("message", (message) => answered.push([sourcePort, message.readUInt32LE(0), monotonicMs()]));
		socket.on("error", () => {}); // an ICMP error: nobody is there for a moment
		socket.bind(sourcePort);
		return { socket, sourcePort };
	});
	await Promise.all(sockets.map(({ socket }) => once(socket, "listening")));
	let number = 0;
	setInterval(() => {
		number++;
		for (const { socket, sourcePort } of sockets) {
			const message = Buffer.alloc(64);
			message.writeUInt32LE(number);
			sent.push([sourcePort, number, monotonicMs()]);
			socket.send(message, Number(port), ip, () => {});
		}
	}, Number(intervalMs));
	report(() => {
		const lists = { sent, answered };
		[sent, answered] = [[], []];
		return lists;
	});
}
