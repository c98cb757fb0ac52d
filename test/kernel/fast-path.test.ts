// Hits: the exact bytes that leave the host and reach the pod.
import assert from "node:assert/strict";
import { after, describe, test } from "node:test";
import { checksum } from "./packet.js";
import {
	enterNetns, fromPod, inbound, inner, type L4, MAC, NEXT, OUTER_PORT, openWorld, outbound, POD, REDIRECT, toPod, type World,
} from "./world.js"; // biome-ignore format: a list

enterNetns();

const ID = 18;
const CHECKSUM = 24;

/** The outer IPv4 ID is any number, and the checksum follows it; the rest must be equal. */
function withoutId(packet: Buffer): Buffer {
	const copy = Buffer.from(packet);
	copy.fill(0, ID, ID + 2);
	copy.fill(0, CHECKSUM, CHECKSUM + 2);
	return copy;
}

describe("a flow that both init programs have seen", () => {
	for (const l4 of ["tcp", "udp", "icmp"] satisfies L4[]) {
		test(`${l4}: egress sends what the fallback would have sent`, () => {
			const world = openWorld();
			world.teach(l4);
			const result = world.run("egress", fromPod(inner(l4, "egress")));
			assert.equal(result.verdict, REDIRECT);
			const expected = outbound(inner(l4, "egress", { ttl: 63 }));
			assert.equal(withoutId(result.packet).toString("hex"), withoutId(expected).toString("hex"));
			assert.equal(checksum(result.packet.subarray(14, 34)), 0, "the outer IPv4 checksum is right");
			assert.equal(world.datapath.counters().packets.egress.fast, 1);
			world.close();
		});

		test(`${l4}: ingress delivers what the fallback would have delivered`, () => {
			const world = openWorld();
			world.teach(l4);
			const result = world.run("ingress", inbound(inner(l4, "ingress")));
			assert.equal(result.verdict, REDIRECT);
			assert.equal(result.packet.toString("hex"), toPod(inner(l4, "ingress", { ttl: 63 })).toString("hex"));
			assert.equal(world.datapath.counters().packets.ingress.fast, 1);
			world.close();
		});
	}
});

describe("the outer header", () => {
	let world: World;
	after(() => world.close());

	test("has a new ID for every packet", () => {
		world = openWorld();
		world.teach("udp");
		const ids = Array.from({ length: 100 }, () =>
			world.run("egress", fromPod(inner("udp", "egress"))).packet.readUInt16BE(ID),
		);
		assert.equal(new Set(ids).size, 100);
	});

	test("keeps the source port that the fallback chose for the flow", () => {
		const { packet } = world.run("egress", fromPod(inner("udp", "egress")));
		assert.equal(packet.readUInt16BE(34), OUTER_PORT);
	});

	test("is as large as the packet needs", () => {
		const { packet } = world.run("egress", fromPod(inner("udp", "egress", {}, "y".repeat(1400))));
		assert.equal(packet.readUInt16BE(16), packet.length - 14);
		assert.equal(packet.readUInt16BE(38), packet.length - 34);
	});

	for (const [ecn, outer] of [[0, 0], [1, 1], [2, 2], [3, 2]] as const)
		test(`carries ECN ${ecn} of the pod as ${outer}, and its DSCP stays inside`, () => {
			const { packet } = world.run("egress", fromPod(inner("udp", "egress", { tos: 0xb8 | ecn })));
			assert.deepEqual([packet[15], packet[65]], [outer, 0xb8 | ecn]);
			assert.equal(checksum(packet.subarray(14, 34)), 0);
		}); // biome-ignore format: a table

	test("takes DSCP, TTL and DF from the pod's packet where the device does", () => {
		const inherits = openWorld({ tunnel: { tosInherit: true, ttlInherit: true, dfInherit: true } });
		inherits.teach("udp");
		const { packet } = inherits.run(
			"egress",
			fromPod(inner("udp", "egress", { tos: 0x28, ttl: 17, fragment: 0x4000 })),
		);
		assert.deepEqual([packet[15], packet[22], packet.readUInt16BE(20)], [0x28, 16, 0x4000]);
		assert.equal(checksum(packet.subarray(14, 34)), 0);
		const clear = inherits.run("egress", fromPod(inner("udp", "egress", { fragment: 0 }))).packet;
		assert.equal(clear.readUInt16BE(20), 0);
		inherits.close();
	});
});

describe("decapsulation", () => {
	let world: World;
	after(() => world.close());

	for (const [innerEcn, outerEcn, expected] of [
		[0, 0, 0], [1, 0, 1], [1, 1, 1], [1, 2, 1], [1, 3, 3], [2, 0, 2], [2, 1, 1], [2, 2, 2], [2, 3, 3], [3, 0, 3], [3, 1, 3], [3, 2, 3], [3, 3, 3],
	] as const) // biome-ignore format: RFC 6040, figure 4
		test(`inner ECN ${innerEcn} under outer ${outerEcn} arrives as ${expected} (RFC 6040)`, () => {
			world ??= openWorld();
			world.teach("udp");
			const packet = inbound(inner("udp", "ingress", { tos: 0x28 | innerEcn }), { ip: { tos: outerEcn } });
			const result = world.run("ingress", packet);
			assert.equal(result.verdict, REDIRECT);
			const delivered = toPod(inner("udp", "ingress", { tos: 0x28 | expected, ttl: 63 }));
			assert.equal(result.packet.toString("hex"), delivered.toString("hex"));
		});

	for (const outerEcn of [1, 2, 3])
		test(`outer ECN ${outerEcn} over an inner Not-ECT packet is the fallback's to judge`, () => {
			const result = world.run("ingress", inbound(inner("udp", "ingress"), { ip: { tos: outerEcn } }));
			assert.equal(result.verdict, NEXT);
		});
});

test("flows are counted one by one when that is configured", async () => {
	const world = openWorld({ countFlows: true });
	world.teach("udp");
	for (let i = 0; i < 3; i++) world.run("egress", fromPod(inner("udp", "egress")));
	world.run("ingress", inbound(inner("udp", "ingress")));
	const { flows } = await world.datapath.flows({ limit: 10 });
	assert.deepEqual(
		flows.map(({ local, packets, egress, ingress }) => [local.ip, packets, egress.state, ingress.state]),
		[[POD, { egress: 3, ingress: 1 }, "usable", "usable"]],
	);
	world.close();
});

test("the pod's frames are known by both MAC addresses", () => {
	const world = openWorld();
	world.teach("udp");
	assert.equal(world.run("egress", fromPod(inner("udp", "egress"), { source: MAC.gateway })).verdict, NEXT);
	assert.equal(world.run("egress", fromPod(inner("udp", "egress"), { destination: MAC.tunnel })).verdict, NEXT);
	assert.equal(world.datapath.counters().packets.egress.fallback.mac, 2);
	world.close();
});
