// An independent opinion about one packet of a warm flow: may it take the fast path, and what must come out? Written from the
// promises and the RFCs, not from the programs; only for the world of test/kernel/world.ts.
import { macBytes } from "../../src/net/mac.js";
import { checksum } from "../kernel/packet.js";
import {
	ECHO_ID, type L4, LOCAL_HOST, LOCAL_PORT, MAC, OUTER_PORT, POD, PORT, REMOTE, REMOTE_HOST, REMOTE_PORT, VNI,
} from "../kernel/world.js"; // biome-ignore format: a list

const ETHERNET = 14;
const OUTER = 50;
const MTU = 1450;
const [ECN, CE, ECT_0, ECT_1] = [3, 3, 2, 1];
const [SYN_FIN_RST, ACK] = [7, 0x10];

const ip4 = (text: string): Buffer => Buffer.from(text.split(".").map(Number));
const mac = (text: string): Buffer => Buffer.from(macBytes(text));

/** Whether the bytes from `at` are `expected`. */
function has(packet: Buffer, at: number, expected: Uint8Array): boolean {
	return packet.subarray(at, at + expected.length).equals(expected);
}

/** A well-formed IPv4 header of 20 bytes at `at`, whose packet reaches to the end, not a fragment (RFC 791). */
function isWhole(packet: Buffer, at: number): boolean {
	return (
		packet.length >= at + 28 &&
		packet.readUInt8(at) === 0x45 &&
		packet.readUInt16BE(at + 2) === packet.length - at &&
		(packet.readUInt16BE(at + 6) & 0x3fff) === 0 &&
		checksum(packet.subarray(at, at + 20)) === 0
	);
}

/** Which warm flow the packet at `at` belongs to, as one that needs nobody's attention. */
function flowOf(packet: Buffer, at: number, out: boolean): L4 | undefined {
	if (!isWhole(packet, at) || packet.readUInt8(at + 8) <= 1 || packet.length - at > MTU) return undefined;
	if (!has(packet, at + 12, ip4(out ? POD : REMOTE)) || !has(packet, at + 16, ip4(out ? REMOTE : POD)))
		return undefined;
	const l4 = at + 20;
	const length = packet.length - l4;
	const [source, destination] = out ? [LOCAL_PORT, REMOTE_PORT] : [REMOTE_PORT, LOCAL_PORT];
	const isPorts = packet.readUInt16BE(l4) === source && packet.readUInt16BE(l4 + 2) === destination;
	switch (packet.readUInt8(at + 9)) {
		case 6: {
			if (length < 20 || !isPorts) return undefined;
			const header = (packet.readUInt8(l4 + 12) >> 4) * 4;
			const flags = packet.readUInt8(l4 + 13);
			return header >= 20 && header <= length && (flags & SYN_FIN_RST) === 0 && flags & ACK ? "tcp" : undefined;
		}
		case 17:
			return isPorts && packet.readUInt16BE(l4 + 4) === length ? "udp" : undefined;
		case 1:
			// The pod asks, the remote one answers.
			return packet.readUInt16BE(l4) === (out ? 0x0800 : 0) && packet.readUInt16BE(l4 + 4) === ECHO_ID
				? "icmp"
				: undefined;
		default:
			return undefined;
	}
}

/** One hop further: TTL one less (RFC 1812, section 5.3.1), with this ECN field. */
function forwarded(packet: Buffer, tos: number): Buffer {
	const copy = Buffer.from(packet);
	copy[1] = tos;
	copy.writeUInt8(copy.readUInt8(8) - 1, 8);
	copy.writeUInt16BE(0, 10);
	copy.writeUInt16BE(checksum(copy.subarray(0, 20)), 10);
	return copy;
}

