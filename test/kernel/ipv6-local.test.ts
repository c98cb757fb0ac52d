// Inner IPv6 that this host translates (Services) or that stays on it, and connection tracking entries that end.
import assert from "node:assert/strict";
import { after, describe, test } from "node:test";
import { watchConntrack } from "../../src/kernel/monitor.js";
import { parseIp } from "../../src/net/ip.js";
import type { MacAddress } from "../../src/net/mac.js";
import { inner6, POD6, PROTOCOL6, REMOTE6, teach6, track6 } from "./ipv6.js";
import { ethernet, ipv6, tcp, udp } from "./packet.js";
import {
	enterNetns, fromPod, inbound, LOCAL_PORT, MAC, MARK, NEXT, openWorld, outbound, REDIRECT, REMOTE_PORT, tool, toPod, type World,
} from "./world.js"; // biome-ignore format: a list

enterNetns();
tool("ip", "link", "add", "pod1", "mtu", "1400", "type", "veth", "peer", "name", "eth1");
const pod1 = Number(/^(\d+):/.exec(tool("ip", "-o", "link", "show", "pod1"))?.[1]);
// Translation is a part of connection tracking only where a rule has asked for it.
tool("nft", "add table ip6 nat");
tool("nft", "add chain ip6 nat prerouting { type nat hook prerouting priority 0; }");

const SERVICE = "fd00:96::10";
const HOST = "fd00:10:244:1::";
const OTHER = "fd00:10:244:1::3";
const OTHER_MAC = "0a:58:00:00:00:03";
type L4 = "tcp" | "udp";

interface Tuple {
	source: string;
	sourcePort: number;
	destination: string;
	destinationPort: number;
}

const swap = ({ source, sourcePort, destination, destinationPort }: Tuple): Tuple => ({
	source: destination,
	sourcePort: destinationPort,
	destination: source,
	destinationPort: sourcePort,
});

/** With a right L4 checksum, unless there is none. */
function packet(l4: L4, tuple: Tuple, hopLimit: number, options: { checksum?: boolean; flags?: number } = {}): Buffer {
	const ports = { source: tuple.sourcePort, destination: tuple.destinationPort };
	const segment = l4 === "tcp" ? tcp({ ...ports, flags: options.flags ?? 0x10 }, "hello") : udp(ports, "hello");
	const header = { source: tuple.source, destination: tuple.destination, nextHeader: PROTOCOL6[l4], hopLimit };
	if (options.checksum !== false) segment.writeUInt16BE(l4Checksum(ipv6(header, segment)), l4 === "tcp" ? 16 : 6);
	return ipv6(header, segment);
}

/** RFC 8200, section 8.1. */
function l4Checksum(whole: Buffer): number {
	const segment = whole.subarray(40);
	const pseudo = Buffer.alloc(40);
	whole.copy(pseudo, 0, 8, 40);
	pseudo.writeUInt32BE(segment.length, 32);
	pseudo[39] = whole[6] as number;
	let sum = 0;
	for (const bytes of [pseudo, segment])
		for (let i = 0; i < bytes.length; i += 2) sum += (bytes[i] as number) * 256 + (bytes[i + 1] ?? 0);
	while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
	return ~sum & 0xffff || 0xffff;
}

interface Flow {
	l4: L4;
	pod: Tuple;
	wire: Tuple;
}

const flow = (l4: L4, port: number, masqueraded = false): Flow => ({
	l4,
	pod: { source: POD6, sourcePort: port, destination: SERVICE, destinationPort: 80 },
	wire: {
		source: masqueraded ? HOST : POD6,
		sourcePort: masqueraded ? port + 1000 : port,
		destination: REMOTE6,
		destinationPort: 8080,
	},
});

function track({ l4, pod, wire }: Flow, status = "SEEN_REPLY,ASSURED"): void {
	const state = l4 === "tcp" ? ["--state", "ESTABLISHED"] : [];
	const source = pod.source === wire.source ? [] : ["--src-nat", `[${wire.source}]:${wire.sourcePort}`];
	tool("conntrack", "-I", "-p", l4, "-s", pod.source, "-d", pod.destination, "--sport", String(pod.sourcePort),
		"--dport", String(pod.destinationPort), "--dst-nat", `[${wire.destination}]:${wire.destinationPort}`, ...source,
		"--timeout", "600", "--status", status, ...state); // biome-ignore format: one command
}

