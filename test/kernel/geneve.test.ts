// Geneve (RFC 8926): replayed as VXLAN is when its header has no options; what has any is the fallback's.
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { checksum } from "./packet.js";
import {
	enterNetns, fromPod, inbound, inner, type L4, MARK, NEXT, openWorld, outbound, REDIRECT, toPod, track, type World,
} from "./world.js"; // biome-ignore format: a list

const PORT = 6081;
const HEADER = 42;
const ETHERNET_BRIDGED = 0x6558;
const OPTION = Buffer.from("0102010100000000", "hex");

enterNetns();

function inWorld(use: (world: World) => void): () => void {
	return () => {
		const world = openWorld({ tunnel: { kind: "geneve", port: PORT } });
		try {
			use(world);
		} finally {
			world.close();
		}
	};
}

/** The frame's VXLAN header becomes a Geneve one. */
function geneve(frame: Buffer, changes: { options?: Buffer; flags?: number; version?: number } = {}): Buffer {
	const { options = Buffer.alloc(0), flags = 0, version = 0 } = changes;
	const head = Buffer.from(frame.subarray(0, HEADER + 8));
	head.writeUInt8((version << 6) | (options.length / 4), HEADER);
	head.writeUInt8(flags, HEADER + 1);
	head.writeUInt16BE(ETHERNET_BRIDGED, HEADER + 2);
	for (const at of [16, 38]) head.writeUInt16BE(head.readUInt16BE(at) + options.length, at);
	head.writeUInt16BE(0, 24);
	head.writeUInt16BE(checksum(head.subarray(14, 34)), 24);
	return Buffer.concat([head, options, frame.subarray(HEADER + 8)]);
}

const out = (l4: L4, ttl: number) => outbound(inner(l4, "egress", { ttl }), { destinationPort: PORT });
const arriving = (l4: L4) => inbound(inner(l4, "ingress"), { destinationPort: PORT });

function teach(world: World, l4: L4, options?: Buffer): void {
	track(l4);
	world.run("egress_init", geneve(out(l4, 63), { ...(options && { options }) }), { mark: MARK });
	world.run("ingress_init", toPod(inner(l4, "ingress", { ttl: 62 })), { mark: MARK });
}

describe("Geneve", () => {
	for (const l4 of ["tcp", "udp", "icmp"] as const)
		test(
			`${l4}: goes out as the fallback would send it, and comes in as it would deliver it`,
			inWorld((world) => {
				teach(world, l4);
				const sent = world.run("egress", fromPod(inner(l4, "egress")));
				assert.equal(sent.verdict, REDIRECT);
				const expected = geneve(out(l4, 63));
				for (const frame of [sent.packet, expected]) frame.fill(0, 18, 20).fill(0, 24, 26);
				assert.deepEqual(sent.packet, expected);
				const delivered = world.run("ingress", geneve(arriving(l4)));
				assert.equal(delivered.verdict, REDIRECT);
				assert.deepEqual(delivered.packet, toPod(inner(l4, "ingress", { ttl: 63 })));
			}),
		);

	test(
		"with options it teaches nothing",
		inWorld((world) => {
			teach(world, "udp", OPTION);
			assert.deepEqual(world.datapath.lessons().egress, { unfit: 1 });
			assert.equal(world.run("egress", fromPod(inner("udp", "egress"))).verdict, NEXT);
		}),
	);

	for (const [what, changes] of [
		["options", { options: OPTION }],
		["a critical option", { options: OPTION, flags: 0x40 }],
		["a control message", { flags: 0x80 }],
		["another version", { version: 1 }],
	] as const)
		test(
			`${what}: the fallback takes it, on a warm flow too`,
			inWorld((world) => {
				teach(world, "udp");
				assert.equal(world.run("ingress", geneve(arriving("udp"))).verdict, REDIRECT);
				const { verdict, packet } = world.run("ingress", geneve(arriving("udp"), changes));
				assert.equal(verdict, NEXT);
				assert.deepEqual(packet, geneve(arriving("udp"), changes));
			}),
		);
});
