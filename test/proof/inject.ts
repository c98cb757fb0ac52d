// Puts raw frames on a device and takes down what arrives there. Run inside a network namespace: `inject.js DEVICE`.
// Each line of input is a JSON list of frames (hex) to send, in order; each is answered by a JSON list of the frames that
// have arrived since. What the namespace itself sends is not among them.
import { readFileSync } from "node:fs";
import { createInterface } from "node:readline";
import koffi from "koffi";

const AF_PACKET = 17;
const SOCK_RAW = 3;
const ETH_P_ALL = 0x0003;
const SOL_SOCKET = 1;
const SO_RCVBUFFORCE = 33;
const MSG_DONTWAIT = 0x40;
const PACKET_OUTGOING = 4;
const BUFFER_BYTES = 16 << 20;
/** struct sockaddr_ll of include/uapi/linux/if_packet.h: family, protocol, ifindex, hatype, pkttype, halen, addr. */
const ADDRESS_BYTES = 20;
const PACKET_TYPE = 10;

const libc = koffi.load(null);
const c = {
	socket: libc.func("int socket(int domain, int type, int protocol)"),
	bind: libc.func("int bind(int fd, const void *address, uint32_t length)"),
	setsockopt: libc.func("int setsockopt(int fd, int level, int option, const void *value, uint32_t length)"),
	send: libc.func("intptr_t send(int fd, const void *bytes, size_t length, int flags)"),
	recvfrom: libc.func(
		"intptr_t recvfrom(int fd, void *bytes, size_t length, int flags, void *from, void *from_length)",
	),
};

function check(result: number, action: string): number {
	if (result < 0) throw new Error(`Cannot ${action}: errno ${koffi.errno()}`);
	return result;
}

const device = process.argv[2] ?? "";
const ifindex = Number(readFileSync("/proc/net/igmp", "utf8").match(new RegExp(`^(\\d+)\\s+${device}\\s*:`, "m"))?.[1]);
const size = Buffer.alloc(4);
size.writeInt32LE(BUFFER_BYTES);
const address = Buffer.alloc(ADDRESS_BYTES);
address.writeUInt16LE(AF_PACKET, 0);
address.writeUInt16BE(ETH_P_ALL, 2);
address.writeInt32LE(ifindex, 4);

// With protocol 0 it hears nothing before bind() says of which device.
const fd = check(c.socket(AF_PACKET, SOCK_RAW, 0), "open a packet socket");
check(c.setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, size, size.length), "enlarge its buffer");
check(c.bind(fd, address, address.length), `bind it to "${device}"`);

const bytes = Buffer.alloc(65536);
const from = Buffer.alloc(ADDRESS_BYTES);
const fromLength = Buffer.alloc(4);

function arrived(): string[] {
	const frames: string[] = [];
	for (;;) {
		fromLength.writeUInt32LE(ADDRESS_BYTES);
		const length: number = c.recvfrom(fd, bytes, bytes.length, MSG_DONTWAIT, from, fromLength);
		if (length < 0) return frames;
		if (from[PACKET_TYPE] !== PACKET_OUTGOING) frames.push(bytes.toString("hex", 0, length));
	}
}

console.log("ready");
for await (const line of createInterface({ input: process.stdin })) {
	for (const frame of JSON.parse(line) as string[]) {
		const packet = Buffer.from(frame, "hex");
		check(c.send(fd, packet, packet.length, 0), "send a frame");
	}
	console.log(JSON.stringify(arrived()));
}
