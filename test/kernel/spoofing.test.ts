// Promise 6: no one borrows a flow; and dscp mode: forged marks teach nothing, and nothing leaks.
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { parseIpv4 } from "../../src/net/ipv4.js";
import { checksum } from "./packet.js";
import {
	enterNetns, fromPod, inbound, inner, MARK, NEXT, openWorld, outbound, REDIRECT, REMOTE_HOST, tool, toPod, track, type World,
} from "./world.js"; // biome-ignore format: a list

enterNetns();
tool("ip", "link", "add", "pod1", "type", "veth", "peer", "name", "eth1");
tool("ip", "link", "add", "up1", "type", "veth", "peer", "name", "wire1");
const ifindexOf = (name: string): number => Number(JSON.parse(tool("ip", "-j", "link", "show", name))[0].ifindex);
const pod1 = ifindexOf("pod1");
const up1 = ifindexOf("up1");

const TOS_MISS = 0x04;
const TOS_BOTH = 0x0c;

function inWorld(options: Parameters<typeof openWorld>[0], use: (world: World) => void): void {
	const world = openWorld(options);
	try {
		use(world);
	} finally {
		world.close();
	}
}

test("a pod with a neighbour's address and ports gets the fallback's answer", () =>
	inWorld({}, (world) => {
		world.teach("tcp");
		const { verdict } = world.run("egress", fromPod(inner("tcp", "egress")), { ifindex: pod1 });
		assert.equal(verdict, NEXT);
		assert.equal(world.datapath.counters().packets.egress.fallback.veth, 1);
	}));

test("a host that is not the flow's gets the fallback's answer", () =>
	inWorld({}, (world) => {
		world.teach("tcp");
		const packet = inbound(inner("tcp", "ingress"), { ip: { source: "192.168.77.66" } });
		assert.equal(world.run("ingress", packet).verdict, NEXT);
		assert.equal(world.datapath.counters().packets.ingress.fallback.peer, 1);
	}));

test("a packet on another uplink is not even taken for the tunnel's", () =>
	inWorld({}, (world) => {
		world.teach("tcp");
		assert.equal(world.run("ingress", inbound(inner("tcp", "ingress")), { ifindex: up1 }).verdict, NEXT);
		assert.deepEqual(world.datapath.counters().packets.ingress, { fast: 0, fallback: {} });
	}));