function teach(world: World, { l4, pod, wire }: Flow): void {
	world.run("egress_init", outbound(packet(l4, wire, 63)), { mark: MARK });
	world.run("ingress_init", toPod(packet(l4, swap(pod), 62)), { mark: MARK });
}

const withoutOuterId = (frame: Buffer): string => {
	const copy = Buffer.from(frame);
	copy.fill(0, 18, 20);
	copy.fill(0, 24, 26);
	return copy.toString("hex");
};

function inWorld<T>(body: (world: World) => T): T {
	const world = openWorld();
	const router = MAC.gateway as MacAddress;
	world.datapath.setVeths([
		{ ifindex: world.pod0, shaped: false, mtu: 1450, router, untracked: false, zones: { ipv4: 0, ipv6: 0 } },
		{ ifindex: pod1, shaped: false, mtu: 1400, router, untracked: false, zones: { ipv4: 0, ipv6: 0 } },
	]);
	world.datapath.noteSender(pod1, OTHER_MAC as MacAddress);
	try {
		return body(world);
	} finally {
		world.close();
	}
}

let port = 20_000;

describe("a flow to a Service", () => {
	for (const l4 of ["tcp", "udp"] as const)
		for (const masqueraded of [false, true])
			test(`${l4}${masqueraded ? ", masqueraded" : ""}: goes out as the fallback would send it, and its answers come in as it would deliver them`, () => {
				const warm = flow(l4, port++, masqueraded);
				track(warm);
				inWorld((world) => {
					teach(world, warm);
					for (const checksum of l4 === "udp" ? [true, false] : [true]) {
						const out = world.run("egress", fromPod(packet(l4, warm.pod, 64, { checksum })));
						assert.equal(out.verdict, REDIRECT);
						assert.equal(withoutOuterId(out.packet), withoutOuterId(outbound(packet(l4, warm.wire, 63, { checksum }))));
						const back = world.run("ingress", inbound(packet(l4, swap(warm.wire), 64, { checksum })));
						assert.equal(back.verdict, REDIRECT);
						assert.equal(
							back.packet.toString("hex"),
							toPod(packet(l4, swap(warm.pod), 63, { checksum })).toString("hex"),
						);
					}
				});
			});

	test("is entered under the key of each end, and used under its own only", () => {
		const warm = flow("udp", port++);
		track(warm);
		inWorld((world) => {
			teach(world, warm);
			assert.equal(world.run("egress", fromPod(packet("udp", warm.wire, 64))).verdict, NEXT);
			assert.equal(world.run("ingress", inbound(packet("udp", swap(warm.pod), 64))).verdict, NEXT);
			assert.deepEqual(world.datapath.counters().packets.egress.fallback, { flow_miss: 1 });
			assert.deepEqual(world.datapath.counters().packets.ingress.fallback, { flow_miss: 1 });
		});
	});

	test("ends at both ends with a packet that closes it, and when either tuple is evicted", () => {
		const ends: ((world: World, warm: Flow) => unknown)[] = [
			(world, { pod }) => world.run("egress", fromPod(packet("tcp", pod, 64, { flags: 0x11 }))),
			...(["pod", "wire"] as const).map((which) => (world: World, warm: Flow) => {
				const { source, sourcePort, destination, destinationPort } = warm[which];
				const local = { localIp: parseIp(source), localPort: sourcePort };
				const remote = { remoteIp: parseIp(destination), remotePort: destinationPort };
				assert.equal(world.datapath.flushFlow({ proto: 6, ...local, ...remote }), 1);
			}),
		];
		for (const end of ends) {
			const warm = flow("tcp", port++);
			track(warm);
			inWorld((world) => {
				teach(world, warm);
				assert.equal(world.run("egress", fromPod(packet("tcp", warm.pod, 64))).verdict, REDIRECT);
				end(world, warm);
				assert.equal(world.run("egress", fromPod(packet("tcp", warm.pod, 64))).verdict, NEXT);
				assert.equal(world.run("ingress", inbound(packet("tcp", swap(warm.wire), 64))).verdict, NEXT);
			});
		}
	});

	test("that connection tracking has not seen answered is not learned", () => {
		const warm = flow("udp", port++);
		track(warm, "ASSURED");
		inWorld((world) => {
			teach(world, warm);
			assert.deepEqual(world.datapath.lessons(), { egress: { not_established: 1 }, ingress: { not_established: 1 } });
		});
	});
});

