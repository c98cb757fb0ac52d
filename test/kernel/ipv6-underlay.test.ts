// Tunnels whose outer header is IPv6: what leaves the host and reaches the pod, what is not replayed, who may not borrow.
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { formatIp, parseIp } from "../../src/net/ip.js";
import { inner6 } from "./ipv6.js";
import { at, ipv4, udp } from "./packet.js";
import {
	type Family, INNER, inbound6, LOCAL_HOST6, OUTER6_BYTES, type Outer6Options, outbound6, PAYLOAD, REMOTE_HOST6, teachOver6,
} from "./underlay6.js"; // biome-ignore format: a list
import {
	enterNetns, fromPod, inbound, inner, type L4, MAC, MARK, NEXT, openWorld, outbound, POD, REDIRECT, REMOTE, tool, toPod, track, VNI, type World,
} from "./world.js"; // biome-ignore format: a list

enterNetns();

const PROTOCOLS: L4[] = ["tcp", "udp", "icmp"];
const FAMILIES: Family[] = ["ipv4", "ipv6"];
/** Of the outer header: traffic class and flow label, payload length, hop limit, UDP source port and checksum. */
const [FIRST_WORD, HOP_LIMIT, SOURCE_PORT] = [14, 21, 54];

function inWorld(use: (world: World) => void | Promise<void>, options: Parameters<typeof openWorld>[0] = {}) {
	return async (): Promise<void> => {
		const world = openWorld({ ...options, tunnel: { ipv6: true, ...options.tunnel } });
		try {
			await use(world);
		} finally {
			world.close();
		}
	};
}

const egress = (world: World, family: Family = "ipv4", l4: L4 = "udp", tos?: number) =>
	world.run("egress", fromPod(INNER[family](l4, "egress", undefined, tos)));
const ingress = (world: World, family: Family = "ipv4", l4: L4 = "udp", options: Outer6Options = {}) =>
	world.run("ingress", inbound6(INNER[family](l4, "ingress"), options));

describe("over IPv6, a flow that both init programs have seen", () => {
	for (const family of FAMILIES)
		for (const l4 of PROTOCOLS) {
			test(
				`${family} ${l4}: egress sends what the fallback would have sent`,
				inWorld((world) => {
					teachOver6(world, family, l4);
					const { verdict, packet } = egress(world, family, l4);
					assert.equal(verdict, REDIRECT);
					assert.equal(packet.toString("hex"), outbound6(INNER[family](l4, "egress", 63)).toString("hex"));
					assert.deepEqual(world.datapath.counters().packets.egress, { fast: 1, fallback: {} });
				}),
			);

			test(
				`${family} ${l4}: ingress delivers what the fallback would have delivered`,
				inWorld((world) => {
					teachOver6(world, family, l4);
					const { verdict, packet } = ingress(world, family, l4);
					assert.equal(verdict, REDIRECT);
					assert.equal(packet.toString("hex"), toPod(INNER[family](l4, "ingress", 63)).toString("hex"));
					const { packets, bytes } = world.datapath.counters();
					assert.deepEqual(packets.ingress, { fast: 1, fallback: {} });
					assert.equal(bytes.ingress.fast, packet.length, "bytes of the inner frame");
				}),
			);
		}

	test(
		"knows its host by IPv6 addresses, which evict it",
		inWorld(async (world) => {
			teachOver6(world, "ipv4", "udp");
			teachOver6(world, "ipv6", "udp");
			assert.deepEqual(
				world.datapath.hosts().map(({ remote, local, vni, mtu, nextHopMac, uplinkMac, peerMac, tunnelMac }) => [
					[formatIp(remote), formatIp(local), vni, mtu],
					[nextHopMac, uplinkMac, peerMac, tunnelMac],
				]),
				[
					[
						[REMOTE_HOST6, LOCAL_HOST6, VNI, 1450],
						[MAC.remoteUplink, MAC.uplink, MAC.remoteTunnel, MAC.tunnel],
					],
				],
			);
			const { flows } = await world.datapath.flows({ limit: 2 });
			assert.deepEqual(flows.map(({ host }) => host), [REMOTE_HOST6, REMOTE_HOST6]); // biome-ignore format: a list
			assert.equal(world.datapath.flushHost(parseIp(REMOTE_HOST6)), 1);
			for (const family of FAMILIES) assert.equal(egress(world, family).verdict, NEXT);
		}),
	);

	test(
		"a Service's address is translated below the outer header, both ways",
		inWorld((world) => {
			const SERVICE = "10.96.0.10";
			tool("nft", "add table ip nat");
			tool("nft", "add chain ip nat prerouting { type nat hook prerouting priority 0; }");
			tool("conntrack", "-I", "-p", "udp", "-s", POD, "-d", SERVICE, "--sport", "41000", "--dport", "80",
				"--dst-nat", `${REMOTE}:8080`, "--timeout", "600", "--status", "SEEN_REPLY,ASSURED"); // biome-ignore format: one command
			const packet = (source: string, destination: string, from: number, to: number, ttl: number) =>
				ipv4({ source, destination, protocol: 17, ttl }, udp({ source: from, destination: to }, PAYLOAD));
			world.run("egress_init", outbound6(packet(POD, REMOTE, 41000, 8080, 63)), { mark: MARK });
			world.run("ingress_init", toPod(packet(SERVICE, POD, 80, 41000, 62)), { mark: MARK });
			const sent = world.run("egress", fromPod(packet(POD, SERVICE, 41000, 80, 64)));
			assert.equal(sent.verdict, REDIRECT);
			assert.equal(sent.packet.toString("hex"), outbound6(packet(POD, REMOTE, 41000, 8080, 63)).toString("hex"));
			const delivered = world.run("ingress", inbound6(packet(REMOTE, POD, 8080, 41000, 64)));
			assert.equal(delivered.verdict, REDIRECT);
			assert.equal(delivered.packet.toString("hex"), toPod(packet(SERVICE, POD, 80, 41000, 63)).toString("hex"));
		}),
	);
});

