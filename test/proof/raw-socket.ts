// Frames in and out of a network device of any network namespace, as they are (packet(7)), with what the kernel knows besides the
// bytes: struct virtio_net_hdr says whether a packet is a GSO packet and whether its checksum is still to be finished.
import { closeSync, openSync } from "node:fs";
import koffi from "koffi";

const libc = koffi.load(null);
const c = {
	setns: libc.func("int setns(int fd, int type)"),
	socket: libc.func("int socket(int domain, int type, int protocol)"),
	bind: libc.func("int bind(int fd, const void *address, uint32_t length)"),
	setsockopt: libc.func("int setsockopt(int fd, int level, int option, const void *value, uint32_t length)"),
	send: libc.func("intptr_t send(int fd, const void *bytes, size_t length, int flags)"),
	recv: libc.func("intptr_t recv(int fd, void *bytes, size_t length, int flags)"),
	index: libc.func("unsigned int if_nametoindex(const char *name)"),
	affinity: libc.func("int sched_setaffinity(int pid, size_t size, const void *mask)"),
};

const [AF_PACKET, SOCK_RAW, SOCK_CLOEXEC] = [17, 3, 0o2000000];
const ETH_P_ALL_BE = 0x0300;
const SOL_SOCKET = 1;
const SO_RCVBUFFORCE = 33;
const SOL_PACKET = 263;
const [PACKET_VNET_HDR, PACKET_IGNORE_OUTGOING] = [15, 23];
const CLONE_NEWNET = 0x4000_0000;
const MSG_DONTWAIT = 0x40;
export const VNET_BYTES = 10;

/** On one CPU the kernel carries a frame all the way before send() returns, most of the time. */
export function stayOnOneCpu(): void {
	const mask = Buffer.alloc(8);
	mask.writeUInt8(1);
	check(c.affinity(0, mask.length, mask), "Cannot stay on one CPU");
}

export class RawSocket {
	readonly #fd: number;
	readonly #buffer = Buffer.alloc(70_000);

	constructor(netns: string, device: string) {
		const home = openSync("/proc/self/ns/net", "r");
		const there = openSync(netns, "r");
		check(c.setns(there, CLONE_NEWNET), `Cannot enter "${netns}"`);
		try {
			this.#fd = check(c.socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, ETH_P_ALL_BE), "Cannot open a packet socket");
			for (const [level, option, value] of [
				[SOL_PACKET, PACKET_VNET_HDR, 1],
				[SOL_PACKET, PACKET_IGNORE_OUTGOING, 1],
				[SOL_SOCKET, SO_RCVBUFFORCE, 1 << 24],
			] as const) {
				const bytes = Buffer.alloc(4);
				bytes.writeInt32LE(value);
				check(c.setsockopt(this.#fd, level, option, bytes, 4), `Cannot set packet socket option ${option}`);
			}
			const address = Buffer.alloc(20);
			address.writeUInt16LE(AF_PACKET, 0);
			address.writeUInt16LE(ETH_P_ALL_BE, 2);
			address.writeInt32LE(c.index(device), 4);
			check(c.bind(this.#fd, address, address.length), `Cannot bind to "${device}" of "${netns}"`);
		} finally {
			check(c.setns(home, CLONE_NEWNET), "Cannot come back");
			closeSync(home);
			closeSync(there);
		}
	}

	/** @param vnet struct virtio_net_hdr @returns whether the kernel took it */
	send(frame: Uint8Array, vnet: Uint8Array = new Uint8Array(VNET_BYTES)): boolean {
		const bytes = Buffer.concat([vnet, frame]);
		return c.send(this.#fd, bytes, bytes.length, 0) >= 0;
	}

	/** What waits: struct virtio_net_hdr and frame. */
	*received(): Generator<Buffer> {
		for (;;) {
			const length = Number(c.recv(this.#fd, this.#buffer, this.#buffer.length, MSG_DONTWAIT));
			if (length < 0) return;
			yield Buffer.from(this.#buffer.subarray(0, length));
		}
	}

	close(): void {
		closeSync(this.#fd);
	}
}

function check(result: number, action: string): number {
	if (result < 0) throw new Error(`${action}: errno ${koffi.errno()}`);
	return result;
}