/** What leaves the uplink for a frame of the pod; undefined: the fallback's business. The outer ID and checksum are zero. */
export function encapsulated(frame: Buffer): Buffer | undefined {
	if (!has(frame, 0, mac(MAC.gateway)) || !has(frame, 6, mac(MAC.pod)) || !has(frame, 12, Buffer.of(8, 0)))
		return undefined;
	if (flowOf(frame, ETHERNET, true) === undefined) return undefined;
	const tos = frame.readUInt8(ETHERNET + 1);
	const inner = forwarded(frame.subarray(ETHERNET), tos);
	const outer = Buffer.alloc(ETHERNET + OUTER);
	mac(MAC.remoteUplink).copy(outer, 0);
	mac(MAC.uplink).copy(outer, 6);
	outer.writeUInt16BE(0x0800, 12);
	outer[14] = 0x45;
	// The kernel's tunnels: CE inside is ECT(0) outside.
	outer[15] = (tos & ECN) === CE ? ECT_0 : tos & ECN;
	outer.writeUInt16BE(inner.length + OUTER, 16);
	outer[22] = 64;
	outer[23] = 17;
	ip4(LOCAL_HOST).copy(outer, 26);
	ip4(REMOTE_HOST).copy(outer, 30);
	outer.writeUInt16BE(OUTER_PORT, 34);
	outer.writeUInt16BE(PORT, 36);
	outer.writeUInt16BE(inner.length + OUTER - 20, 38);
	outer[42] = 8;
	outer.writeUInt32BE(VNI << 8, 46);
	mac(MAC.remoteTunnel).copy(outer, 50);
	mac(MAC.tunnel).copy(outer, 56);
	outer.writeUInt16BE(0x0800, 62);
	return Buffer.concat([outer, inner]);
}

/** Takes ID and checksum out of an outer header, after looking at the checksum. @returns whether it was right */
export function blankOuter(packet: Buffer): boolean {
	if (packet.length < ETHERNET + 20) return false;
	const isRight = checksum(packet.subarray(ETHERNET, ETHERNET + 20)) === 0;
	packet.writeUInt16BE(0, ETHERNET + 4);
	packet.writeUInt16BE(0, ETHERNET + 10);
	return isRight;
}

/** What enters the pod for a frame from the uplink; undefined: the fallback's business. */
export function decapsulated(frame: Buffer): Buffer | undefined {
	const inner = ETHERNET + OUTER;
	if (!has(frame, 0, mac(MAC.uplink)) || !has(frame, 12, Buffer.of(8, 0)) || !isWhole(frame, ETHERNET))
		return undefined;
	if (frame.readUInt8(ETHERNET + 9) !== 17 || frame.length < inner + 28) return undefined;
	if (!has(frame, 26, ip4(REMOTE_HOST)) || !has(frame, 30, ip4(LOCAL_HOST))) return undefined;
	const isVxlan =
		frame.readUInt16BE(36) === PORT &&
		frame.readUInt16BE(38) === frame.length - 34 &&
		frame.readUInt16BE(40) === 0 &&
		frame.readUInt32BE(42) === 0x08000000 &&
		frame.readUInt32BE(46) === VNI << 8;
	if (!isVxlan || !has(frame, 50, mac(MAC.tunnel)) || !has(frame, 56, mac(MAC.remoteTunnel))) return undefined;
	if (!has(frame, 62, Buffer.of(8, 0)) || flowOf(frame, inner, false) === undefined) return undefined;
	const tos = frame.readUInt8(inner + 1);
	const own = tos & ECN;
	const outer = frame.readUInt8(ETHERNET + 1) & ECN;
	// RFC 6040, section 4.2: nothing outside may mark a packet that is not capable inside; a tunnel that does is broken.
	if (outer !== 0 && own === 0) return undefined;
	const ecn = outer === CE ? CE : outer === ECT_1 && own === ECT_0 ? ECT_1 : own;
	return Buffer.concat([
		mac(MAC.pod),
		mac(MAC.gateway),
		Buffer.of(8, 0),
		forwarded(frame.subarray(inner), (tos & ~ECN) | ecn),
	]);
}
