// Every IPv6 packet that must take the fallback: untouched, counted once under its reason, marked only to be learned from.
import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { control } from "../../src/datapath/layout.js";
import type { TestContext } from "../../src/datapath/testrun.js";
import { inner6, POD6, REMOTE6, teach6 } from "./ipv6.js";
import { at, ethernet, icmp, ipv6, tcp, udp } from "./packet.js";
import {
	enterNetns, fromPod, inbound, LOCAL_PORT, MAC, MARK, NEXT, type OuterOptions, openWorld, REMOTE_PORT, type World,
} from "./world.js"; // biome-ignore format: a list

enterNetns();

const out = { source: POD6, destination: REMOTE6 };
const ports = { source: LOCAL_PORT, destination: REMOTE_PORT };
const back = { source: REMOTE6, destination: POD6 };
const backPorts = { source: REMOTE_PORT, destination: LOCAL_PORT };

interface Case {
	name: string;
	packet: Buffer;
	reason: string;
	isMarked?: boolean;
	context?: TestContext;
}

const [FIN, SYN, RST, PSH, ACK, URG] = [1, 2, 4, 8, 16, 32];

const flagCases: Case[] = [SYN, SYN | ACK, FIN | ACK, RST, RST | ACK, 0, PSH, URG, FIN | SYN | RST | ACK].map(
	(flags) => ({
		name: `TCP flags 0x${flags.toString(16)}`,
		packet: fromPod(ipv6({ ...out, nextHeader: 6 }, tcp({ ...ports, flags }))),
		reason: "tcp_flags",
		isMarked: flags === (SYN | ACK),
	}),
);

/** Eight bytes with UDP behind them: next header, length in units of eight bytes less one. */
const extended = (nextHeader: number): Buffer =>
	fromPod(ipv6({ ...out, nextHeader }, Buffer.concat([Buffer.from([17, 0, 1, 4, 0, 0, 0, 0]), udp(ports, "hello")])));

const EXTENSIONS = {
	"hop-by-hop options": 0,
	routing: 43,
	authentication: 51,
	"destination options": 60,
	mobility: 135,
	"host identity": 139,
	shim6: 140,
};

const NEIGHBOURS = {
	"a router solicitation": 133,
	"a router advertisement": 134,
	"a neighbour solicitation": 135,
	"a neighbour advertisement": 136,
	"a redirect": 137,
	"a multicast listener report": 143,
};
const ERRORS = { "destination unreachable": 1, "packet too big": 2, "time exceeded": 3, "parameter problem": 4 };

const egressUdp = (header: Parameters<typeof inner6>[2] = {}, payload?: string): Buffer =>
	fromPod(inner6("udp", "egress", header, payload));

