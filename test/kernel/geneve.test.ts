// Geneve (RFC 8926): replayed as VXLAN is, with the options that its flow's packets all have; what has others is the fallback's.
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { inner6, track6 } from "./ipv6.js";
import { checksum } from "./packet.js";
import { INNER, inbound6, outbound6 } from "./underlay6.js";
import {
	enterNetns, fromPod, inbound, inner, type L4, LOCAL_HOST, MAC, MARK, NEXT, openWorld, outbound, REDIRECT, REMOTE_HOST, toPod, track, VNI, type World,
} from "./world.js"; // biome-ignore format: a list

const PORT = 6081;
const HEADER = 42;
const ETHERNET_BRIDGED = 0x6558;
const NONE = Buffer.alloc(0);
/** Class 0x0102 (OVN's), type 0x80: critical; one word. */
const OVN = Buffer.from("0102800100030002", "hex");
const OTHER = Buffer.from("0102800100030004", "hex");
const CRITICAL = 0x40;
/** Packets before their options are taken for their flow's: OPTIONS_SAME of bpf/oncache.h. */
const SAME = 4;

enterNetns();

function inWorld(
	use: (world: World) => void | Promise<void>,
	options: Parameters<typeof openWorld>[0] = {},
): () => Promise<void> {
	return async () => {
		const world = openWorld({ ...options, tunnel: { kind: "geneve", port: PORT, ...options.tunnel } });
		try {
			await use(world);
		} finally {
			world.close();
		}
	};
}

interface Header {
	options?: Buffer;
	flags?: number;
	version?: number;
}

/** Of the UDP datagram: its VXLAN header becomes a Geneve one. */
function rewrite(datagram: Buffer, { options = NONE, flags = 0, version = 0 }: Header): Buffer {
	const head = Buffer.from(datagram.subarray(0, 16));
	head.writeUInt8((version << 6) | (options.length / 4), 8);
	head.writeUInt8(flags, 9);
	head.writeUInt16BE(ETHERNET_BRIDGED, 10);
	head.writeUInt16BE(head.readUInt16BE(4) + options.length, 4);
	return Buffer.concat([head, options, datagram.subarray(16)]);
}

/** Of the frame. */
function geneve(frame: Buffer, header: Header = {}): Buffer {
	const ip = Buffer.from(frame.subarray(0, HEADER - 8));
	ip.writeUInt16BE(ip.readUInt16BE(16) + (header.options?.length ?? 0), 16);
	ip.writeUInt16BE(0, 24);
	ip.writeUInt16BE(checksum(ip.subarray(14, 34)), 24);
	return Buffer.concat([ip, rewrite(frame.subarray(HEADER - 8), header)]);
}

/** The outer ID differs from packet to packet, and with it the checksum, which must be right all the same. */
function withoutId(frame: Buffer): string {
	assert.equal(checksum(frame.subarray(14, 34)), 0, "the outer IPv4 checksum is right");
	return Buffer.from(frame).fill(0, 18, 20).fill(0, 24, 26).toString("hex");
}

const out = (l4: L4, ttl: number) => outbound(inner(l4, "egress", { ttl }), { destinationPort: PORT });
const arriving = (l4: L4) => inbound(inner(l4, "ingress"), { destinationPort: PORT });
const leaves = (world: World, l4: L4 = "udp") => world.run("egress", fromPod(inner(l4, "egress")));
const arrives = (world: World, header: Header = {}, l4: L4 = "udp") =>
	world.run("ingress", geneve(arriving(l4), header));

/** The fallback carries a packet each way, as the programs see it. */
function carry(world: World, l4: L4, ways: { out?: Header; in?: Header } = {}): void {
	track(l4);
	world.run("egress_init", geneve(out(l4, 63), ways.out), { mark: MARK });
	arrives(world, ways.in, l4);
	world.run("ingress_init", toPod(inner(l4, "ingress", { ttl: 62 })), { mark: MARK });
}

function carryAll(world: World, l4: L4, ways: { out?: Header; in?: Header }): void {
	for (let i = 0; i < SAME; i++) carry(world, l4, ways);
}

const both = (options: Buffer) => ({ out: { options }, in: { options } });

describe("Geneve", () => {
	for (const l4 of ["tcp", "udp", "icmp"] as const)
		test(
			`${l4}: goes out as the fallback would send it, and comes in as it would deliver it`,
			inWorld((world) => {
				carry(world, l4);
				const sent = leaves(world, l4);
				assert.equal(sent.verdict, REDIRECT);
				assert.equal(withoutId(sent.packet), withoutId(geneve(out(l4, 63))));
				const delivered = arrives(world, {}, l4);
				assert.equal(delivered.verdict, REDIRECT);
				assert.deepEqual(delivered.packet, toPod(inner(l4, "ingress", { ttl: 63 })));
			}),
		);

	for (const [what, header] of [
		["a control message", { flags: 0x80 }],
		["another version", { version: 1 }],
		["more options than there is room for", { options: Buffer.alloc(80, OVN) }],
	] as const)
		test(
			`${what}: the fallback takes it, on a warm flow too, and it teaches nothing`,
			inWorld((world) => {
				carry(world, "udp");
				assert.equal(arrives(world).verdict, REDIRECT);
				const result = arrives(world, header);
				assert.equal(result.verdict, NEXT);
				assert.deepEqual(result.packet, geneve(arriving("udp"), header));
				assert.equal(world.datapath.counters().packets.ingress.fallback.outer, 1);
				world.datapath.flushAll();
				carryAll(world, "udp", { out: header, in: header });
				assert.equal(leaves(world).verdict, NEXT);
			}),
		);

	test(
		"what arrives without having been seen on the uplink teaches nothing: its options are not known",
		inWorld((world) => {
			track("udp");
			world.run("ingress_init", toPod(inner("udp", "ingress", { ttl: 62 })), { mark: MARK });
			assert.deepEqual(world.datapath.lessons().ingress, { unfit: 1 });
		}),
	);
});

