// Everything that must take the fallback: untouched, counted once under its reason, and marked only when the fallback
// is asked to teach.
import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { control } from "../../src/datapath/layout.js";
import type { TestContext } from "../../src/datapath/testrun.js";
import { at, ethernet, icmp, ipv4, tcp, udp } from "./packet.js";
import {
	enterNetns, fromPod, inbound, inner, LOCAL_PORT, MAC, MARK, NEXT, type OuterOptions, openWorld, POD, REMOTE, REMOTE_PORT, type World,
} from "./world.js"; // biome-ignore format: a list

enterNetns();

const out = { source: POD, destination: REMOTE };
const ports = { source: LOCAL_PORT, destination: REMOTE_PORT };
const back = { source: REMOTE, destination: POD };
const backPorts = { source: REMOTE_PORT, destination: LOCAL_PORT };

interface Case {
	name: string;
	packet: Buffer;
	reason: string | undefined;
	isMarked?: boolean;
	context?: TestContext;
}

const [FIN, SYN, RST, PSH, ACK, URG] = [1, 2, 4, 8, 16, 32];

const flagCases: Case[] = [SYN, SYN | ACK, FIN | ACK, RST, RST | ACK, 0, PSH, URG, FIN | SYN | RST | ACK].map(
	(flags) => ({
		name: `TCP flags 0x${flags.toString(16)}`,
		packet: fromPod(ipv4({ ...out, protocol: 6 }, tcp({ ...ports, flags }))),
		reason: "tcp_flags",
		// The one that opens a connection from the other side may teach.
		isMarked: flags === (SYN | ACK),
	}),
);

const EGRESS: Case[] = [
	{ name: "ARP", packet: ethernet({ source: MAC.pod, destination: "ff:ff:ff:ff:ff:ff", type: 0x0806 }, Buffer.alloc(46)), reason: "not_ipv4" },
	{ name: "what only says that it is IPv6", packet: ethernet({ source: MAC.pod, destination: MAC.gateway, type: 0x86dd }, Buffer.alloc(60)), reason: "not_ipv4" },
	{ name: "a VLAN tag in the frame", packet: ethernet({ source: MAC.pod, destination: MAC.gateway, type: 0x8100 }, Buffer.concat([Buffer.from([0, 5, 8, 0]), inner("udp", "egress")])), reason: "vlan" },
	{ name: "IP version 5", packet: at(fromPod(inner("udp", "egress")), 14, 0x55), reason: "not_ipv4" },
	{ name: "IP options", packet: fromPod(inner("udp", "egress", { options: Buffer.from([1, 1, 1, 0]) })), reason: "ip_options" },
	{ name: "an IP header shorter than 20 bytes", packet: at(fromPod(inner("udp", "egress")), 14, 0x44), reason: "ip_options" },
	{ name: "a first fragment", packet: fromPod(inner("udp", "egress", { fragment: 0x2000 })), reason: "fragment" },
	{ name: "a later fragment", packet: fromPod(inner("udp", "egress", { fragment: 0x00b9 })), reason: "fragment" },
	{ name: "a wrong IP checksum", packet: fromPod(inner("udp", "egress", { checksumError: 1 })), reason: "checksum" },
	{ name: "TTL 1", packet: fromPod(inner("udp", "egress", { ttl: 1 })), reason: "ttl" },
	{ name: "TTL 0", packet: fromPod(inner("udp", "egress", { ttl: 0 })), reason: "ttl" },
	{ name: "SCTP", packet: fromPod(inner("udp", "egress", { protocol: 132 })), reason: "protocol" },
	{ name: "GRE", packet: fromPod(inner("udp", "egress", { protocol: 47 })), reason: "protocol" },
	{ name: "ESP", packet: fromPod(inner("udp", "egress", { protocol: 50 })), reason: "protocol" },
	{ name: "IPIP", packet: fromPod(inner("udp", "egress", { protocol: 4 })), reason: "protocol" },
	{ name: "an ICMP error", packet: fromPod(ipv4({ ...out, protocol: 1 }, icmp(3, 4, 0, "x".repeat(28)))), reason: "protocol" },
	{ name: "an ICMP echo with a code", packet: fromPod(ipv4({ ...out, protocol: 1 }, icmp(8, 1, 777))), reason: "protocol" },
	...flagCases,
	{ name: "a total length beyond the frame", packet: fromPod(inner("udp", "egress", { totalLength: 500 })), reason: "truncated" },
	{ name: "bytes after the packet", packet: Buffer.concat([fromPod(inner("udp", "egress")), Buffer.alloc(9)]), reason: "truncated" },
	{ name: "a UDP length that lies", packet: fromPod(ipv4({ ...out, protocol: 17 }, udp({ ...ports, length: 99 }, "hello"))), reason: "truncated" },
	{ name: "a TCP header longer than the packet", packet: fromPod(ipv4({ ...out, protocol: 6 }, tcp({ ...ports, offset: 15 }))), reason: "truncated" },
	{ name: "a TCP header shorter than 20 bytes", packet: fromPod(ipv4({ ...out, protocol: 6 }, tcp({ ...ports, offset: 4 }))), reason: "truncated" },
	{ name: "half a TCP header", packet: fromPod(ipv4({ ...out, protocol: 6 }, tcp(ports).subarray(0, 10))), reason: "truncated" },
	{ name: "an IP header only", packet: fromPod(ipv4({ ...out, protocol: 17 }, Buffer.alloc(0))), reason: "truncated" },
	{ name: "a packet larger than the tunnel's MTU", packet: fromPod(inner("udp", "egress", {}, "z".repeat(1423))), reason: "mtu" },
	{ name: "a GSO packet whose segments are larger than the MTU", packet: fromPod(inner("tcp", "egress", {}, "z".repeat(3000))), reason: "mtu", context: { gsoSize: 1411, gsoSegs: 3 } },
	{ name: "a GSO type that cannot be encapsulated", packet: fromPod(inner("udp", "egress", {}, "z".repeat(3000))), reason: "refused", context: { gsoSize: 1000, gsoSegs: 3 } },
	{ name: "an unknown flow", packet: fromPod(ipv4({ ...out, protocol: 17 }, udp({ ...ports, source: 5 }))), reason: "flow_miss", isMarked: true },
	{ name: "another pod's MAC address", packet: fromPod(inner("udp", "egress"), { source: "0a:58:00:00:00:99" }), reason: "mac", isMarked: true },
]; // biome-ignore format: a table