describe("over IPv6, the outer header is the device's", () => {
	for (const family of FAMILIES)
		for (const [ecn, outer] of [[0, 0], [1, 1], [2, 2], [3, 2]] as const)
			test(
				`${family}: ECN ${ecn} of the pod is ${outer} outside, and its DSCP stays inside`,
				inWorld((world) => {
					teachOver6(world, family, "udp");
					const { packet } = egress(world, family, "udp", 0xb8 | ecn);
					assert.equal(packet.readUInt32BE(FIRST_WORD), (0x60000000 | (outer << 20)) >>> 0);
					assert.equal(
						packet.subarray(OUTER6_BYTES).toString("hex"),
						INNER[family]("udp", "egress", 63, 0xb8 | ecn).toString("hex"),
					);
				}),
			); // biome-ignore format: a table

	test(
		"flow label, traffic class and hop limit that it sets are kept",
		inWorld((world) => {
			const ip = { flowLabel: 0xabcde, tclass: 0x28, hopLimit: 9 };
			teachOver6(world, "ipv6", "udp", { ip, sourcePort: 40404 });
			const { packet } = egress(world, "ipv6", "udp", 0x02);
			assert.equal(packet.readUInt32BE(FIRST_WORD), 0x62aabcde);
			assert.deepEqual([packet[HOP_LIMIT], packet.readUInt16BE(SOURCE_PORT)], [9, 40404]);
		}),
	);

	for (const family of FAMILIES)
		test(
			`${family}: what it inherits is the pod's packet's`,
			inWorld(
				(world) => {
					teachOver6(world, family, "udp", { ip: { tclass: 0x10, hopLimit: 7, flowLabel: 0x11111 } });
					const { packet } = world.run("egress", fromPod(INNER[family]("udp", "egress", 17, 0x28)));
					const label = family === "ipv6" ? 0x54321 : 0;
					assert.equal(packet.readUInt32BE(FIRST_WORD), 0x62800000 + label);
					assert.equal(packet[HOP_LIMIT], 16);
				},
				{ tunnel: { tosInherit: true, ttlInherit: true, labelInherit: true } },
			),
		);

	for (const [what, pod, wire, delivered] of [
		["congestion marked on the way reaches the pod", 0x02, 0x03, 0x03],
		["ECT(1) outside wins over ECT(0) inside", 0x02, 0x01, 0x01],
		["no ECN outside changes nothing", 0x02, 0x00, 0x02],
	] as const)
		for (const family of FAMILIES)
			test(
				`${family}: ${what}`,
				inWorld((world) => {
					teachOver6(world, family, "udp");
					const packet = inbound6(INNER[family]("udp", "ingress", undefined, pod), { ip: { tclass: wire } });
					const result = world.run("ingress", packet);
					assert.equal(result.verdict, REDIRECT);
					assert.equal(
						result.packet.toString("hex"),
						toPod(INNER[family]("udp", "ingress", 63, delivered)).toString("hex"),
					);
				}),
			);

	test(
		"a packet that is larger than fits with the longer header takes the fallback",
		inWorld((world) => {
			teachOver6(world, "ipv4", "udp");
			const sized = (bytes: number) => fromPod(inner("udp", "egress", {}, "x".repeat(bytes - 28)));
			assert.deepEqual([1450, 1451].map((bytes) => world.run("egress", sized(bytes)).verdict), [REDIRECT, NEXT]); // biome-ignore format: a pair
		}),
	);
});

const over = (options: Outer6Options) => inbound6(INNER.ipv4("udp", "ingress"), options);
const plain = over({});