const EGRESS: Case[] = [
	...Object.entries(EXTENSIONS).map(([name, nextHeader]) => ({ name: `an extension header: ${name}`, packet: extended(nextHeader), reason: "extension" })),
	{ name: "a fragment", packet: extended(44), reason: "fragment" },
	...Object.entries({ ...NEIGHBOURS, ...ERRORS }).map(([name, type]) => ({ name: `ICMPv6: ${name}`, packet: fromPod(ipv6({ ...out, nextHeader: 58 }, icmp(type, 0, 0, "x".repeat(28)))), reason: "protocol" })),
	{ name: "an ICMPv6 echo with a code", packet: fromPod(ipv6({ ...out, nextHeader: 58 }, icmp(128, 1, 777))), reason: "protocol" },
	{ name: "what would be an echo over IPv4", packet: fromPod(ipv6({ ...out, nextHeader: 58 }, icmp(8, 0, 777))), reason: "protocol" },
	{ name: "ICMP of IPv4", packet: fromPod(ipv6({ ...out, nextHeader: 1 }, icmp(8, 0, 777))), reason: "protocol" },
	{ name: "SCTP", packet: egressUdp({ nextHeader: 132 }), reason: "protocol" },
	{ name: "ESP", packet: egressUdp({ nextHeader: 50 }), reason: "protocol" },
	{ name: "GRE", packet: egressUdp({ nextHeader: 47 }), reason: "protocol" },
	{ name: "IPv6 in IPv6", packet: egressUdp({ nextHeader: 41 }), reason: "protocol" },
	{ name: "no next header", packet: egressUdp({ nextHeader: 59 }), reason: "protocol" },
	{ name: "a multicast destination", packet: egressUdp({ destination: "ff02::fb" }), reason: "scope" },
	{ name: "a link-local source", packet: egressUdp({ source: "fe80::1" }), reason: "scope" },
	{ name: "a link-local destination", packet: egressUdp({ destination: "febf::1" }), reason: "scope" },
	{ name: "an IPv4-mapped source", packet: egressUdp({ source: "::ffff:10.244.1.2" }), reason: "scope" },
	{ name: "an IPv4-mapped destination", packet: egressUdp({ destination: "::ffff:10.244.2.2" }), reason: "scope" },
	{ name: "IP version 4 in an IPv6 frame", packet: at(egressUdp(), 14, 0x45), reason: "not_ipv4" },
	{ name: "IP version 7 in an IPv6 frame", packet: at(egressUdp(), 14, 0x70), reason: "not_ipv4" },
	{ name: "a VLAN tag in the frame", packet: ethernet({ source: MAC.pod, destination: MAC.gateway, type: 0x8100 }, Buffer.concat([Buffer.from([0, 5, 0x86, 0xdd]), inner6("udp", "egress")])), reason: "vlan" },
	{ name: "hop limit 1", packet: egressUdp({ hopLimit: 1 }), reason: "ttl" },
	{ name: "hop limit 0", packet: egressUdp({ hopLimit: 0 }), reason: "ttl" },
	...flagCases,
	{ name: "a payload length beyond the frame", packet: egressUdp({ payloadLength: 500 }), reason: "truncated" },
	{ name: "a payload length of 0 (a jumbogram's)", packet: egressUdp({ payloadLength: 0 }), reason: "truncated" },
	{ name: "bytes after the packet", packet: Buffer.concat([egressUdp(), Buffer.alloc(9)]), reason: "truncated" },
	{ name: "a UDP length that lies", packet: fromPod(ipv6({ ...out, nextHeader: 17 }, udp({ ...ports, length: 99 }, "hello"))), reason: "truncated" },
	{ name: "a TCP header longer than the packet", packet: fromPod(ipv6({ ...out, nextHeader: 6 }, tcp({ ...ports, offset: 15 }))), reason: "truncated" },
	{ name: "a TCP header shorter than 20 bytes", packet: fromPod(ipv6({ ...out, nextHeader: 6 }, tcp({ ...ports, offset: 4 }))), reason: "truncated" },
	{ name: "half a TCP header", packet: fromPod(ipv6({ ...out, nextHeader: 6 }, tcp(ports).subarray(0, 10))), reason: "truncated" },
	{ name: "an IPv6 header only", packet: fromPod(ipv6({ ...out, nextHeader: 17 }, Buffer.alloc(0))), reason: "truncated" },
	{ name: "a packet larger than the tunnel's MTU", packet: egressUdp({}, "z".repeat(1403)), reason: "mtu" },
	{ name: "a GSO packet whose segments are larger than the MTU", packet: fromPod(inner6("tcp", "egress", {}, "z".repeat(3000))), reason: "mtu", context: { gsoSize: 1391, gsoSegs: 3 } },
	{ name: "a GSO type that cannot be encapsulated", packet: egressUdp({}, "z".repeat(3000)), reason: "refused", context: { gsoSize: 1000, gsoSegs: 3 } },
	{ name: "an unknown flow", packet: fromPod(ipv6({ ...out, nextHeader: 17 }, udp({ ...ports, source: 5 }))), reason: "flow_miss", isMarked: true },
	{ name: "an address that differs in its first word", packet: egressUdp({ destination: "fd01:10:244:2::2" }), reason: "flow_miss", isMarked: true },
	{ name: "an address that differs in its last word", packet: egressUdp({ destination: "fd00:10:244:2::3" }), reason: "flow_miss", isMarked: true },
	{ name: "another pod's MAC address", packet: fromPod(inner6("udp", "egress"), { source: "0a:58:00:00:00:99" }), reason: "mac", isMarked: true },
]; // biome-ignore format: a table

const cracked = (options: OuterOptions): Buffer => inbound(inner6("udp", "ingress"), options);
const ingressUdp = (header: Parameters<typeof inner6>[2] = {}, payload?: string): Buffer =>
	inbound(inner6("udp", "ingress", header, payload));

