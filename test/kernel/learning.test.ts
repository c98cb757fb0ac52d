// What the init programs learn, from whom, and what they refuse; staleness; evictions.
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { setTimeout } from "node:timers/promises";
import { SENDERS } from "../../src/datapath/layout.js";
import { patiently } from "../../src/lab/patience.js";
import { parseIpv4 } from "../../src/net/ipv4.js";
import type { MacAddress } from "../../src/net/mac.js";
import { countSamples, guardTime, teachTooEarly } from "./pace.js";
import { ethernet, icmp, ipv4, tcp, udp } from "./packet.js";
import {
	enterNetns, fromPod, inbound, inner, LOCAL_PORT, MAC, MARK, NEXT, openWorld, outbound, POD, REDIRECT, REMOTE, REMOTE_HOST, REMOTE_PORT, tool, toPod, track, type World,
} from "./world.js"; // biome-ignore format: a list

enterNetns();

const warmEgress = (world: World): number => world.run("egress", fromPod(inner("udp", "egress"))).verdict;
const warmIngress = (world: World): number => world.run("ingress", inbound(inner("udp", "ingress"))).verdict;
const flowsOf = async (world: World) => (await world.datapath.flows({ limit: 100 })).flows;

async function inWorld(
	options: Parameters<typeof openWorld>[0],
	use: (world: World) => void | Promise<void>,
): Promise<void> {
	const world = openWorld(options);
	try {
		await use(world);
	} finally {
		world.close();
	}
}