describe("dscp mode", () => {
	const dscp = { markMode: "dscp" } as const;
	const tosOf = (packet: Buffer, at: number): number => packet[at + 1] ?? -1;
	const isRight = (packet: Buffer, at: number): boolean => checksum(packet.subarray(at, at + 20)) === 0;
	/** As the fallback's rule does for an established packet. */
	const establish = (tos: number): number => tos | 0x08;

	/** The four steps with the fallback between them played by the test. */
	function learn(world: World, tos = 0): void {
		const out = world.run("egress", fromPod(inner("udp", "egress", { tos }))).packet;
		world.run("egress_init", outbound(inner("udp", "egress", { ttl: 63, tos: establish(tosOf(out, 14)) })));
		const back = world.run("ingress", inbound(inner("udp", "ingress", { tos }))).packet;
		world.run("ingress_init", toPod(inner("udp", "ingress", { ttl: 62, tos: establish(tosOf(back, 64)) })));
	}

	test("marks in the inner DSCP, learns what comes back established, and the flow is fast", () =>
		inWorld(dscp, (world) => {
			const asked = world.run("egress", fromPod(inner("udp", "egress", { tos: 0x20 })));
			assert.deepEqual([asked.verdict, tosOf(asked.packet, 14), asked.mark], [NEXT, 0x20 | TOS_MISS, 0]);
			assert.ok(isRight(asked.packet, 14));
			learn(world, 0x20);
			assert.deepEqual(world.datapath.lessons(), { egress: { learned: 1 }, ingress: { learned: 1 } });
			const { verdict, packet } = world.run("egress", fromPod(inner("udp", "egress", { tos: 0x20 })));
			assert.deepEqual([verdict, tosOf(packet, 64)], [REDIRECT, 0x20]);
			assert.equal(world.run("ingress", inbound(inner("udp", "ingress"))).verdict, REDIRECT);
		}));

	test("takes the marks off before the wire, established or not", () =>
		inWorld(dscp, (world) => {
			for (const tos of [TOS_MISS, TOS_BOTH]) {
				world.run("egress", fromPod(inner("udp", "egress", { tos: 0x20 })));
				const { packet } = world.run("egress_init", outbound(inner("udp", "egress", { ttl: 63, tos: 0x20 | tos })));
				assert.equal(packet.toString("hex"), outbound(inner("udp", "egress", { ttl: 63, tos: 0x20 })).toString("hex"));
			}
			assert.deepEqual(world.datapath.lessons().egress, { not_established: 1, learned: 1 });
		}));

	test("takes the marks off before the pod", () =>
		inWorld(dscp, (world) => {
			learn(world);
			world.datapath.flushPod(parseIpv4("10.244.1.2"));
			const asked = world.run("ingress", inbound(inner("udp", "ingress")));
			assert.equal(tosOf(asked.packet, 64), TOS_MISS);
			const { packet } = world.run("ingress_init", toPod(inner("udp", "ingress", { ttl: 62, tos: TOS_BOTH })));
			assert.equal(packet.toString("hex"), toPod(inner("udp", "ingress", { ttl: 62 })).toString("hex"));
		}));

	for (const forged of [TOS_MISS, 0x08, TOS_BOTH])
		test(`a pod's own 0x${forged.toString(16)} teaches nothing and arrives as it was sent`, () =>
			inWorld(dscp, (world) => {
				const sent = fromPod(inner("udp", "egress", { tos: forged }));
				const passed = world.run("egress", sent);
				assert.ok(passed.packet.equals(sent));
				// The fallback's rule cannot tell whose bit it is.
				const tos = forged === TOS_MISS ? TOS_BOTH : forged;
				const { packet } = world.run("egress_init", outbound(inner("udp", "egress", { ttl: 63, tos })));
				assert.equal(
					packet.toString("hex"),
					outbound(inner("udp", "egress", { ttl: 63, tos: forged })).toString("hex"),
				);
				assert.equal(world.datapath.hosts().length, 0);
				assert.equal(world.datapath.lessons().egress.learned, undefined);
			}));

	test("marks that nobody has set teach nothing", () =>
		inWorld(dscp, (world) => {
			track("udp");
			world.run("egress_init", outbound(inner("udp", "egress", { ttl: 63, tos: TOS_BOTH })));
			world.run("ingress_init", toPod(inner("udp", "ingress", { ttl: 62, tos: TOS_BOTH })));
			assert.deepEqual(world.datapath.lessons(), { egress: { forged: 1 }, ingress: { forged: 1 } });
			assert.equal(world.datapath.hosts().length + world.datapath.pods().length, 0);
		}));

	test("marks on the wire teach nothing", () =>
		inWorld(dscp, (world) => {
			learn(world);
			world.datapath.flushHost(parseIpv4(REMOTE_HOST));
			const sent = inbound(inner("udp", "ingress", { tos: TOS_BOTH }));
			assert.ok(world.run("ingress", sent).packet.equals(sent));
			const before = world.datapath.lessons().ingress;
			world.run("ingress_init", toPod(inner("udp", "ingress", { ttl: 62, tos: TOS_BOTH })));
			assert.deepEqual(world.datapath.lessons().ingress, { ...before, forged: 1 });
		}));

	test("nothing is marked that does not go into the tunnel as it stands", () =>
		inWorld(dscp, (world) => {
			for (const header of [{ destination: "10.96.0.1" }, { destination: "10.244.1.3" }]) {
				const sent = fromPod(inner("udp", "egress", header));
				assert.ok(world.run("egress", sent).packet.equals(sent));
			}
			const large = fromPod(inner("udp", "egress", { fragment: 0 }, "z".repeat(1430)));
			assert.ok(world.run("egress", large).packet.equals(large), "what would be fragmented");
		}));

	test("the metadata mark means nothing", () =>
		inWorld(dscp, (world) => {
			track("udp");
			world.run("egress_init", outbound(inner("udp", "egress", { ttl: 63 })), { mark: MARK });
			assert.deepEqual(world.datapath.lessons().egress, {});
		}));
});
