// Inner IPv6: what is learned, what leaves the host and reaches the pod, what goes stale, what is evicted, who may not borrow.
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { setTimeout } from "node:timers/promises";
import { patiently } from "../../src/lab/patience.js";
import { formatIp, parseIp } from "../../src/net/ip.js";
import type { MacAddress } from "../../src/net/mac.js";
import { inner6, POD6, PROTOCOL6, REMOTE6, teach6, track6 } from "./ipv6.js";
import { countSamples, guardTime, teachTooEarly } from "./pace.js";
import { checksum, icmp, ipv6, tcp, udp } from "./packet.js";
import {
	enterNetns, fromPod, inbound, inner, type L4, LOCAL_PORT, MAC, MARK, NEXT, OUTER_PORT, openWorld, outbound, POD, REDIRECT, REMOTE_HOST, REMOTE_PORT, tool, toPod, type World,
} from "./world.js"; // biome-ignore format: a list

enterNetns();
tool("ip", "link", "add", "pod1", "mtu", "1450", "type", "veth", "peer", "name", "eth1");
const pod1 = Number(/^(\d+):/.exec(tool("ip", "-o", "link", "show", "pod1"))?.[1]);

const ID = 18;
const CHECKSUM = 24;
const PROTOCOLS: L4[] = ["tcp", "udp", "icmp"];

function withoutId(packet: Buffer): string {
	const copy = Buffer.from(packet);
	copy.fill(0, ID, ID + 2);
	copy.fill(0, CHECKSUM, CHECKSUM + 2);
	return copy.toString("hex");
}

async function inWorld(
	use: (world: World) => void | Promise<void>,
	options: Parameters<typeof openWorld>[0] = {},
): Promise<void> {
	const world = openWorld(options);
	try {
		await use(world);
	} finally {
		world.close();
	}
}

const egress = (world: World, l4: L4 = "udp") => world.run("egress", fromPod(inner6(l4, "egress")));
const ingress = (world: World, l4: L4 = "udp") => world.run("ingress", inbound(inner6(l4, "ingress")));
const verdicts = (world: World): number[] => [egress(world).verdict, ingress(world).verdict];
const flowsOf = async (world: World) => (await world.datapath.flows({ limit: 100 })).flows;

describe("a flow that both init programs have seen", () => {
	for (const l4 of PROTOCOLS) {
		test(`${l4}: egress sends what the fallback would have sent`, () =>
			inWorld((world) => {
				teach6(world, l4);
				const result = egress(world, l4);
				assert.equal(result.verdict, REDIRECT);
				assert.equal(withoutId(result.packet), withoutId(outbound(inner6(l4, "egress", { hopLimit: 63 }))));
				assert.equal(checksum(result.packet.subarray(14, 34)), 0, "the outer IPv4 checksum is right");
				assert.deepEqual(world.datapath.counters().packets.egress, { fast: 1, fallback: {} });
			}));

		test(`${l4}: ingress delivers what the fallback would have delivered`, () =>
			inWorld((world) => {
				teach6(world, l4);
				const result = ingress(world, l4);
				assert.equal(result.verdict, REDIRECT);
				assert.equal(result.packet.toString("hex"), toPod(inner6(l4, "ingress", { hopLimit: 63 })).toString("hex"));
				assert.deepEqual(world.datapath.counters().packets.ingress, { fast: 1, fallback: {} });
			}));
	}

	test("shares its host with IPv4, and its pod has an entry for each address", () =>
		inWorld(async (world) => {
			world.teach("udp");
			teach6(world, "udp");
			assert.deepEqual(
				world.datapath.hosts().map(({ remote }) => formatIp(remote)),
				[REMOTE_HOST],
			);
			assert.deepEqual(
				world.datapath
					.pods()
					.map(({ ip, veth, mac, gatewayMac }) => [formatIp(ip), veth, mac, gatewayMac])
					.sort(),
				[
					[POD, world.pod0, MAC.pod, MAC.gateway],
					[POD6, world.pod0, MAC.pod, MAC.gateway],
				],
			);
			assert.deepEqual(
				(await flowsOf(world)).map(({ protocol, local, remote, host }) => [protocol, local, remote, host]).slice(1),
				[["udp", { ip: POD6, port: LOCAL_PORT }, { ip: REMOTE6, port: REMOTE_PORT }, REMOTE_HOST]],
			);
			for (const header of [inner("udp", "egress"), inner6("udp", "egress")])
				assert.equal(world.run("egress", fromPod(header)).verdict, REDIRECT);
		}));

	test("keeps its flow label, and has the outer source port that the fallback chose", () =>
		inWorld((world) => {
			teach6(world, "udp");
			const { packet } = world.run("egress", fromPod(inner6("udp", "egress", { flowLabel: 0xabcde })));
			assert.equal(packet.readUInt32BE(64), 0x600abcde);
			assert.equal(packet.readUInt16BE(34), OUTER_PORT);
		}));

	test("has a new outer ID for every packet", () =>
		inWorld((world) => {
			teach6(world, "udp");
			const ids = Array.from({ length: 50 }, () => egress(world).packet.readUInt16BE(ID));
			assert.equal(new Set(ids).size, 50);
		}));

	test("is counted when that is configured", () =>
		inWorld(
			async (world) => {
				teach6(world, "icmp");
				for (let i = 0; i < 3; i++) egress(world, "icmp");
				ingress(world, "icmp");
				assert.deepEqual(
					(await flowsOf(world)).map(({ protocol, packets }) => [protocol, packets]),
					[["icmp", { egress: 3, ingress: 1 }]],
				);
			},
			{ countFlows: true },
		));
});