const cracked = (options: OuterOptions): Buffer => inbound(inner("udp", "ingress"), options);

const INGRESS: Case[] = [
	{ name: "the host's own TCP", packet: ethernet({ source: MAC.remoteUplink, destination: MAC.uplink }, inner("tcp", "ingress")), reason: undefined },
	{ name: "UDP to another port", packet: cracked({ destinationPort: 4789 }), reason: undefined },
	{ name: "ARP", packet: ethernet({ source: MAC.remoteUplink, destination: "ff:ff:ff:ff:ff:ff", type: 0x0806 }, Buffer.alloc(80)), reason: undefined },
	{ name: "an unknown VNI", packet: cracked({ vni: 43 }), reason: "vni" },
	{ name: "a VXLAN flag besides the VNI's", packet: cracked({ flags: 0x88 }), reason: "outer" },
	{ name: "no VNI flag", packet: cracked({ flags: 0 }), reason: "outer" },
	{ name: "an outer UDP checksum", packet: cracked({ udpChecksum: 0x1234 }), reason: "outer" },
	{ name: "an outer header of another IP version", packet: cracked({ ip: { version: 5 } }), reason: "outer" },
	{ name: "an outer fragment", packet: cracked({ ip: { fragment: 0x2000 } }), reason: "outer" },
	{ name: "outer IP options", packet: cracked({ ip: { options: Buffer.from([1, 1, 1, 0]) } }), reason: undefined },
	{ name: "a wrong outer checksum", packet: cracked({ ip: { checksumError: 1 } }), reason: "checksum" },
	{ name: "an outer length that lies", packet: cracked({ ip: { totalLength: 60 } }), reason: "truncated" },
	{ name: "another outer source", packet: cracked({ ip: { source: "192.168.77.3" } }), reason: "peer", isMarked: true },
	{ name: "another outer destination", packet: cracked({ ip: { destination: "192.168.77.9" } }), reason: "peer", isMarked: true },
	{ name: "another MAC address of the host", packet: cracked({ destinationMac: "0a:10:00:00:00:77" }), reason: "peer", isMarked: true },
	{ name: "another inner destination MAC address", packet: cracked({ innerDestination: "0a:20:00:00:00:77" }), reason: "mac", isMarked: true },
	{ name: "another inner source MAC address", packet: cracked({ innerSource: "0a:20:00:00:00:77" }), reason: "mac", isMarked: true },
	{ name: "an inner fragment", packet: inbound(inner("udp", "ingress", { fragment: 0x2000 })), reason: "fragment" },
	{ name: "inner TTL 1", packet: inbound(inner("udp", "ingress", { ttl: 1 })), reason: "ttl" },
	{ name: "a wrong inner checksum", packet: inbound(inner("udp", "ingress", { checksumError: 1 })), reason: "checksum" },
	{ name: "an inner SYN", packet: inbound(ipv4({ ...back, protocol: 6 }, tcp({ ...backPorts, flags: SYN }))), reason: "tcp_flags" },
	{ name: "an inner ICMP error", packet: inbound(ipv4({ ...back, protocol: 1 }, icmp(3, 4, 0, "x".repeat(28)))), reason: "protocol" },
	{ name: "an inner ARP packet", packet: at(cracked({}), 62, 0x08, 0x06), reason: "not_ipv4" },
	{ name: "an unknown flow", packet: inbound(ipv4({ ...back, protocol: 17 }, udp({ ...backPorts, source: 5 }))), reason: "flow_miss", isMarked: true },
	{ name: "a packet larger than the pod's MTU", packet: inbound(inner("udp", "ingress", {}, "z".repeat(1423))), reason: "mtu" },
]; // biome-ignore format: a table

