// Services: connection tracking translates, and the fast path replays it, in both directions, to the byte.
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { type Ipv4, parseIpv4 } from "../../src/net/ipv4.js";
import { ipv4, tcp, udp } from "./packet.js";
import {
	enterNetns, fromPod, inbound, MARK, NEXT, openWorld, outbound, POD, REDIRECT, REMOTE, tool, toPod, type World,
} from "./world.js"; // biome-ignore format: a list

enterNetns();
// Translation is a part of connection tracking only where a rule has asked for it.
tool("nft", "add table ip nat");
tool("nft", "add chain ip nat prerouting { type nat hook prerouting priority 0; }");

const SERVICE = "10.96.0.10";
const HOST = "10.244.1.0";
const PROTOCOL = { tcp: 6, udp: 17 } as const;
type L4 = keyof typeof PROTOCOL;

interface Tuple {
	source: string;
	sourcePort: number;
	destination: string;
	destinationPort: number;
}

/** What the pod sees, and what goes over the wire. */
interface Flow {
	l4: L4;
	pod: Tuple;
	wire: Tuple;
}

const toIp = (text: string): Ipv4 => parseIpv4(text) as Ipv4;

const swap = ({ source, sourcePort, destination, destinationPort }: Tuple): Tuple => ({
	source: destination,
	sourcePort: destinationPort,
	destination: source,
	destinationPort: sourcePort,
});

/** With a right L4 checksum, unless there is none. */
function packet(l4: L4, tuple: Tuple, ttl: number, options: { checksum?: boolean; flags?: number } = {}): Buffer {
	const ports = { source: tuple.sourcePort, destination: tuple.destinationPort };
	const segment = l4 === "tcp" ? tcp({ ...ports, flags: options.flags ?? 0x10 }, "hello") : udp(ports, "hello");
	const header = { source: tuple.source, destination: tuple.destination, protocol: PROTOCOL[l4] };
	if (options.checksum !== false) segment.writeUInt16BE(l4Checksum(ipv4(header, segment)), l4 === "tcp" ? 16 : 6);
	return ipv4({ ...header, ttl }, segment);
}

/** RFC 9293, section 3.1, and RFC 768: over a pseudo header. */
function l4Checksum(whole: Buffer): number {
	const segment = whole.subarray(20);
	const pseudo = Buffer.alloc(12);
	whole.copy(pseudo, 0, 12, 20);
	pseudo[9] = whole[9] as number;
	pseudo.writeUInt16BE(segment.length, 10);
	let sum = 0;
	for (const bytes of [pseudo, segment])
		for (let i = 0; i < bytes.length; i += 2) sum += (bytes[i] as number) * 256 + (bytes[i + 1] ?? 0);
	while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
	return ~sum & 0xffff || 0xffff;
}

const flow = (l4: L4, port: number, masqueraded = false): Flow => ({
	l4,
	pod: { source: POD, sourcePort: port, destination: SERVICE, destinationPort: 80 },
	wire: {
		source: masqueraded ? HOST : POD,
		sourcePort: masqueraded ? port + 1000 : port,
		destination: REMOTE,
		destinationPort: 8080,
	},
});

function track({ l4, pod, wire }: Flow, status = "SEEN_REPLY,ASSURED"): void {
	const state = l4 === "tcp" ? ["--state", "ESTABLISHED"] : [];
	const source = pod.source === wire.source ? [] : ["--src-nat", `${wire.source}:${wire.sourcePort}`];
	tool("conntrack", "-I", "-p", l4, "-s", pod.source, "-d", pod.destination, "--sport", String(pod.sourcePort),
		"--dport", String(pod.destinationPort), "--dst-nat", `${wire.destination}:${wire.destinationPort}`, ...source,
		"--timeout", "600", "--status", status, ...state); // biome-ignore format: one command
}

/** Both init programs see it carried by the fallback. */
function teach(world: World, { l4, pod, wire }: Flow): void {
	world.run("egress_init", outbound(packet(l4, wire, 63)), { mark: MARK });
	world.run("ingress_init", toPod(packet(l4, swap(pod), 62)), { mark: MARK });
}

function inWorld<T>(body: (world: World) => T): T {
	const world = openWorld();
	try {
		return body(world);
	} finally {
		world.close();
	}
}

const withoutOuterId = (frame: Buffer): string => {
	const copy = Buffer.from(frame);
	copy.fill(0, 18, 20);
	copy.fill(0, 24, 26);
	return copy.toString("hex");
};

