// Requests and answers over very many flows of UDP, run inside pods: sendmmsg(2) and recvmmsg(2), so that what is measured
// is the network. `datagrams.js answer IP PORTS`, `datagrams.js ask IP SERVER_IP PORTS SOCKETS BYTES SECONDS`.
import koffi from "koffi";

const FIRST_PORT = 20_000;
const ANSWER_BYTES = 64;
const LARGEST_BYTES = 1500;
/** Sockets whose requests are on their way at the same time. */
const AHEAD = 4;
const LOST_AFTER_S = 5;

const [AF_INET, SOCK_DGRAM, SOL_SOCKET, SO_RCVTIMEO, POLLIN, MSG_DONTWAIT] = [2, 2, 1, 20, 1, 0x40];

const libc = koffi.load(null);
const c = {
	socket: libc.func("int socket(int domain, int type, int protocol)"),
	bind: libc.func("int bind(int fd, const void *address, uint32_t length)"),
	setsockopt: libc.func("int setsockopt(int fd, int level, int option, const void *value, uint32_t length)"),
	poll: libc.func("int poll(void *fds, unsigned long count, int timeout)"),
	sendmmsg: libc.func("int sendmmsg(int fd, void *messages, unsigned int count, int flags)"),
	recvmmsg: libc.func("int recvmmsg(int fd, void *messages, unsigned int count, int flags, void *timeout)"),
};

const ADDRESS_BYTES = 16;
const IOVEC_BYTES = 16;
/** struct mmsghdr: name 0, name length 8, iovec 16, number of iovecs 24, length received 56. */
const MESSAGE_BYTES = 64;

/** struct mmsghdr[], all of whose messages have one part of `bytes` bytes. */
function messages(count: number, addresses: Buffer, payloads: Buffer, bytes: number): Buffer {
	const headers = Buffer.alloc(count * MESSAGE_BYTES);
	const iovecs = Buffer.alloc(count * IOVEC_BYTES);
	kept.push(addresses, payloads, iovecs);
	for (let i = 0; i < count; i++) {
		iovecs.writeBigUInt64LE(koffi.address(payloads) + BigInt(i * LARGEST_BYTES), i * IOVEC_BYTES);
		iovecs.writeBigUInt64LE(BigInt(bytes), i * IOVEC_BYTES + 8);
		const at = i * MESSAGE_BYTES;
		headers.writeBigUInt64LE(koffi.address(addresses) + BigInt(i * ADDRESS_BYTES), at);
		headers.writeUInt32LE(ADDRESS_BYTES, at + 8);
		headers.writeBigUInt64LE(koffi.address(iovecs) + BigInt(i * IOVEC_BYTES), at + 16);
		headers.writeBigUInt64LE(1n, at + 24);
	}
	return headers;
}

/** What only the kernel refers to must not be collected. */
const kept: Buffer[] = [];

function address(ip: string, port: number): Buffer {
	const bytes = Buffer.alloc(ADDRESS_BYTES);
	bytes.writeUInt16LE(AF_INET, 0);
	bytes.writeUInt16BE(port, 2);
	bytes.set(ip.split(".").map(Number), 4);
	return bytes;
}

function openSocket(ip: string, port: number): number {
	const fd = check(c.socket(AF_INET, SOCK_DGRAM, 0), "open a socket");
	check(c.bind(fd, address(ip, port), ADDRESS_BYTES), `bind to ${ip}:${port}`);
	const timeval = Buffer.alloc(16);
	timeval.writeBigInt64LE(BigInt(LOST_AFTER_S), 0);
	check(c.setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, timeval, timeval.length), "set a time-out");
	return fd;
}

function check(result: number, action: string): number {
	if (result < 0) throw new Error(`Cannot ${action}: errno ${koffi.errno()}`);
	return result;
}

/** For ever: whoever started it ends it. */
function answer(ip: string, ports: number): never {
	const batch = 64;
	const sockets = Array.from({ length: ports }, (_, i) => openSocket(ip, FIRST_PORT + i));
	const fds = Buffer.alloc(ports * 8);
	for (const [i, fd] of sockets.entries()) {
		fds.writeInt32LE(fd, i * 8);
		fds.writeInt16LE(POLLIN, i * 8 + 4);
	}
	const addresses = Buffer.alloc(batch * ADDRESS_BYTES);
	const payloads = Buffer.alloc(batch * LARGEST_BYTES);
	const requests = messages(batch, addresses, payloads, LARGEST_BYTES);
	const answers = messages(batch, addresses, payloads, ANSWER_BYTES);
	console.log("listening");
	while (true) {
		check(c.poll(fds, ports, -1), "wait for requests");
		for (const [i, fd] of sockets.entries()) {
			if ((fds.readInt16LE(i * 8 + 6) & POLLIN) === 0) continue;
			const got = c.recvmmsg(fd, requests, batch, MSG_DONTWAIT, null) as number;
			if (got > 0) check(c.sendmmsg(fd, answers, got, 0), "answer");
		}
	}
}

/** One request after the other to every port from every socket; prints { asked, answered, seconds }. */
function ask(ip: string, server: string, ports: number, sockets: number, bytes: number, seconds: number): void {
	const fds = Array.from({ length: sockets }, (_, i) => openSocket(ip, FIRST_PORT + i));
	const to = Buffer.concat(Array.from({ length: ports }, (_, i) => address(server, FIRST_PORT + i)));
	const requests = messages(ports, to, Buffer.alloc(ports * LARGEST_BYTES, "ask"), bytes);
	const from = Buffer.alloc(ports * ADDRESS_BYTES);
	const answers = messages(ports, from, Buffer.alloc(ports * LARGEST_BYTES), LARGEST_BYTES);
	let [asked, answered] = [0, 0];
	const send = (row: number): void => {
		asked += check(c.sendmmsg(fds[row % sockets] as number, requests, ports, 0), "ask");
	};
	const receive = (row: number): void => {
		const socket = fds[row % sockets] as number;
		for (let got = 0; got < ports; ) {
			const more = c.recvmmsg(socket, answers, ports - got, 0, null) as number;
			if (more <= 0) return;
			got += more;
			answered += more;
		}
	};
	const started = performance.now();
	let row = 0;
	// At least every flow once.
	for (; row < sockets || performance.now() - started < seconds * 1000; row++) {
		send(row);
		if (row >= AHEAD) receive(row - AHEAD);
	}
	for (let last = Math.max(0, row - AHEAD); last < row; last++) receive(last);
	console.log(JSON.stringify({ asked, answered, seconds: (performance.now() - started) / 1000 }));
}

const [, , what, ip = "", ...rest] = process.argv;
if (what === "answer") answer(ip, Number(rest[0]));
const [server = "", ...numbers] = rest;
const [ports = 0, sockets = 0, bytes = 0, seconds = 0] = numbers.map(Number);
ask(ip, server, ports, sockets, bytes, seconds);