for (const [program, cases] of [["egress", EGRESS], ["ingress", INGRESS]] as const) // biome-ignore format: a pair
	describe(`${program} leaves to the fallback`, () => {
		let world: World;
		before(() => {
			world = openWorld();
		});
		after(() => world.close());

		for (const { name, packet, reason, isMarked = false, context = {} } of cases)
			test(`${name} (${reason ?? "not counted"})`, () => {
				world.datapath.flushAll();
				world.datapath.maps.control.view.setBigUint64(control.offset.learnAfter, 0n, true); // no guard time
				for (const l4 of ["tcp", "udp", "icmp"] as const) world.teach(l4);
				const total = (): Record<string, number> => ({ ...world.datapath.counters().packets[program].fallback });
				const earlier = total();
				const result = world.run(program, packet, context);
				const now = total();
				assert.equal(result.verdict, NEXT);
				assert.equal(result.packet.toString("hex"), packet.toString("hex"), "the packet is as it was");
				const counted = Object.keys(now).filter((key) => now[key] !== earlier[key]);
				assert.deepEqual(counted, reason === undefined ? [] : [reason]);
				if (reason) assert.equal((now[reason] ?? 0) - (earlier[reason] ?? 0), 1);
				assert.equal(result.mark, isMarked ? MARK : 0);
			});
	});

test("every truncation of a warm packet is left alone", () => {
	const world = openWorld();
	for (const l4 of ["tcp", "udp", "icmp"] as const) {
		world.teach(l4);
		// The kernel takes no shorter IPv4 packet for a test run.
		for (const [program, packet] of [
			["egress", fromPod(inner(l4, "egress"))],
			["ingress", inbound(inner(l4, "ingress"))],
		] as const)
			for (let length = 34; length < packet.length; length++) {
				const cut = packet.subarray(0, length);
				const { verdict, packet: after } = world.run(program, cut);
				assert.equal(verdict, NEXT, `${l4} ${program}, ${length} bytes`);
				assert.ok(after.equals(cut));
			}
	}
	world.close();
});

test("nothing is used or marked while using is paused", () => {
	const world = openWorld();
	world.teach("udp");
	world.datapath.using = false;
	const result = world.run("egress", fromPod(inner("udp", "egress")));
	assert.deepEqual([result.verdict, result.mark], [NEXT, 0]);
	assert.equal(world.datapath.counters().packets.egress.fallback.paused, 1);
	world.datapath.using = true;
	assert.equal(world.run("egress", fromPod(inner("udp", "egress"))).verdict, 7);
	world.close();
});
