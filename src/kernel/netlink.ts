// A netlink socket: requests answered at once by the kernel, and notifications (RFC 3549, include/uapi/linux/netlink.h).
import { closeSync } from "node:fs";
import { constants } from "node:os";
import { align, parseAttributes, readText } from "./attribute.js";
import { KernelError } from "./error.js";
import { openNetlinkSocket, receive, send, setSocketOption } from "./libc.js";

export const NETLINK_ROUTE = 0;
export const NETLINK_NETFILTER = 12;

const SOL_SOCKET = 1;
const SO_RCVBUFFORCE = 33;
const SO_ATTACH_BPF = 50;
const SOL_NETLINK = 270;
const NETLINK_ADD_MEMBERSHIP = 1;
const NETLINK_CAP_ACK = 10;
const NETLINK_EXT_ACK = 11;
/** Without it the kernel silently ignores parts of a dump request. */
const NETLINK_GET_STRICT_CHK = 12;

const NLM_F_REQUEST = 0x1;
const NLM_F_ACK = 0x4;
const NLM_F_DUMP_INTR = 0x10;
const NLM_F_DUMP = 0x300;
/** On answers: extended acknowledgement attributes follow. */
const NLM_F_ACK_TLVS = 0x200;
const NLMSG_ERROR = 2;
const NLMSG_DONE = 3;
const NLMSGERR_ATTR_MSG = 1;

const HEADER_BYTES = 16;
const RECEIVE_BYTES = 64 * 1024;
/** A dump that changes under our hands is read again this often. */
const DUMP_ATTEMPTS = 10;
/** Questions per system call: their answers fit into the socket's default buffer. */
const MANY = 64;

export interface Message {
	type: number;
	flags: number;
	sequence: number;
	/** A view of the receive buffer: valid until the next receive. */
	body: Buffer;
}

/** What is asked: the message type, its body, and what to call it in an error, such as "list network devices". */
export interface Request {
	type: number;
	body: Buffer;
	action: string;
}

export class Netlink {
	readonly fd: number;
	readonly #buffer = Buffer.alloc(RECEIVE_BYTES);
	#sequence = 0;

	private constructor(fd: number) {
		this.fd = fd;
	}

	/** @param groups numbers of the multicast groups (RTNLGRP_*) to receive */
	static open(protocol: number, groups: readonly number[] = []): Netlink {
		const netlink = new Netlink(openNetlinkSocket(protocol, groups));
		for (const option of [NETLINK_CAP_ACK, NETLINK_EXT_ACK, NETLINK_GET_STRICT_CHK])
			setSocketOption(netlink.fd, SOL_NETLINK, option, 1);
		return netlink;
	}

	/** Beyond net.core.rmem_max; needs CAP_NET_ADMIN. */
	setReceiveBuffer(bytes: number): void {
		setSocketOption(this.fd, SOL_SOCKET, SO_RCVBUFFORCE, bytes);
	}

	/** Asks for something to be done or shown; the answers, if there are any, are decoded one by one. */
	request<T>(request: Request, decode: (body: Buffer) => T): T[] {
		return this.#ask(request, NLM_F_REQUEST | NLM_F_ACK, decode).answers;
	}

	/** Asks for all objects of a kind. `decode` returns undefined for an object that is of no interest. */
	dump<T>(request: Request, decode: (body: Buffer) => T | undefined): T[] {
		for (let attempt = 0; attempt < DUMP_ATTEMPTS; attempt++) {
			const { answers, interrupted } = this.#ask(request, NLM_F_REQUEST | NLM_F_DUMP, decode);
			if (!interrupted) return answers.filter((answer) => answer !== undefined);
		}
		throw new KernelError(
			`Cannot ${request.action}`,
			constants.errno.EINTR,
			`the list changed ${DUMP_ATTEMPTS} times while it was read`,
		);
	}