describe("the init programs", () => {
	test("teach nothing from a packet without the mark", () =>
		inWorld({}, async (world) => {
			track("udp");
			world.run("egress_init", outbound(inner("udp", "egress", { ttl: 63 })));
			world.run("ingress_init", toPod(inner("udp", "ingress", { ttl: 62 })));
			assert.deepEqual(await flowsOf(world), []);
			assert.deepEqual(world.datapath.lessons(), { egress: {}, ingress: {} });
		}));

	test("take the mark off, and leave the packet as it is", () =>
		inWorld({}, (world) => {
			track("udp");
			const packet = outbound(inner("udp", "egress", { ttl: 63 }));
			const result = world.run("egress_init", packet, { mark: MARK | 0x4 });
			assert.deepEqual([result.verdict, result.mark], [NEXT, 0x4]);
			assert.ok(result.packet.equals(packet));
		}));

	test("learn the remote host, the pod and both verdicts, and confirm them the second time", () =>
		inWorld({}, (world) => {
			world.teach("udp");
			world.teach("udp");
			const { egress, ingress } = world.datapath.lessons();
			assert.deepEqual(
				[egress, ingress],
				[
					{ learned: 1, confirmed: 1 },
					{ learned: 1, confirmed: 1 },
				],
			);
			assert.deepEqual(
				world.datapath.hosts().map(({ remote, vni, uplink }) => [remote, vni, uplink]),
				[[parseIpv4(REMOTE_HOST), 42, world.up0]],
			);
			assert.deepEqual(
				world.datapath.pods().map(({ ip, veth, mac, gatewayMac }) => [ip, veth, mac, gatewayMac]),
				[[parseIpv4(POD), world.pod0, MAC.pod, MAC.gateway]],
			);
		}));

	test("refuse a flow that connection tracking has not seen both directions of", () =>
		inWorld({}, async (world) => {
			const ports = { source: 40001, destination: 80 };
			tool(
				"conntrack",
				"-I",
				"-p",
				"udp",
				"-s",
				POD,
				"-d",
				REMOTE,
				"--sport",
				"40001",
				"--dport",
				"80",
				"--timeout",
				"60",
			);
			const packet = ipv4({ source: POD, destination: REMOTE, protocol: 17, ttl: 63 }, udp(ports));
			world.run("egress_init", outbound(packet), { mark: MARK });
			assert.deepEqual(world.datapath.lessons().egress, { not_established: 1 });
			assert.deepEqual(await flowsOf(world), []);
		}));

	test("refuse a flow that connection tracking does not know", () =>
		inWorld({}, (world) => {
			const packet = ipv4(
				{ source: POD, destination: REMOTE, protocol: 6, ttl: 63 },
				tcp({ source: 1, destination: 2 }),
			);
			world.run("egress_init", outbound(packet), { mark: MARK });
			assert.deepEqual(world.datapath.lessons().egress, { not_established: 1 });
		}));

	test("refuse a TCP connection that is closing", () =>
		inWorld({}, (world) => {
			tool("conntrack", "-I", "-p", "tcp", "-s", POD, "-d", REMOTE, "--sport", "40002", "--dport", "80",
				"--timeout", "60", "--status", "SEEN_REPLY,ASSURED", "--state", "FIN_WAIT"); // biome-ignore format: one command
			const packet = ipv4(
				{ source: POD, destination: REMOTE, protocol: 6, ttl: 63 },
				tcp({ source: 40002, destination: 80 }),
			);
			world.run("egress_init", outbound(packet), { mark: MARK });
			assert.deepEqual(world.datapath.lessons().egress, { not_established: 1 });
		}));

	test("refuse what they could not replay", () =>
		inWorld({}, (world) => {
			track("udp");
			const packet = inner("udp", "egress", { ttl: 63 });
			for (const unfit of [
				outbound(packet, { udpChecksum: 1 }),
				outbound(packet, { innerSource: MAC.pod }),
				outbound(packet, { innerDestination: "ff:ff:ff:ff:ff:ff" }),
				outbound(inner("udp", "egress", { fragment: 0x2000 })),
			])
				world.run("egress_init", unfit, { mark: MARK });
			assert.deepEqual(world.datapath.lessons().egress, { unfit: 4 });
		}));

	test("learn no pod from a frame that its bridge has flooded: only the address that the pod sends from is its own", () =>
		inWorld({}, (world) => {
			track("udp");
			const frame = (destination: string) =>
				ethernet({ source: MAC.gateway, destination }, inner("udp", "ingress", { ttl: 62 }));
			const arrives = (destination: string) => world.run("ingress_init", frame(destination), { mark: MARK });
			const moved = "0a:58:00:00:00:07";
			arrives(moved);
			assert.deepEqual(world.datapath.pods(), []);
			assert.deepEqual(world.datapath.lessons().ingress, { unfit: 1 });
			world.run("egress", fromPod(inner("udp", "egress"), { source: moved }));
			world.datapath.setVeths(world.datapath.veths()); // what is noted stays
			arrives(MAC.pod);
			assert.deepEqual(world.datapath.lessons().ingress, { unfit: 2 });
			arrives(moved);
			assert.deepEqual(world.datapath.lessons().ingress, { unfit: 2, learned: 1 });
			assert.deepEqual(
				world.datapath.pods().map(({ mac }) => mac),
				[moved],
			);
			// The place is shared with veths whose index ends alike.
			world.datapath.noteSender(world.pod0 + SENDERS, moved as MacAddress);
			arrives(moved);
			assert.deepEqual(world.datapath.lessons().ingress, { unfit: 3, learned: 1 });
		}));

	test("learn nothing on a veth that the agent does not know", () =>
		inWorld({}, (world) => {
			track("udp");
			world.datapath.setVeths([]);
			world.run("ingress_init", toPod(inner("udp", "ingress")), { mark: MARK });
			assert.deepEqual(world.datapath.lessons().ingress, { device: 1 });
		}));

	test("learn nothing while learning is paused", () =>
		inWorld({}, (world) => {
			world.datapath.learning = false;
			world.teach("udp");
			assert.deepEqual(world.datapath.lessons(), { egress: { paused: 1 }, ingress: { paused: 1 } });
			assert.equal(world.run("egress", fromPod(inner("udp", "egress"))).mark, 0, "and nothing is marked");
		}));

	test("learn from a SYN-ACK, so that the first data of a connection is fast", () =>
		inWorld({}, (world) => {
			tool("conntrack", "-I", "-p", "tcp", "-s", POD, "-d", REMOTE, "--sport", "40003", "--dport", "80",
				"--timeout", "60", "--status", "SEEN_REPLY", "--state", "SYN_RECV"); // biome-ignore format: one command
			const synAck = ipv4(
				{ source: REMOTE, destination: POD, protocol: 6, ttl: 62 },
				tcp({ source: 80, destination: 40003, flags: 0x12 }),
			);
			const ack = ipv4(
				{ source: POD, destination: REMOTE, protocol: 6, ttl: 63 },
				tcp({ source: 40003, destination: 80 }),
			);
			world.run("ingress_init", toPod(synAck), { mark: MARK });
			world.run("egress_init", outbound(ack), { mark: MARK });
			const data = ipv4(
				{ source: POD, destination: REMOTE, protocol: 6 },
				tcp({ source: 40003, destination: 80 }, "GET /"),
			);
			assert.equal(world.run("egress", fromPod(data)).verdict, REDIRECT);
		}));

	test("key ICMP echo by who asks", () =>
		inWorld({}, (world) => {
			world.teach("icmp");
			assert.equal(world.run("egress", fromPod(inner("icmp", "egress"))).verdict, REDIRECT);
			const theirs = ipv4({ source: POD, destination: REMOTE, protocol: 1 }, icmp(0, 0, 777));
			assert.equal(
				world.run("egress", fromPod(theirs)).verdict,
				NEXT,
				"an answer to a request of theirs is another flow",
			);
		}));
});