describe("Geneve options", () => {
	for (const l4 of ["tcp", "udp", "icmp"] as const)
		for (const [what, header] of [
			["one", { options: OVN }],
			["a critical one", { options: OVN, flags: CRITICAL }],
			["as many as fit", { options: Buffer.alloc(76, OVN) }],
		] as const)
			test(
				`${l4}, ${what}: go out as the fallback would send them, and come in as it would deliver them`,
				inWorld((world) => {
					carryAll(world, l4, { out: header, in: header });
					const sent = leaves(world, l4);
					assert.equal(sent.verdict, REDIRECT);
					assert.equal(withoutId(sent.packet), withoutId(geneve(out(l4, 63), header)));
					const delivered = arrives(world, header, l4);
					assert.equal(delivered.verdict, REDIRECT);
					assert.deepEqual(delivered.packet, toPod(inner(l4, "ingress", { ttl: 63 })));
				}),
			);

	test(
		"of inner IPv6 likewise",
		inWorld((world) => {
			const header = { options: OVN };
			const at = { destinationPort: PORT };
			track6("udp");
			const sentBy = geneve(outbound(inner6("udp", "egress", { hopLimit: 63 }), at), header);
			const arriving = geneve(inbound(inner6("udp", "ingress"), at), header);
			for (let i = 0; i < SAME; i++) {
				world.run("egress_init", sentBy, { mark: MARK });
				world.run("ingress", arriving);
				world.run("ingress_init", toPod(inner6("udp", "ingress", { hopLimit: 62 })), { mark: MARK });
			}
			const sent = world.run("egress", fromPod(inner6("udp", "egress")));
			assert.equal(sent.verdict, REDIRECT);
			assert.equal(withoutId(sent.packet), withoutId(sentBy));
			const delivered = world.run("ingress", arriving);
			assert.equal(delivered.verdict, REDIRECT);
			assert.deepEqual(delivered.packet, toPod(inner6("udp", "ingress", { hopLimit: 63 })));
		}),
	);

	test(
		"under outer IPv6 likewise, up to 56 bytes",
		inWorld(
			(world) => {
				const underlay = (options: Buffer) => ({
					destinationPort: PORT,
					rewrite: (datagram: Buffer) => rewrite(datagram, { options }),
				});
				const sentWith = (options: Buffer) => outbound6(INNER.ipv4("udp", "egress", 63), underlay(options));
				const arrivingWith = (options: Buffer) => inbound6(INNER.ipv4("udp", "ingress"), underlay(options));
				track("udp");
				const round = (options: Buffer) => {
					for (let i = 0; i < SAME; i++) {
						world.run("egress_init", sentWith(options), { mark: MARK });
						world.run("ingress", arrivingWith(options));
						world.run("ingress_init", toPod(INNER.ipv4("udp", "ingress", 62)), { mark: MARK });
					}
				};
				const most = Buffer.alloc(56, OVN);
				round(Buffer.alloc(60, OVN));
				assert.equal(leaves(world).verdict, NEXT);
				round(most);
				const sent = world.run("egress", fromPod(INNER.ipv4("udp", "egress")));
				assert.equal(sent.verdict, REDIRECT);
				assert.equal(sent.packet.toString("hex"), sentWith(most).toString("hex"));
				const delivered = world.run("ingress", arrivingWith(most));
				assert.equal(delivered.verdict, REDIRECT);
				assert.deepEqual(delivered.packet, toPod(INNER.ipv4("udp", "ingress", 63)));
			},
			{ tunnel: { ipv6: true } },
		),
	);

	test(
		"are taken for a flow's only when several packets have had the same",
		inWorld((world) => {
			for (let i = 1; i < SAME; i++) {
				carry(world, "udp", both(OVN));
				assert.equal(leaves(world).verdict, NEXT, `after ${i}`);
			}
			assert.deepEqual(world.datapath.lessons(), { egress: { unfit: SAME - 1 }, ingress: { unfit: SAME - 1 } });
			carry(world, "udp", both(OVN));
			assert.equal(leaves(world).verdict, REDIRECT);
		}),
	);

	test(
		"may be on one direction only",
		inWorld((world) => {
			carryAll(world, "udp", { out: { options: OVN } });
			carryAll(world, "tcp", { in: { options: OVN } });
			for (const [l4, arrived, sent] of [["udp", NONE, OVN], ["tcp", OVN, NONE]] as const) {
				const { verdict, packet } = leaves(world, l4);
				assert.equal(verdict, REDIRECT, l4);
				assert.equal(withoutId(packet), withoutId(geneve(out(l4, 63), { options: sent })));
				assert.equal(arrives(world, { options: arrived }, l4).verdict, REDIRECT, l4);
			} // biome-ignore format: a table
		}),
	);

	for (const [what, learned, other] of [
		["others", OVN, { options: OTHER }],
		["none", OVN, {}],
		["the same and one more", OVN, { options: Buffer.concat([OVN, OVN]) }],
		["the same, now critical", OVN, { options: OVN, flags: CRITICAL }],
		["some where there were none", NONE, { options: OVN }],
	] as const)
		test(
			`a hit needs those that the fallback carried: ${what} take the fallback, and are asked about`,
			inWorld((world) => {
				carryAll(world, "udp", both(learned));
				assert.equal(arrives(world, { options: learned }).verdict, REDIRECT);
				const result = arrives(world, other);
				assert.equal(result.verdict, NEXT);
				assert.deepEqual(result.packet, geneve(arriving("udp"), other), "untouched");
				assert.equal(result.mark, MARK);
				assert.equal(world.datapath.counters().packets.ingress.fallback.options, 1);
				assert.equal(arrives(world, { options: learned }).verdict, REDIRECT, "the flow's own still hit");
			}),
		);

	test(
		"that vary from packet to packet teach nothing, one way or the other",
		inWorld((world) => {
			for (let i = 0; i < 3 * SAME; i++) {
				const options = i % 2 ? OVN : OTHER;
				carry(world, "udp", { out: { options } });
				carry(world, "tcp", { in: { options } });
				for (const l4 of ["udp", "tcp"] as const) assert.equal(leaves(world, l4).verdict, NEXT);
			}
		}),
	);

	test(
		"that come and go teach nothing either",
		inWorld((world) => {
			carry(world, "udp", both(NONE));
			assert.equal(leaves(world).verdict, REDIRECT);
			carry(world, "udp", both(OVN));
			assert.equal(leaves(world).verdict, NEXT, "what was learned does not hold any more");
			for (let i = 0; i < 2 * SAME; i++) {
				carry(world, "udp", both(i % 2 ? OVN : NONE));
				assert.equal(leaves(world).verdict, NEXT);
			}
		}),
	);

	for (const [what, changes, reason] of [
		["another outer source", { ip: { source: "192.168.77.9" } }, "peer"],
		["another outer destination", { ip: { destination: "192.168.77.9" } }, "peer"],
		["another VNI", { vni: VNI + 1 }, "vni"],
		["another inner source", { innerSource: MAC.gateway }, "mac"],
		["another inner destination", { innerDestination: MAC.gateway }, "mac"],
		["an outer fragment", { ip: { fragment: 0x2000 } }, "outer"],
		["a UDP checksum", { udpChecksum: 0x1234 }, "outer"],
	] as const)
		test(
			`that are right borrow no flow: ${what} takes the fallback`,
			inWorld((world) => {
				carryAll(world, "udp", both(OVN));
				const forged = inbound(inner("udp", "ingress"), { destinationPort: PORT, ...changes });
				const packet = geneve(forged, { options: OVN });
				const result = world.run("ingress", packet);
				assert.equal(result.verdict, NEXT);
				assert.deepEqual(result.packet, packet, "untouched");
				assert.equal(world.datapath.counters().packets.ingress.fallback[reason], 1);
			}),
		);

	test(
		"that are right, over IPv6 in the name of an IPv4 host, borrow no flow",
		inWorld(
			(world) => {
				carryAll(world, "udp", both(OVN));
				// All gateways of a switch have one address for each other.
				const to = { destinationPort: PORT, innerDestination: MAC.remoteTunnel };
				const own = geneve(inbound(inner("udp", "ingress"), to), { options: OVN });
				assert.equal(world.run("ingress", own).verdict, REDIRECT);
				const ip = { source: `::ffff:${REMOTE_HOST}`, destination: `::ffff:${LOCAL_HOST}` };
				const rewritten = (datagram: Buffer) => rewrite(datagram, { options: OVN });
				const packet = inbound6(inner("udp", "ingress"), { ...to, ip, rewrite: rewritten });
				assert.equal(world.run("ingress", packet).verdict, NEXT);
				assert.equal(world.datapath.counters().packets.ingress.fallback.peer, 1);
			},
			{ zones: { ipv4: 0, ipv6: 0 } },
		),
	);

	test(
		"leave less room for the packet",
		inWorld((world) => {
			carryAll(world, "udp", both(OVN));
			const sized = (bytes: number) => fromPod(inner("udp", "egress", {}, "x".repeat(bytes - 28)));
			const room = 1450 - OVN.length;
			assert.deepEqual([room, room + 1].map((bytes) => world.run("egress", sized(bytes)).verdict), [REDIRECT, NEXT]); // biome-ignore format: a pair
		}),
	);
});