describe("a flow to a Service", () => {
	let port = 20_000;
	for (const l4 of ["tcp", "udp"] as const)
		for (const masqueraded of [false, true])
			for (const checksum of l4 === "udp" ? [true, false] : [true]) {
				const what = `${l4}${masqueraded ? ", masqueraded" : ""}${checksum ? "" : ", without a UDP checksum"}`;
				test(`${what}: goes out as the fallback would send it, and its answers come in as it would deliver them`, () => {
					const warm = flow(l4, port++, masqueraded);
					track(warm);
					inWorld((world) => {
						teach(world, warm);
						const out = world.run("egress", fromPod(packet(l4, warm.pod, 64, { checksum })));
						assert.equal(out.verdict, REDIRECT);
						assert.equal(withoutOuterId(out.packet), withoutOuterId(outbound(packet(l4, warm.wire, 63, { checksum }))));
						const back = world.run("ingress", inbound(packet(l4, swap(warm.wire), 64, { checksum })));
						assert.equal(back.verdict, REDIRECT);
						assert.equal(
							back.packet.toString("hex"),
							toPod(packet(l4, swap(warm.pod), 63, { checksum })).toString("hex"),
						);
					});
				});
			}

	test("is entered under the key of each end, and used under its own only", () => {
		const warm = flow("udp", port++);
		track(warm);
		inWorld((world) => {
			teach(world, warm);
			assert.equal(
				world.run("egress", fromPod(packet("udp", warm.wire, 64))).verdict,
				NEXT,
				"the pod itself talks to the backend, from the same port",
			);
			assert.equal(
				world.run("ingress", inbound(packet("udp", swap(warm.pod), 64))).verdict,
				NEXT,
				"an answer that comes from the Service's own address",
			);
			assert.deepEqual(world.datapath.counters().packets.egress.fallback, { flow_miss: 1 });
			assert.deepEqual(world.datapath.counters().packets.ingress.fallback, { flow_miss: 1 });
		});
	});

	test("is not used before both directions were seen", () => {
		const warm = flow("tcp", port++);
		track(warm);
		inWorld((world) => {
			world.run("egress_init", outbound(packet("tcp", warm.wire, 63)), { mark: MARK });
			assert.equal(world.run("egress", fromPod(packet("tcp", warm.pod, 64))).verdict, NEXT);
			assert.deepEqual(world.datapath.counters().packets.egress.fallback, { reverse: 1 });
		});
	});

	for (const flags of [0x02, 0x11, 0x14])
		test(`ends at both ends with a packet that opens or closes it (flags ${flags.toString(16)})`, () => {
			const warm = flow("tcp", port++);
			track(warm);
			inWorld((world) => {
				teach(world, warm);
				world.run("egress", fromPod(packet("tcp", warm.pod, 64, { flags })));
				assert.equal(world.run("ingress", inbound(packet("tcp", swap(warm.wire), 64))).verdict, NEXT);
				assert.deepEqual(world.datapath.counters().packets.ingress.fallback, { flow_miss: 1 });
			});
		});

	test("that gets another backend is learned anew", () => {
		const old = flow("udp", port++);
		const moved = { ...old, wire: { ...old.wire, destination: "10.244.2.99" } };
		inWorld((world) => {
			track(old);
			teach(world, old);
			tool("conntrack", "-D", "-p", "udp", "-s", POD, "--sport", String(old.pod.sourcePort));
			track(moved);
			teach(world, moved);
			const out = world.run("egress", fromPod(packet("udp", moved.pod, 64)));
			assert.equal(withoutOuterId(out.packet), withoutOuterId(outbound(packet("udp", moved.wire, 63))));
		});
	});

	test("is evicted with either tuple, at both ends", () => {
		for (const tuple of ["pod", "wire"] as const) {
			const warm = flow("udp", port++);
			track(warm);
			inWorld((world) => {
				teach(world, warm);
				const { source, sourcePort, destination, destinationPort } = warm[tuple];
				const flushed = world.datapath.flushFlow({
					proto: PROTOCOL.udp,
					localIp: toIp(source),
					localPort: sourcePort,
					remoteIp: toIp(destination),
					remotePort: destinationPort,
				});
				assert.equal(flushed, 1);
				assert.equal(world.run("egress", fromPod(packet("udp", warm.pod, 64))).verdict, NEXT);
				assert.equal(world.run("ingress", inbound(packet("udp", swap(warm.wire), 64))).verdict, NEXT);
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