describe("traffic class", () => {
	for (const [ecn, outer] of [[0, 0], [1, 1], [2, 2], [3, 2]] as const)
		test(`ECN ${ecn} of the pod is ${outer} outside, and its DSCP stays inside`, () =>
			inWorld((world) => {
				teach6(world, "udp");
				const { packet } = world.run("egress", fromPod(inner6("udp", "egress", { tclass: 0xb8 | ecn })));
				assert.equal(packet[15], outer);
				assert.equal(
					packet.subarray(64).toString("hex"),
					inner6("udp", "egress", { tclass: 0xb8 | ecn, hopLimit: 63 }).toString("hex"),
				);
				assert.equal(checksum(packet.subarray(14, 34)), 0);
			})); // biome-ignore format: a table

	test("DSCP, hop limit and DF reach the outer header where the device takes them from the pod's packet", () =>
		inWorld(
			(world) => {
				teach6(world, "udp");
				const { packet } = world.run("egress", fromPod(inner6("udp", "egress", { tclass: 0x28, hopLimit: 17 })));
				assert.deepEqual([packet[15], packet[22], packet.readUInt16BE(20)], [0x28, 16, 0x4000]);
				assert.equal(checksum(packet.subarray(14, 34)), 0);
			},
			{ tunnel: { tosInherit: true, ttlInherit: true, dfInherit: true } },
		));

	test("inner and outer ECN combine as RFC 6040 says", () =>
		inWorld((world) => {
			teach6(world, "udp");
			for (const [innerEcn, outerEcn, expected] of [
				[0, 0, 0],
				[1, 0, 1],
				[1, 1, 1],
				[1, 2, 1],
				[1, 3, 3],
				[2, 0, 2],
				[2, 1, 1],
				[2, 2, 2],
				[2, 3, 3],
				[3, 0, 3],
				[3, 1, 3],
				[3, 2, 3],
				[3, 3, 3],
			] as const) {
				// biome-ignore format: RFC 6040, figure 4
				const packet = inbound(inner6("udp", "ingress", { tclass: 0x28 | innerEcn }), { ip: { tos: outerEcn } });
				const result = world.run("ingress", packet);
				assert.equal(result.verdict, REDIRECT);
				const delivered = toPod(inner6("udp", "ingress", { tclass: 0x28 | expected, hopLimit: 63 }));
				assert.equal(result.packet.toString("hex"), delivered.toString("hex"), `${innerEcn} in ${outerEcn}`);
			}
			for (const outerEcn of [1, 2, 3])
				assert.equal(
					world.run("ingress", inbound(inner6("udp", "ingress"), { ip: { tos: outerEcn } })).verdict,
					NEXT,
					"over a Not-ECT packet: the fallback's to judge",
				);
		}));
});