describe("a flow between two pods of one host", () => {
	const frame = (source: string, destination: string, inside: Buffer): Buffer =>
		ethernet({ source, destination }, inside);
	const tuple = (source: string, destination: string, sourcePort: number, destinationPort: number): Tuple => ({
		source,
		sourcePort,
		destination,
		destinationPort,
	});
	const trackLocal = (own: number, dnat?: string): void =>
		void tool("conntrack", "-I", "-p", "udp", "-s", POD6, "-d", dnat ? SERVICE : OTHER, "--sport", String(own),
			"--dport", "53", "--timeout", "600", "--status", "SEEN_REPLY,ASSURED", ...(dnat ? ["--dst-nat", dnat] : [])); // biome-ignore format: one command
	const teachLocal = (world: World, there: Buffer, back: Buffer): void => {
		world.run("ingress_init", there, { mark: MARK, ifindex: pod1, ingressIfindex: world.pod0 });
		world.run("ingress_init", back, { mark: MARK, ifindex: world.pod0, ingressIfindex: pod1 });
	};

	test("routed: gets the pod's MAC address and one less of its hop limit, and other senders get the fallback's answer", () => {
		const there = tuple(POD6, OTHER, port++, 53);
		trackLocal(there.sourcePort);
		inWorld((world) => {
			const delivered = frame(MAC.gateway, OTHER_MAC, packet("udp", there, 63));
			teachLocal(world, delivered, frame(MAC.gateway, MAC.pod, packet("udp", swap(there), 63)));
			const sent = frame(MAC.pod, MAC.gateway, packet("udp", there, 64));
			const result = world.run("egress", sent);
			assert.equal(result.verdict, REDIRECT);
			assert.equal(result.packet.toString("hex"), delivered.toString("hex"));
			const back = frame(OTHER_MAC, MAC.gateway, packet("udp", swap(there), 64));
			assert.equal(world.run("egress", back, { ifindex: pod1 }).verdict, REDIRECT);
			assert.equal(world.run("egress", sent, { ifindex: pod1 }).verdict, NEXT);
			assert.equal(world.run("egress", frame(OTHER_MAC, MAC.gateway, packet("udp", there, 64))).verdict, NEXT);
			assert.equal(world.run("ingress", inbound(packet("udp", there, 64))).verdict, NEXT, "out of the tunnel");
			assert.deepEqual(world.datapath.counters().packets.egress, { fast: 2, fallback: { veth: 1, mac: 1 } });
		});
	});

	test("bridged: arrives as it was sent", () => {
		const there = tuple(POD6, OTHER, port++, 53);
		trackLocal(there.sourcePort);
		inWorld((world) => {
			const sent = frame(MAC.pod, OTHER_MAC, packet("udp", there, 64));
			teachLocal(world, sent, frame(OTHER_MAC, MAC.pod, packet("udp", swap(there), 64)));
			const result = world.run("egress", sent);
			assert.deepEqual([result.verdict, result.packet.toString("hex")], [REDIRECT, sent.toString("hex")]);
			assert.equal(world.run("egress", frame(MAC.pod, MAC.gateway, packet("udp", there, 64))).verdict, NEXT);
		});
	});

	test("through a Service: routed there, its answer bridged back with the Service's address", () => {
		const asked = tuple(POD6, SERVICE, port++, 53);
		const backend = tuple(POD6, OTHER, asked.sourcePort, 5353);
		trackLocal(asked.sourcePort, `[${OTHER}]:5353`);
		inWorld((world) => {
			const delivered = frame(MAC.gateway, OTHER_MAC, packet("udp", backend, 63));
			const answered = frame(OTHER_MAC, MAC.pod, packet("udp", swap(asked), 64));
			teachLocal(world, delivered, answered);
			const there = world.run("egress", frame(MAC.pod, MAC.gateway, packet("udp", asked, 64)));
			assert.equal(there.packet.toString("hex"), delivered.toString("hex"));
			const back = world.run("egress", frame(OTHER_MAC, MAC.pod, packet("udp", swap(backend), 64)), { ifindex: pod1 });
			assert.equal(back.packet.toString("hex"), answered.toString("hex"));
		});
	});

	test("through a Service that the bridge itself translates: the frame gets the backend's MAC address, and is not routed", () => {
		const asked = tuple(POD6, SERVICE, port++, 53);
		const backend = tuple(POD6, OTHER, asked.sourcePort, 5353);
		trackLocal(asked.sourcePort, `[${OTHER}]:5353`);
		inWorld((world) => {
			const delivered = frame(MAC.pod, OTHER_MAC, packet("udp", backend, 64));
			teachLocal(world, delivered, frame(OTHER_MAC, MAC.pod, packet("udp", swap(asked), 64)));
			const there = world.run("egress", frame(MAC.pod, MAC.gateway, packet("udp", asked, 64)));
			assert.equal(there.packet.toString("hex"), delivered.toString("hex"));
		});
	});
});

