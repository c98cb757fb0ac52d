// The C library's calls that Node does not offer: netlink sockets, mount(2), unshare(2).
// Each throws a KernelError; the caller says what it was trying to do.
import koffi from "koffi";
import { KernelError } from "./error.js";

const libc = koffi.load(null);
const c = {
	socket: libc.func("int socket(int domain, int type, int protocol)"),
	bind: libc.func("int bind(int fd, const void *address, uint32_t length)"),
	send: libc.func("intptr_t send(int fd, const void *bytes, size_t length, int flags)"),
	recvfrom: libc.func(
		"intptr_t recvfrom(int fd, void *bytes, size_t length, int flags, void *address, void *address_length)",
	),
	setsockopt: libc.func("int setsockopt(int fd, int level, int option, const void *value, uint32_t length)"),
	mount: libc.func(
		"int mount(const char *source, const char *target, const char *type, unsigned long flags, const void *data)",
	),
	unshare: libc.func("int unshare(int flags)"),
};

const AF_NETLINK = 16;
const SOCK_RAW = 3;
const SOCK_CLOEXEC = 0o2000000;
const MSG_TRUNC = 0x20;
const MSG_DONTWAIT = 0x40;
const SOCKADDR_NL_BYTES = 12;

export const CLONE_NEWNS = 0x0002_0000;
export const CLONE_NEWNET = 0x4000_0000;
export const MS_REC = 0x4000;
export const MS_PRIVATE = 0x4_0000;

/** A netlink socket, bound to the multicast groups with these numbers (1..32); fs.closeSync() closes it. */
export function openNetlinkSocket(protocol: number, groups: readonly number[]): number {
	const fd = check(c.socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, protocol), "Cannot open a netlink socket");
	const address = Buffer.alloc(SOCKADDR_NL_BYTES);
	address.writeUInt16LE(AF_NETLINK, 0);
	address.writeUInt32LE(
		groups.reduce((mask, group) => (mask | (1 << (group - 1))) >>> 0, 0),
		8,
	);
	check(c.bind(fd, address, address.length), `Cannot join the netlink groups ${groups.join(", ")}`);
	return fd;
}

export function setSocketOption(fd: number, level: number, option: number, value: number): void {
	const bytes = Buffer.alloc(4);
	bytes.writeInt32LE(value);
	check(c.setsockopt(fd, level, option, bytes, bytes.length), `Cannot set socket option ${option} of level ${level}`);
}

export function send(fd: number, bytes: Buffer, action: string): void {
	check(c.send(fd, bytes, bytes.length, 0), action);
}

const sender = Buffer.alloc(SOCKADDR_NL_BYTES);
const senderLength = Buffer.alloc(4);

/**
 * Receives one datagram into `bytes`.
 * `length` is the datagram's own, also when it was cut; `port` is the sender's netlink port, 0 for the kernel.
 */
export function receive(
	fd: number,
	bytes: Buffer,
	options: { wait: boolean; action: string },
): { length: number; port: number } {
	senderLength.writeUInt32LE(SOCKADDR_NL_BYTES);
	const flags = MSG_TRUNC | (options.wait ? 0 : MSG_DONTWAIT);
	const length = check(c.recvfrom(fd, bytes, bytes.length, flags, sender, senderLength), options.action);
	return { length, port: sender.readUInt32LE(4) };
}

export function mount(source: string, target: string, type: string | null, flags = 0): void {
	check(c.mount(source, target, type, flags, null), `Cannot mount "${source}" on "${target}"`);
}

/** Moves the calling thread into new namespaces: only what Node does synchronously follows it. */
export function unshare(flags: number): void {
	check(c.unshare(flags), "Cannot create a namespace");
}

function check(result: number, action: string): number {
	if (result < 0) throw new KernelError(action, koffi.errno());
	return result;
}