describe("one direction alone", () => {
	test("is not used: the reverse check", () =>
		inWorld({}, (world) => {
			track("udp");
			world.run("egress_init", outbound(inner("udp", "egress", { ttl: 63 })), { mark: MARK });
			assert.equal(warmEgress(world), NEXT);
			assert.equal(world.datapath.counters().packets.egress.fallback.reverse, 1);
			const again = world.run("egress", fromPod(inner("udp", "egress")));
			assert.equal(again.mark & MARK, 0, "just confirmed: nothing to ask about");
			world.run("ingress_init", toPod(inner("udp", "ingress", { ttl: 62 })), { mark: MARK });
			assert.equal(warmEgress(world), REDIRECT);
		}));
});

describe("a declined flow", () => {
	test("is asked about a few times, then left in peace for a while", () =>
		inWorld({}, (world) => {
			const packet = ipv4({ source: POD, destination: REMOTE, protocol: 17 }, udp({ source: 9, destination: 9 }));
			const marks = Array.from({ length: 8 }, () => {
				const { mark } = world.run("egress", fromPod(packet));
				if (mark) world.run("egress_init", outbound(packet), { mark });
				return mark;
			});
			assert.deepEqual(marks, [MARK, MARK, MARK, MARK, 0, 0, 0, 0]);
			assert.equal(world.datapath.counters().packets.egress.fallback.backoff, 4);
		}));
});

describe("staleness", () => {
	test("half-way a packet is sent to confirm, one per retry interval; at the bound nothing is used", () =>
		inWorld({ maxStalenessMs: patiently(400) }, async (world) => {
			world.teach("udp");
			assert.equal(warmEgress(world), REDIRECT);
			await setTimeout(patiently(220)); // what is tested is the passing of time
			const sample = world.run("egress", fromPod(inner("udp", "egress")));
			assert.deepEqual([sample.verdict, sample.mark], [NEXT, MARK]);
			const more = countSamples(() => warmEgress(world) === NEXT);
			await setTimeout(patiently(220));
			assert.equal(warmEgress(world), NEXT);
			const { fallback } = world.datapath.counters().packets.egress;
			assert.deepEqual([fallback.sample, fallback.stale], [1 + more, 1]);
			world.teach("udp");
			assert.equal(warmEgress(world), REDIRECT, "confirmed, it is fresh again");
		}));

	test("a quiet reverse direction does not end a one-way stream", () =>
		inWorld({ maxStalenessMs: patiently(200) }, async (world) => {
			world.teach("udp");
			await setTimeout(patiently(230));
			world.run("egress_init", outbound(inner("udp", "egress", { ttl: 63 })), { mark: MARK });
			assert.equal(warmEgress(world), REDIRECT);
			assert.equal(warmIngress(world), NEXT, "but the stale one is not used");
		}));
});

