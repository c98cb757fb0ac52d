// An independent opinion about one packet of a warm flow: may it take the fast path, and what must come out? Written from the
// promises and the RFCs, not from the programs; only for the world of test/kernel/world.ts and the flows of fuzz-flows.ts.
import { encodeIp, isIpv6 } from "../../src/net/ip.js";
import { macBytes } from "../../src/net/mac.js";
import { checksum } from "../kernel/packet.js";
import {
	ECHO_ID, type L4, LOCAL_HOST, MAC, OUTER_PORT, PORT, REMOTE_HOST, VNI,
} from "../kernel/world.js"; // biome-ignore format: a list
import { LEGS, type Leg, OTHER_MAC, OTHER_MTU, type Place, type Tuple } from "./fuzz-flows.js";

type Family = 4 | 6;

const ETHERNET = 14;
const OUTER = 50;
const MTU = { wire: 1450, pod: 1450, other: OTHER_MTU };
const HEADER = { 4: 20, 6: 40 };
const ETHERTYPE = { 4: 0x0800, 6: 0x86dd };
const POD_MAC = { pod: MAC.pod, other: OTHER_MAC };
const PROTOCOLS: Record<Family, Record<number, L4>> = {
	4: { 1: "icmp", 6: "tcp", 17: "udp" },
	6: { 58: "icmp", 6: "tcp", 17: "udp" },
};
/** ICMP echo (RFC 792), ICMPv6 echo (RFC 4443, section 4): request, reply. */
const ECHO = { 4: [8, 0], 6: [128, 129] };
const [ECN, CE, ECT_0, ECT_1] = [3, 3, 2, 1];
const [SYN_FIN_RST, ACK] = [7, 0x10];

const ip4 = (text: string): Buffer => Buffer.from(text.split(".").map(Number));
const mac = (text: string): Buffer => Buffer.from(macBytes(text));

/** Whether the bytes from `at` are `expected`. */
function has(packet: Buffer, at: number, expected: Uint8Array): boolean {
	return packet.subarray(at, at + expected.length).equals(expected);
}

/** A well-formed header without options, whose packet reaches to the end, not a fragment (RFC 791, RFC 8200). */
function isWhole(packet: Buffer, family: Family): boolean {
	if (packet.length < HEADER[family] + 8) return false;
	if (family === 6) return packet.readUInt8(0) >> 4 === 6 && packet.readUInt16BE(4) === packet.length - HEADER[6];
	return (
		packet.readUInt8(0) === 0x45 &&
		packet.readUInt16BE(2) === packet.length &&
		(packet.readUInt16BE(6) & 0x3fff) === 0 &&
		checksum(packet.subarray(0, 20)) === 0
	);
}

const ttlAt = { 4: 8, 6: 7 };
const protocolAt = { 4: 9, 6: 6 };
const sourceAt = { 4: 12, 6: 8 };

/** Which leg a packet that enters at `from` is of, as one that needs nobody's attention. `gsoSize` as in expected(). */
function legOf(packet: Buffer, family: Family, from: Place, gsoSize = 0): Leg | undefined {
	if (!isWhole(packet, family) || packet.readUInt8(ttlAt[family]) <= 1) return undefined;
	const l4 = PROTOCOLS[family][packet.readUInt8(protocolAt[family])];
	const at = HEADER[family];
	const length = packet.length - at;
	const isSound = {
		tcp: () => {
			if (length < 20) return false;
			const header = (packet.readUInt8(at + 12) >> 4) * 4;
			const flags = packet.readUInt8(at + 13);
			return header >= 20 && header <= length && (flags & SYN_FIN_RST) === 0 && (flags & ACK) !== 0;
		},
		udp: () => packet.readUInt16BE(at + 4) === length,
		icmp: () => packet.readUInt16BE(at + 4) === ECHO_ID && packet.readUInt8(at + 1) === 0,
	};
	if (l4 === undefined || !isSound[l4]()) return undefined;
	const leg = LEGS.find((each) => each.from === from && each.l4 === l4 && isOf(packet, family, each));
	const l4Header = l4 === "tcp" ? (packet.readUInt8(at + 12) >> 4) * 4 : 8;
	const size = gsoSize === 0 ? packet.length : at + l4Header + gsoSize;
	return leg && size <= MTU[leg.to] ? leg : undefined;
}

function isOf(packet: Buffer, family: Family, { l4, enters, asks }: Leg): boolean {
	if (isIpv6(enters.source) !== (family === 6)) return false;
	if (!has(packet, sourceAt[family], addresses(enters))) return false;
	const at = HEADER[family];
	return l4 === "icmp"
		? packet.readUInt8(at) === ECHO[family][asks ? 0 : 1]
		: packet.readUInt16BE(at) === enters.sourcePort && packet.readUInt16BE(at + 2) === enters.destinationPort;
}

const addresses = ({ source, destination }: Tuple): Buffer => Buffer.concat([encodeIp(source), encodeIp(destination)]);

/** One hop further: TTL or hop limit one less (RFC 1812, section 5.3.1), with this ECN field, and translated. */
function forwarded(packet: Buffer, family: Family, leg: Leg, ecn: number): Buffer {
	const copy = Buffer.from(packet);
	copy.writeUInt8(copy.readUInt8(ttlAt[family]) - 1, ttlAt[family]);
	if (family === 4) copy.writeUInt8((copy.readUInt8(1) & ~ECN) | ecn, 1);
	else copy.writeUInt16BE((copy.readUInt16BE(0) & ~(ECN << 4)) | (ecn << 4), 0);
	if (leg.translated) translate(copy, family, leg);
	if (family === 4) {
		copy.writeUInt16BE(0, 10);
		copy.writeUInt16BE(checksum(copy.subarray(0, 20)), 10);
	}
	return copy;
}