/** What arrives on a warm flow, and why the fallback takes it, untouched. Without a reason it is not ONCache's to count. */
const REFUSED: { name: string; packet: Buffer; reason: string | undefined; asked?: boolean }[] = [
	{ name: "a UDP checksum", packet: over({ udpChecksum: 0x1234 }), reason: "outer" },
	{ name: "other VXLAN flags", packet: over({ flags: 0x0c }), reason: "outer" },
	{ name: "another VNI", packet: over({ vni: VNI + 1 }), reason: "vni" },
	{ name: "another UDP port", packet: over({ destinationPort: 4789 }), reason: undefined },
	{ name: "an outer extension header", packet: over({ ip: { nextHeader: 0 } }), reason: undefined },
	{ name: "an outer fragment", packet: over({ ip: { nextHeader: 44 } }), reason: undefined },
	{ name: "an outer payload length that lies", packet: over({ ip: { payloadLength: 20 } }), reason: "truncated" },
	{ name: "an outer version that lies", packet: at(plain, FIRST_WORD, 0x40), reason: "outer" },
	{ name: "another inner EtherType", packet: at(plain, OUTER6_BYTES - 2, 0x08, 0x06), reason: "not_ipv4" },
	{ name: "an inner packet at its last hop", packet: inbound6(inner("udp", "ingress", { ttl: 1 })), reason: "ttl" },
	{ name: "inner IPv6 at its last hop", packet: inbound6(inner6("udp", "ingress", { hopLimit: 1 })), reason: "ttl" },
	{ name: "an inner fragment", packet: inbound6(inner("udp", "ingress", { fragment: 0x2000 })), reason: "fragment" },
	{ name: "congestion without ECN inside", packet: over({ ip: { tclass: 3 } }), reason: "outer" },
	{ name: "another outer source", packet: over({ ip: { source: "fd00:77::3" } }), reason: "peer", asked: true },
	{ name: "another outer destination", packet: over({ ip: { destination: "fd00:77::9" } }), reason: "peer", asked: true },
	{ name: "another inner source MAC", packet: over({ innerSource: MAC.gateway }), reason: "mac", asked: true },
	{ name: "another inner destination MAC", packet: over({ innerDestination: MAC.gateway }), reason: "mac", asked: true },
	{ name: "outer IPv4 instead", packet: inbound(inner("udp", "ingress")), reason: "peer", asked: true },
]; // biome-ignore format: a table

describe("over IPv6, the fallback takes, on a warm flow too,", () => {
	for (const { name, packet, reason, asked = false } of REFUSED)
		test(
			name,
			inWorld((world) => {
				for (const family of FAMILIES) teachOver6(world, family, "udp");
				assert.equal(ingress(world).verdict, REDIRECT);
				const result = world.run("ingress", packet);
				assert.equal(result.verdict, NEXT);
				assert.equal(result.packet.toString("hex"), packet.toString("hex"), "untouched");
				assert.equal((result.mark & MARK) !== 0, asked);
				assert.deepEqual(
					world.datapath.counters().packets.ingress.fallback,
					reason === undefined ? {} : { [reason]: 1 },
				);
			}),
		);

	test(
		"what is not for this host, and what comes by another uplink",
		inWorld((world) => {
			teachOver6(world, "ipv4", "udp");
			const other = over({ destinationMac: MAC.remoteUplink });
			assert.equal(world.run("ingress", other).verdict, NEXT);
			assert.equal(world.run("ingress", plain, { ifindex: world.pod0 }).verdict, NEXT);
			assert.equal(world.run("ingress", plain).verdict, REDIRECT);
		}),
	);

	test(
		"every cut of a packet, without a drop",
		inWorld((world) => {
			for (const family of FAMILIES) teachOver6(world, family, "tcp");
			for (const family of FAMILIES) {
				const whole = inbound6(INNER[family]("tcp", "ingress"));
				// BPF_PROG_TEST_RUN refuses less than the IP header.
				for (let bytes = 14 + 40; bytes < whole.length; bytes++) {
					const { verdict } = world.run("ingress", whole.subarray(0, bytes));
					assert.equal(verdict, NEXT, `${family}, ${bytes} bytes`);
				}
			}
		}),
	);
});

describe("over IPv6, nothing is learned", () => {
	for (const [what, options] of [
		["from a packet with a UDP checksum", { udpChecksum: 0x1234 }],
		["from a packet with other VXLAN flags", { flags: 0x0c }],
		["from a packet of another VNI", { vni: VNI + 1 }],
	] as const)
		test(
			what,
			inWorld((world) => {
				teachOver6(world, "ipv4", "udp", options);
				assert.equal(egress(world).verdict, NEXT);
				assert.deepEqual(world.datapath.hosts(), []);
			}),
		);

	test(
		"by a tunnel over IPv4 with the same port and VNI, nor the other way round",
		inWorld(
			(world) => {
				teachOver6(world, "ipv4", "udp");
				assert.deepEqual(world.datapath.hosts(), []);
			},
			{ tunnel: { ipv6: false } },
		),
	);

	test(
		"of a tunnel over IPv6 from a packet over IPv4",
		inWorld((world) => {
			track("udp");
			world.run("egress_init", outbound(inner("udp", "egress", { ttl: 63 })), { mark: MARK });
			assert.deepEqual(world.datapath.hosts(), []);
		}),
	);
});