	/** Asks many questions of one kind, each with one answer, in few system calls. A question that is refused has none. */
	requestMany<T>(
		{ type, bodies, action }: { type: number; bodies: readonly Buffer[]; action: string },
		decode: (body: Buffer) => T,
	): (T | undefined)[] {
		const answers: (T | undefined)[] = new Array(bodies.length).fill(undefined);
		for (let from = 0; from < bodies.length; from += MANY) {
			const some = bodies.slice(from, from + MANY);
			const first = this.#sequence + 1;
			const messages = some.map((body) => encodeMessage(type, NLM_F_REQUEST, ++this.#sequence, body));
			send(this.fd, Buffer.concat(messages), `Cannot ${action}`);
			for (let open = some.length; open > 0; )
				for (const message of this.#receive(true, action)) {
					const at = message.sequence - first;
					if (at < 0 || at >= some.length) continue;
					open--;
					if (message.type !== NLMSG_ERROR) answers[from + at] = decode(message.body);
				}
		}
		return answers;
	}

	/** The messages of the next datagram from the kernel; undefined when none waits. */
	poll(): Message[] | undefined {
		try {
			return [...this.#receive(false, "receive notifications")];
		} catch (error) {
			if (error instanceof KernelError && error.code === "EAGAIN") return undefined;
			throw error;
		}
	}

	join(group: number): void {
		setSocketOption(this.fd, SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, group);
	}

	/** SO_ATTACH_BPF: the program decides which notifications wait to be read. */
	setFilter(programFd: number): void {
		setSocketOption(this.fd, SOL_SOCKET, SO_ATTACH_BPF, programFd);
	}

	close(): void {
		closeSync(this.fd);
	}

	#ask<T>(request: Request, flags: number, decode: (body: Buffer) => T): { answers: T[]; interrupted: boolean } {
		const sequence = ++this.#sequence;
		send(this.fd, encodeMessage(request.type, flags, sequence, request.body), `Cannot ${request.action}`);
		const answers: T[] = [];
		let interrupted = false;
		for (;;)
			for (const message of this.#receive(true, request.action)) {
				if (message.sequence !== sequence) continue;
				if (message.flags & NLM_F_DUMP_INTR) interrupted = true;
				if (message.type === NLMSG_ERROR || message.type === NLMSG_DONE) {
					assertSuccess(message, request.action);
					return { answers, interrupted };
				}
				answers.push(decode(message.body));
			}
	}

	*#receive(wait: boolean, action: string): Generator<Message> {
		const { length, port } = receive(this.fd, this.#buffer, { wait, action: `Cannot ${action}` });
		if (port !== 0) return;
		if (length > this.#buffer.length)
			throw new RangeError(
				`Cannot ${action}: the answer has ${length} bytes, the buffer has ${this.#buffer.length} bytes`,
			);
		yield* parseMessages(this.#buffer.subarray(0, length));
	}
}

export function encodeMessage(type: number, flags: number, sequence: number, body: Buffer): Buffer {
	const header = Buffer.alloc(HEADER_BYTES);
	header.writeUInt32LE(HEADER_BYTES + body.length, 0);
	header.writeUInt16LE(type, 4);
	header.writeUInt16LE(flags, 6);
	header.writeUInt32LE(sequence, 8);
	return Buffer.concat([header, body]);
}

export function* parseMessages(bytes: Buffer): Generator<Message> {
	for (let offset = 0; offset + HEADER_BYTES <= bytes.length; ) {
		const length = bytes.readUInt32LE(offset);
		if (length < HEADER_BYTES || offset + length > bytes.length)
			throw new RangeError(
				`Cannot parse netlink message at byte ${offset}: it claims ${length} bytes of ${bytes.length - offset}`,
			);
		yield {
			type: bytes.readUInt16LE(offset + 4),
			flags: bytes.readUInt16LE(offset + 6),
			sequence: bytes.readUInt32LE(offset + 8),
			body: bytes.subarray(offset + HEADER_BYTES, offset + length),
		};
		offset += align(length);
	}
}

/** NLMSG_ERROR and NLMSG_DONE alike begin with -errno; with NETLINK_CAP_ACK the request's header (16 bytes) follows it. */
function assertSuccess(message: Message, action: string): void {
	const errno = -(message.body.length >= 4 ? message.body.readInt32LE(0) : 0);
	if (errno === 0) return;
	const offset = message.type === NLMSG_ERROR ? 4 + HEADER_BYTES : 4;
	const attributes = message.flags & NLM_F_ACK_TLVS ? parseAttributes(message.body, offset) : undefined;
	throw new KernelError(`Cannot ${action}`, errno, readText(attributes?.get(NLMSGERR_ATTR_MSG)));
}