describe("the init programs", () => {
	test("learn and confirm", () =>
		inWorld((world) => {
			teach6(world, "tcp");
			teach6(world, "tcp");
			assert.deepEqual(world.datapath.lessons(), {
				egress: { learned: 1, confirmed: 1 },
				ingress: { learned: 1, confirmed: 1 },
			});
		}));

	test("refuse a flow that connection tracking has not seen answered, or does not know", () =>
		inWorld(async (world) => {
			track6("udp", "ASSURED", { local: 41000, remote: 80 });
			for (const source of [41000, 41001]) {
				const packet = ipv6(
					{ source: POD6, destination: REMOTE6, nextHeader: 17, hopLimit: 63 },
					udp({ source, destination: 80 }),
				);
				world.run("egress_init", outbound(packet), { mark: MARK });
			}
			assert.deepEqual(world.datapath.lessons().egress, { not_established: 2 });
			assert.deepEqual(await flowsOf(world), []);
		}));

	test("refuse what they could not replay, and unmarked packets", () =>
		inWorld(async (world) => {
			track6("udp");
			const packet = inner6("udp", "egress", { hopLimit: 63 });
			world.run("egress_init", outbound(packet));
			for (const unfit of [
				outbound(packet, { udpChecksum: 1 }),
				outbound(packet, { innerSource: MAC.pod }),
				outbound(inner6("udp", "egress", { nextHeader: 44 })),
				outbound(inner6("udp", "egress", { nextHeader: 60 })),
				outbound(inner6("udp", "egress", { destination: "ff02::1" })),
			])
				world.run("egress_init", unfit, { mark: MARK });
			assert.deepEqual(world.datapath.lessons().egress, { unfit: 5 });
			assert.deepEqual(await flowsOf(world), []);
		}));

	test("learn from a SYN-ACK, so that the first data of a connection is fast", () =>
		inWorld((world) => {
			tool("conntrack", "-I", "-p", "tcp", "-s", POD6, "-d", REMOTE6, "--sport", "40003", "--dport", "80",
				"--timeout", "60", "--status", "SEEN_REPLY", "--state", "SYN_RECV"); // biome-ignore format: one command
			const there = { source: POD6, destination: REMOTE6, nextHeader: 6 };
			const back = { source: REMOTE6, destination: POD6, nextHeader: 6 };
			const synAck = tcp({ source: 80, destination: 40003, flags: 0x12 });
			assert.equal(world.run("ingress", inbound(ipv6(back, synAck))).mark, MARK);
			world.run("ingress_init", toPod(ipv6({ ...back, hopLimit: 62 }, synAck)), { mark: MARK });
			const ports = { source: 40003, destination: 80 };
			world.run("egress_init", outbound(ipv6({ ...there, hopLimit: 63 }, tcp(ports))), { mark: MARK });
			assert.equal(world.run("egress", fromPod(ipv6(there, tcp(ports, "GET /")))).verdict, REDIRECT);
		}));

	test("key ICMPv6 echo by who asks", () =>
		inWorld((world) => {
			teach6(world, "icmp");
			const answer = ipv6({ source: POD6, destination: REMOTE6, nextHeader: 58 }, icmp(129, 0, 777));
			assert.equal(world.run("egress", fromPod(answer)).verdict, NEXT, "an answer to a request of theirs");
		}));

	test("ask a few times about a flow that is declined, then leave it in peace", () =>
		inWorld((world) => {
			const packet = ipv6({ source: POD6, destination: REMOTE6, nextHeader: 17 }, udp({ source: 9, destination: 9 }));
			const marks = Array.from({ length: 8 }, () => {
				const { mark } = world.run("egress", fromPod(packet));
				if (mark) world.run("egress_init", outbound(packet), { mark });
				return mark;
			});
			assert.deepEqual(marks, [MARK, MARK, MARK, MARK, 0, 0, 0, 0]);
			assert.equal(world.datapath.counters().packets.egress.fallback.backoff, 4);
		}));
});