const INGRESS: Case[] = [
	{ name: "an unknown VNI", packet: cracked({ vni: 43 }), reason: "vni" },
	{ name: "a VXLAN flag besides the VNI's", packet: cracked({ flags: 0x88 }), reason: "outer" },
	{ name: "an outer UDP checksum", packet: cracked({ udpChecksum: 0x1234 }), reason: "outer" },
	{ name: "an outer fragment", packet: cracked({ ip: { fragment: 0x2000 } }), reason: "outer" },
	{ name: "a wrong outer checksum", packet: cracked({ ip: { checksumError: 1 } }), reason: "checksum" },
	{ name: "an outer length that lies", packet: cracked({ ip: { totalLength: 60 } }), reason: "truncated" },
	{ name: "another outer source", packet: cracked({ ip: { source: "192.168.77.3" } }), reason: "peer", isMarked: true },
	{ name: "another inner source MAC address", packet: cracked({ innerSource: "0a:20:00:00:00:77" }), reason: "mac", isMarked: true },
	{ name: "an inner fragment", packet: ingressUdp({ nextHeader: 44 }), reason: "fragment" },
	{ name: "an inner extension header", packet: ingressUdp({ nextHeader: 0 }), reason: "extension" },
	{ name: "an inner neighbour solicitation", packet: inbound(ipv6({ ...back, nextHeader: 58 }, icmp(135, 0, 0, "x".repeat(20)))), reason: "protocol" },
	{ name: "an inner link-local source", packet: ingressUdp({ source: "fe80::1" }), reason: "scope" },
	{ name: "an inner IPv4-mapped destination", packet: ingressUdp({ destination: "::ffff:10.244.1.2" }), reason: "scope" },
	{ name: "inner hop limit 1", packet: ingressUdp({ hopLimit: 1 }), reason: "ttl" },
	{ name: "an inner SYN", packet: inbound(ipv6({ ...back, nextHeader: 6 }, tcp({ ...backPorts, flags: SYN }))), reason: "tcp_flags" },
	{ name: "an inner payload length that lies", packet: ingressUdp({ payloadLength: 5 }), reason: "truncated" },
	{ name: "an unknown flow", packet: inbound(ipv6({ ...back, nextHeader: 17 }, udp({ ...backPorts, source: 5 }))), reason: "flow_miss", isMarked: true },
	{ name: "a packet larger than the pod's MTU", packet: ingressUdp({}, "z".repeat(1403)), reason: "mtu" },
]; // biome-ignore format: a table

for (const [program, cases] of [["egress", EGRESS], ["ingress", INGRESS]] as const) // biome-ignore format: a pair
	describe(`${program} leaves to the fallback`, () => {
		let world: World;
		before(() => {
			world = openWorld();
		});
		after(() => world.close());

		for (const { name, packet, reason, isMarked = false, context = {} } of cases)
			test(`${name} (${reason})`, () => {
				world.datapath.flushAll();
				world.datapath.maps.control.view.setBigUint64(control.offset.learnAfter, 0n, true); // no guard time
				for (const l4 of ["tcp", "udp", "icmp"] as const) teach6(world, l4);
				const total = (): Record<string, number> => ({ ...world.datapath.counters().packets[program].fallback });
				const earlier = total();
				const result = world.run(program, packet, context);
				const now = total();
				assert.equal(result.verdict, NEXT);
				assert.equal(result.packet.toString("hex"), packet.toString("hex"), "the packet is as it was");
				assert.deepEqual(
					Object.keys(now).filter((key) => now[key] !== earlier[key]),
					[reason],
				);
				assert.equal((now[reason] ?? 0) - (earlier[reason] ?? 0), 1);
				assert.equal(result.mark, isMarked ? MARK : 0);
			});
	});

test("every truncation of a warm packet is left alone", () => {
	const world = openWorld();
	for (const l4 of ["tcp", "udp", "icmp"] as const) {
		teach6(world, l4);
		// The kernel takes no shorter IPv6 packet for a test run.
		for (const [program, packet] of [
			["egress", fromPod(inner6(l4, "egress"))],
			["ingress", inbound(inner6(l4, "ingress"))],
		] as const)
			for (let length = 54; length < packet.length; length++) {
				const cut = packet.subarray(0, length);
				const { verdict, packet: after } = world.run(program, cut);
				assert.equal(verdict, NEXT, `${l4} ${program}, ${length} bytes`);
				assert.ok(after.equals(cut));
			}
	}
	world.close();
});