describe("eviction", () => {
	const cases: [string, (world: World) => void][] = [
		["everything", (world) => world.datapath.flushAll()],
		["a pod", (world) => void assert.equal(world.datapath.flushPod(parseIpv4(POD)), 1)],
		["a host", (world) => void assert.equal(world.datapath.flushHost(parseIpv4(REMOTE_HOST)), 1)],
		["a veth", (world) => void assert.equal(world.datapath.flushVeth(world.pod0), 1)],
		["a tunnel device", (world) => void assert.equal(world.datapath.flushTunnel(world.flannel), 1)],
	];
	for (const [what, evict] of cases)
		test(`of ${what} ends both directions at once, and packets under way do not bring it back`, (t) =>
			inWorld({}, async (world) => {
				world.teach("udp");
				assert.deepEqual([warmEgress(world), warmIngress(world)], [REDIRECT, REDIRECT]);
				evict(world);
				assert.deepEqual([warmEgress(world), warmIngress(world)], [NEXT, NEXT]);
				const isFastEnough = await teachTooEarly(
					() => world.teach("udp"),
					() => evict(world),
				);
				if (!isFastEnough) return t.skip("this machine is too slow to learn within the guard time");
				assert.deepEqual(
					[warmEgress(world), warmIngress(world)],
					[NEXT, NEXT],
					"within the guard time nothing is learned",
				);
				assert.equal(
					(await flowsOf(world)).filter(
						({ egress, ingress }) => egress.state === "usable" && ingress.state === "usable",
					).length,
					0,
				);
				await guardTime();
				world.teach("udp");
				assert.deepEqual([warmEgress(world), warmIngress(world)], [REDIRECT, REDIRECT]);
			}));

	test("of everything is not undone for one direction by confirming the other", () =>
		inWorld({}, async (world) => {
			world.teach("udp");
			world.datapath.flushAll();
			await guardTime();
			world.run("ingress_init", toPod(inner("udp", "ingress", { ttl: 62 })), { mark: MARK });
			assert.deepEqual([warmEgress(world), warmIngress(world)], [NEXT, NEXT]);
			assert.equal(world.datapath.counters().packets.egress.fallback.flow_miss, 1);
		}));

	for (const flags of [0x02, 0x11, 0x14])
		test(`a TCP packet with flags 0x${flags.toString(16)} ends its flow`, () =>
			inWorld({}, async (world) => {
				world.teach("tcp");
				const last = ipv4(
					{ source: POD, destination: REMOTE, protocol: 6 },
					tcp({ source: LOCAL_PORT, destination: REMOTE_PORT, flags }),
				);
				world.run("egress", fromPod(last));
				assert.deepEqual(await flowsOf(world), []);
			}));

	test("a host that moved takes another slot, and the old header is never used again", () =>
		inWorld({}, (world) => {
			world.teach("udp");
			const moved = outbound(inner("udp", "egress", { ttl: 63 }), { innerDestination: "0a:20:00:00:00:09" });
			world.run("egress_init", moved, { mark: MARK });
			const { packet } = world.run("egress", fromPod(inner("udp", "egress")));
			assert.equal(packet.subarray(50, 56).toString("hex"), "0a2000000009");
			assert.equal(world.datapath.hosts().length, 1);
		}));
});

describe("full caches", () => {
	test("hosts and pods without a slot stay on the fallback", () =>
		inWorld({}, (world) => {
			track("icmp");
			for (let host = 1; host <= 200; host++) {
				const packet = ipv4({ source: POD, destination: `10.244.2.${host}`, protocol: 1, ttl: 63 }, icmp(8, 0, host));
				world.run("egress_init", outbound(packet, { ip: { destination: `192.168.78.${host}` } }), { mark: MARK });
			}
			const { full = 0, learned = 0 } = world.datapath.lessons().egress;
			assert.equal(full + learned, 200);
			assert.equal(world.datapath.hosts().length, learned);
			assert.ok(learned > 32 && learned <= 64, `${learned} of 64 slots are used`);
		}));
});