test("one direction alone is not used: the reverse check", () =>
	inWorld((world) => {
		track6("udp");
		world.run("egress_init", outbound(inner6("udp", "egress", { hopLimit: 63 })), { mark: MARK });
		assert.equal(egress(world).verdict, NEXT);
		assert.deepEqual(world.datapath.counters().packets.egress.fallback, { reverse: 1 });
		world.run("ingress_init", toPod(inner6("udp", "ingress", { hopLimit: 62 })), { mark: MARK });
		assert.equal(egress(world).verdict, REDIRECT);
	}));

test("half-way to its bound a packet is sent to confirm; at the bound nothing is used", () =>
	inWorld(
		async (world) => {
			teach6(world, "udp");
			assert.deepEqual(verdicts(world), [REDIRECT, REDIRECT]);
			await setTimeout(patiently(220)); // what is tested is the passing of time
			const sample = egress(world);
			assert.deepEqual([sample.verdict, sample.mark], [NEXT, MARK]);
			const more = countSamples(() => egress(world).verdict === NEXT);
			await setTimeout(patiently(220));
			assert.deepEqual(verdicts(world), [NEXT, NEXT]);
			const { fallback } = world.datapath.counters().packets.egress;
			assert.deepEqual([fallback.sample, fallback.stale], [1 + more, 1]);
			teach6(world, "udp");
			assert.equal(egress(world).verdict, REDIRECT);
		},
		{ maxStalenessMs: patiently(400) },
	));

describe("eviction", () => {
	const cases: [string, (world: World) => void][] = [
		["everything", (world) => world.datapath.flushAll()],
		["a pod", (world) => void assert.equal(world.datapath.flushPod(parseIp(POD6)), 1)],
		["a host", (world) => void assert.equal(world.datapath.flushHost(parseIp(REMOTE_HOST)), 1)],
		["a veth", (world) => void assert.equal(world.datapath.flushVeth(world.pod0), 1)],
		[
			"a flow",
			(world) => {
				const tuple = { proto: 17, localIp: parseIp(REMOTE6), localPort: REMOTE_PORT, remoteIp: parseIp(POD6), remotePort: LOCAL_PORT }; // biome-ignore format: one tuple
				assert.equal(world.datapath.flushFlow(tuple), 1);
			},
		],
	];
	for (const [what, evict] of cases)
		test(`of ${what} ends both directions at once, and packets under way do not bring it back`, (t) =>
			inWorld(async (world) => {
				teach6(world, "udp");
				assert.deepEqual(verdicts(world), [REDIRECT, REDIRECT]);
				evict(world);
				assert.deepEqual(verdicts(world), [NEXT, NEXT]);
				const isFastEnough = await teachTooEarly(
					() => teach6(world, "udp"),
					() => evict(world),
				);
				if (!isFastEnough) return t.skip("this machine is too slow to learn within the guard time");
				assert.deepEqual(verdicts(world), [NEXT, NEXT], "within the guard time nothing is learned");
				await guardTime();
				teach6(world, "udp");
				assert.deepEqual(verdicts(world), [REDIRECT, REDIRECT]);
			}));

	test("of a pod's IPv4 address leaves its IPv6 flows", () =>
		inWorld((world) => {
			world.teach("udp");
			teach6(world, "udp");
			assert.equal(world.datapath.flushPod(parseIp(POD)), 1);
			assert.deepEqual(verdicts(world), [REDIRECT, REDIRECT]);
			assert.equal(world.run("egress", fromPod(inner("udp", "egress"))).verdict, NEXT);
		}));

	for (const flags of [0x02, 0x11, 0x14])
		test(`a TCP packet with flags 0x${flags.toString(16)} ends its flow`, () =>
			inWorld(async (world) => {
				teach6(world, "tcp");
				const ports = { source: LOCAL_PORT, destination: REMOTE_PORT, flags };
				world.run(
					"egress",
					fromPod(ipv6({ source: POD6, destination: REMOTE6, nextHeader: PROTOCOL6.tcp }, tcp(ports))),
				);
				assert.deepEqual(await flowsOf(world), []);
			}));

	test("nothing is used or marked while using is paused", () =>
		inWorld((world) => {
			teach6(world, "udp");
			world.datapath.using = false;
			const results = [egress(world), ingress(world)];
			assert.deepEqual(
				results.map(({ verdict, mark }) => [verdict, mark]),
				[
					[NEXT, 0],
					[NEXT, 0],
				],
			);
		}));
});

