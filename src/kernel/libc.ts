// The C library's calls that Node does not offer: netlink sockets, mount(2), unshare(2), all of inotify(7).
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
	flock: libc.func("int flock(int fd, int operation)"),
	prctl: libc.func("int prctl(int option, unsigned long a, unsigned long b, unsigned long c, unsigned long d)"),
	fcntl: libc.func("int fcntl(int fd, int command, int argument)"),
	inotify_init1: libc.func("int inotify_init1(int flags)"),
	inotify_add_watch: libc.func("int inotify_add_watch(int fd, const char *path, uint32_t mask)"),
	execve: libc.func("int execve(const char *path, const void *argv, const void *envp)"),
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

const LOCK_EX_NB = 2 | 4;
const EWOULDBLOCK = 11;

/** flock(2). @returns false when somebody else holds it */
export function tryLock(fd: number): boolean {
	if (c.flock(fd, LOCK_EX_NB) === 0) return true;
	if (koffi.errno() === EWOULDBLOCK) return false;
	throw new KernelError("Cannot lock a file", koffi.errno());
}

const PR_CAPBSET_DROP = 24;

/** Takes a capability out of the calling thread's bounding set: what is executed from it cannot have it any more. */
export function dropFromBoundingSet(capability: number): void {
	check(c.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0), `Cannot drop capability ${capability}`);
}

const IN_NONBLOCK = 0o4000;
const IN_CLOEXEC = 0o2000000;

/** For addInotifyWatch() and fs.readSync(), which fails with EAGAIN while there is nothing; fs.closeSync() closes it. */
export function openInotify(): number {
	return check(c.inotify_init1(IN_NONBLOCK | IN_CLOEXEC), "Cannot watch files");
}

/** @param mask IN_... of include/uapi/linux/inotify.h; replaces that of an earlier call */
export function addInotifyWatch(fd: number, path: string, mask: number): void {
	check(c.inotify_add_watch(fd, path, mask), `Cannot watch "${path}"`);
}

const F_SETFD = 2;

const FD_CLOEXEC = 1;

/** Whether programs that are executed get this descriptor. */
export function setInherited(fd: number, inherited: boolean): void {
	check(c.fcntl(fd, F_SETFD, inherited ? 0 : FD_CLOEXEC), `Cannot hand over file descriptor ${fd}`);
}

/** Replaces this process by another program; returns only by throwing. */
export function execute(path: string, argv: readonly string[], env: NodeJS.ProcessEnv): never {
	const variables = Object.entries(env).map(([name, value]) => `${name}=${value}`);
	const [args, environment] = [textArray(argv), textArray(variables)];
	// Node closes even these at an execve(2).
	for (const fd of [0, 1, 2]) setInherited(fd, true);
	c.execve(path, args.pointers, environment.pointers);
	throw new KernelError(`Cannot execute "${path}"`, koffi.errno());
}

/** char *[], ended by NULL. The texts have to live as long. */
function textArray(texts: readonly string[]): { pointers: Buffer; texts: Buffer[] } {
	const kept = texts.map((text) => Buffer.from(`${text}\0`));
	const pointers = Buffer.alloc(8 * (texts.length + 1));
	for (const [i, text] of kept.entries()) pointers.writeBigUInt64LE(BigInt(koffi.address(text)), 8 * i);
	return { pointers, texts: kept };
}

function check(result: number, action: string): number {
	if (result < 0) throw new KernelError(action, koffi.errno());
	return result;
}