/** RFC 3022, section 4.1: the checksum follows, right or wrong (RFC 1624, equation 3); a UDP one that is 0 says nothing. */
function translate(packet: Buffer, family: Family, { l4, leaves }: Leg): void {
	const at = HEADER[family];
	const changed = (): Buffer =>
		Buffer.concat([packet.subarray(sourceAt[family], HEADER[family]), packet.subarray(at, at + 4)]);
	const before = changed();
	addresses(leaves).copy(packet, sourceAt[family]);
	packet.writeUInt16BE(leaves.sourcePort, at);
	packet.writeUInt16BE(leaves.destinationPort, at + 2);
	const after = changed();
	const sumAt = at + (l4 === "tcp" ? 16 : 6);
	const old = packet.readUInt16BE(sumAt);
	if (l4 === "udp" && old === 0) return;
	const inverted = Buffer.from(before.map((byte) => ~byte));
	const own = Buffer.alloc(2);
	own.writeUInt16BE(~old & 0xffff);
	const sum = checksum(own, inverted, after);
	packet.writeUInt16BE(l4 === "udp" ? sum || 0xffff : sum, sumAt);
}

const ecnOf = (packet: Buffer, family: Family): number =>
	family === 4 ? packet.readUInt8(1) & ECN : (packet.readUInt16BE(0) >> 4) & ECN;

/**
 * What leaves this host for a frame that enters it at `from`; undefined: the fallback's business. An outer ID and checksum are zero.
 * @param gsoSize bytes of each packet's payload that it is to be cut into; 0: it is one packet. In the test run it is of no GSO type, and
 * the kernel takes no such packet into a tunnel or out of it.
 */
export function expected(frame: Buffer, from: Place, gsoSize = 0): Buffer | undefined {
	const family = familyAt(frame, from === "wire" ? ETHERNET + OUTER : ETHERNET);
	if (family === undefined) return undefined;
	if (from === "wire") return gsoSize === 0 ? decapsulated(frame, family) : undefined;
	if (!has(frame, 0, mac(MAC.gateway)) || !has(frame, 6, mac(POD_MAC[from]))) return undefined;
	const packet = frame.subarray(ETHERNET);
	const leg = legOf(packet, family, from, gsoSize);
	if (leg === undefined || (gsoSize > 0 && leg.to === "wire")) return undefined;
	const sent = forwarded(packet, family, leg, ecnOf(packet, family));
	return leg.to === "wire" ? encapsulated(sent, family) : delivered(sent, family, leg.to);
}

function familyAt(frame: Buffer, at: number): Family | undefined {
	const type = frame.length >= at ? frame.readUInt16BE(at - 2) : 0;
	return type === ETHERTYPE[4] ? 4 : type === ETHERTYPE[6] ? 6 : undefined;
}

function delivered(packet: Buffer, family: Family, to: "pod" | "other"): Buffer {
	const type = ETHERTYPE[family];
	return Buffer.concat([mac(POD_MAC[to]), mac(MAC.gateway), Buffer.of(type >> 8, type & 255), packet]);
}

function encapsulated(inner: Buffer, family: Family): Buffer {
	const outer = Buffer.alloc(ETHERNET + OUTER);
	const ecn = ecnOf(inner, family);
	mac(MAC.remoteUplink).copy(outer, 0);
	mac(MAC.uplink).copy(outer, 6);
	outer.writeUInt16BE(0x0800, 12);
	outer[14] = 0x45;
	// The kernel's tunnels: CE inside is ECT(0) outside.
	outer[15] = ecn === CE ? ECT_0 : ecn;
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
	outer.writeUInt16BE(ETHERTYPE[family], 62);
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

function decapsulated(frame: Buffer, family: Family): Buffer | undefined {
	if (!has(frame, 0, mac(MAC.uplink)) || !has(frame, 12, Buffer.of(8, 0))) return undefined;
	if (!isWhole(frame.subarray(ETHERNET), 4) || frame.readUInt8(ETHERNET + 9) !== 17) return undefined;
	if (!has(frame, 26, ip4(REMOTE_HOST)) || !has(frame, 30, ip4(LOCAL_HOST))) return undefined;
	const isVxlan =
		frame.readUInt16BE(36) === PORT &&
		frame.readUInt16BE(38) === frame.length - 34 &&
		frame.readUInt16BE(40) === 0 &&
		frame.readUInt32BE(42) === 0x08000000 &&
		frame.readUInt32BE(46) === VNI << 8;
	if (!isVxlan || !has(frame, 50, mac(MAC.tunnel)) || !has(frame, 56, mac(MAC.remoteTunnel))) return undefined;
	const packet = frame.subarray(ETHERNET + OUTER);
	const leg = legOf(packet, family, "wire");
	if (leg === undefined || leg.to === "wire") return undefined;
	const own = ecnOf(packet, family);
	const outer = frame.readUInt8(ETHERNET + 1) & ECN;
	// RFC 6040, section 4.2: nothing outside may mark a packet that is not capable inside; a tunnel that does is broken.
	if (outer !== 0 && own === 0) return undefined;
	const ecn = outer === CE ? CE : outer === ECT_1 && own === ECT_0 ? ECT_1 : own;
	return delivered(forwarded(packet, family, leg, ecn), family, leg.to);
}