describe("no one borrows a flow", () => {
	const warm = (body: (world: World) => void) =>
		inWorld((world) => {
			teach6(world, "tcp");
			body(world);
		});

	test("a pod with a neighbour's address gets the fallback's answer", () =>
		warm((world) => {
			world.run("egress", fromPod(inner6("tcp", "egress")), { ifindex: pod1 });
			world.run("egress", fromPod(inner6("tcp", "egress"), { source: "0a:58:00:00:00:99" }));
			assert.deepEqual(world.datapath.counters().packets.egress, { fast: 0, fallback: { veth: 1, mac: 1 } });
		}));

	test("neither does a host that is not the flow's, nor another tunnel device", () =>
		warm((world) => {
			const packet = inner6("tcp", "ingress");
			for (const options of [
				{ ip: { source: "192.168.77.66" } },
				{ ip: { destination: "192.168.77.9" } },
				{ destinationMac: "0a:10:00:00:00:77" },
				{ innerSource: "0a:20:00:00:00:77" },
				{ innerDestination: "0a:20:00:00:00:77" },
				{ vni: 43 },
			])
				assert.equal(world.run("ingress", inbound(packet, options)).verdict, NEXT);
			assert.deepEqual(world.datapath.counters().packets.ingress, { fast: 0, fallback: { peer: 3, mac: 2, vni: 1 } });
		}));

	test("an IPv4 pod is not found under its IPv4-mapped address", () =>
		inWorld((world) => {
			world.teach("udp");
			const mapped = `::ffff:${POD}`;
			const packet = inner6("udp", "ingress", { destination: mapped, hopLimit: 62 });
			world.run("ingress_init", toPod(packet), { mark: MARK });
			assert.deepEqual(world.datapath.lessons().ingress, { learned: 1, unfit: 1 });
			assert.equal(world.datapath.pods().length, 1);
		}));
});

describe("bridged, not routed", () => {
	test("keeps its hop limit and gets the MAC addresses of both pods", () =>
		inWorld((world) => {
			const [peer, bridge] = ["0a:58:00:00:02:02", MAC.gateway as MacAddress];
			const [entry] = world.datapath.tunnels();
			assert.ok(entry);
			world.datapath.setTunnels([{ ...entry, bridging: "tracked", mac: bridge }]);
			track6("udp");
			const macs = { innerSource: MAC.pod, innerDestination: peer };
			const sent = outbound(inner6("udp", "egress"), macs);
			world.run("egress_init", sent, { mark: MARK });
			const delivered = Buffer.from(toPod(inner6("udp", "ingress")));
			Buffer.from(peer.replaceAll(":", ""), "hex").copy(delivered, 6);
			world.run("ingress_init", delivered, { mark: MARK });
			const out = world.run("egress", fromPod(inner6("udp", "egress"), { destination: peer }));
			assert.equal(withoutId(out.packet), withoutId(sent));
			const back = world.run(
				"ingress",
				inbound(inner6("udp", "ingress"), { innerSource: peer, innerDestination: MAC.pod }),
			);
			assert.equal(back.packet.toString("hex"), delivered.toString("hex"));
		}));
});

test("dscp mode leaves IPv6 alone: not marked, not learned, counted", () =>
	inWorld(
		(world) => {
			const [out, back] = [fromPod(inner6("udp", "egress")), inbound(inner6("udp", "ingress"))];
			assert.ok(world.run("egress", out).packet.equals(out));
			assert.ok(world.run("ingress", back).packet.equals(back));
			teach6(world, "udp");
			assert.deepEqual(verdicts(world), [NEXT, NEXT]);
			const { packets } = world.datapath.counters();
			assert.deepEqual([packets.egress.fallback, packets.ingress.fallback], [{ ipv6: 2 }, { ipv6: 2 }]);
			assert.deepEqual(world.datapath.lessons(), { egress: {}, ingress: {} });
		},
		{ markMode: "dscp" },
	));