describe("a connection tracking entry that ends", () => {
	const stop = new AbortController();
	const world = openWorld();
	watchConntrack({
		signal: stop.signal,
		keepAlive: false,
		filterFd: world.datapath.programFd("forget"),
		onChange: () => assert.fail("the filter did not understand an event"),
	});
	after(() => {
		stop.abort();
		world.close();
	});

	for (const l4 of ["tcp", "udp"] as const)
		test(`${l4}: its flow, and only that, leaves the cache at once, in whichever direction it began`, () => {
			const isFast = (): boolean =>
				world.run("egress", fromPod(inner6(l4, "egress"))).verdict === REDIRECT &&
				world.run("ingress", inbound(inner6(l4, "ingress"))).verdict === REDIRECT;
			teach6(world, l4);
			assert.ok(isFast());
			const before = world.datapath.forgotten;
			track6(l4, "SEEN_REPLY", { local: 1, remote: 2 });
			tool("conntrack", "-D", "-f", "ipv6", "-p", l4, "--sport", "1");
			assert.ok(isFast(), "another entry's end");
			tool("conntrack", "-D", "-f", "ipv6", "-p", l4, "-s", POD6, "--sport", String(LOCAL_PORT));
			assert.ok(!isFast());
			assert.equal(world.datapath.forgotten, before + 1);

			// Begun by the remote pod.
			tool("conntrack", "-I", "-p", l4, "-s", REMOTE6, "-d", POD6, "--sport", String(REMOTE_PORT), "--dport", String(LOCAL_PORT),
				"--timeout", "60", "--status", "SEEN_REPLY,ASSURED", ...(l4 === "tcp" ? ["--state", "ESTABLISHED"] : [])); // biome-ignore format: one command
			world.run("egress_init", outbound(inner6(l4, "egress", { hopLimit: 63 })), { mark: MARK });
			world.run("ingress_init", toPod(inner6(l4, "ingress", { hopLimit: 62 })), { mark: MARK });
			assert.ok(isFast());
			tool("conntrack", "-F");
			assert.ok(!isFast());
			assert.equal(world.datapath.forgotten, before + 2);
		});

	test("of a Service takes the flow of both its ends along", () => {
		const warm = flow("udp", port++);
		track(warm);
		teach(world, warm);
		assert.equal(world.run("egress", fromPod(packet("udp", warm.pod, 64))).verdict, REDIRECT);
		tool("conntrack", "-D", "-f", "ipv6", "-p", "udp", "--sport", String(warm.pod.sourcePort));
		assert.equal(world.run("egress", fromPod(packet("udp", warm.pod, 64))).verdict, NEXT);
		assert.equal(world.run("ingress", inbound(packet("udp", swap(warm.wire), 64))).verdict, NEXT);
	});

	test("of ICMPv6 takes its flow along, and other protocols are none of its business", () => {
		teach6(world, "icmp");
		assert.equal(world.run("egress", fromPod(inner6("icmp", "egress"))).verdict, REDIRECT);
		tool("conntrack", "-I", "-p", "sctp", "-s", POD6, "-d", REMOTE6, "--sport", "5", "--dport", "6", "--timeout", "60",
			"--state", "ESTABLISHED", "--orig-vtag", "1", "--reply-vtag", "2"); // biome-ignore format: one command
		tool("conntrack", "-F");
		assert.equal(world.run("egress", fromPod(inner6("icmp", "egress"))).verdict, REDIRECT);
		tool("conntrack", "-I", "-p", "icmpv6", "-s", POD6, "-d", REMOTE6, "--icmpv6-type", "128", "--icmpv6-code", "0",
			"--icmpv6-id", "777", "--timeout", "60"); // biome-ignore format: one command
		tool("conntrack", "-F");
		assert.equal(world.run("egress", fromPod(inner6("icmp", "egress"))).verdict, NEXT);
	});
});
