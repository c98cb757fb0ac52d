// Two pods of one host: what the fallback routes or bridges from one to the other goes straight there.
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { parseIpv4 } from "../../src/net/ipv4.js";
import type { MacAddress } from "../../src/net/mac.js";
import { ethernet, type Ipv4Header, icmp, ipv4, udp } from "./packet.js";
import {
	enterNetns, fromPod, inbound, inner, MAC, MARK, NEXT, openWorld, POD, REDIRECT, tool, type World,
} from "./world.js"; // biome-ignore format: a list

enterNetns();
tool("ip", "link", "add", "pod1", "mtu", "1400", "type", "veth", "peer", "name", "eth1");
tool("nft", "add table ip nat");
tool("nft", "add chain ip nat prerouting { type nat hook prerouting priority 0; }");
const pod1 = Number(/^(\d+):/.exec(tool("ip", "-o", "link", "show", "pod1"))?.[1]);

const OTHER = "10.244.1.3";
const OTHER_MAC = "0a:58:00:00:00:03";
const SERVICE = "10.96.0.10";
const ROUTER = MAC.gateway;
const UDP = 17;

interface Ports {
	source: number;
	destination: number;
}

const datagram = (source: string, destination: string, ports: Ports, header: Partial<Ipv4Header> = {}): Buffer =>
	ipv4({ source, destination, protocol: UDP, ...header }, udp(ports, "hello"));
const swap = ({ source, destination }: Ports): Ports => ({ source: destination, destination: source });

function inWorld(body: (world: World) => void, options: { untracked?: boolean; shaped?: boolean } = {}): void {
	const world = openWorld();
	const { untracked = false, shaped = false } = options;
	const router = ROUTER as MacAddress;
	world.datapath.setVeths([
		{ ifindex: world.pod0, shaped: false, mtu: 1450, router, untracked, zones: { ipv4: 0, ipv6: 0 } },
		{ ifindex: pod1, shaped, mtu: 1400, router, untracked, zones: { ipv4: 0, ipv6: 0 } },
	]);
	world.datapath.noteSender(pod1, OTHER_MAC as MacAddress);
	try {
		body(world);
	} finally {
		world.close();
	}
}

function track(ports: Ports, dnat?: string): void {
	const translation = dnat === undefined ? [] : ["--dst-nat", dnat];
	tool("conntrack", "-I", "-p", "udp", "-s", POD, "-d", dnat === undefined ? OTHER : SERVICE, "--sport",
		String(ports.source), "--dport", String(ports.destination), "--timeout", "600", "--status", "SEEN_REPLY,ASSURED",
		...translation); // biome-ignore format: one command
}

/** As the fallback hands both directions over: `macs` are source and destination at the end. */
function teach(world: World, there: Buffer, back: Buffer): void {
	world.run("ingress_init", there, { mark: MARK, ifindex: pod1, ingressIfindex: world.pod0 });
	world.run("ingress_init", back, { mark: MARK, ifindex: world.pod0, ingressIfindex: pod1 });
}

const frame = (source: string, destination: string, packet: Buffer): Buffer =>
	ethernet({ source, destination }, packet);

describe("a flow between two pods of one host", () => {
	let port = 30_000;
	const next = (): Ports => ({ source: port++, destination: 53 });

	test("routed: gets the pod's MAC address and one TTL less", () => {
		const ports = next();
		track(ports);
		inWorld((world) => {
			teach(
				world,
				frame(ROUTER, OTHER_MAC, datagram(POD, OTHER, ports, { ttl: 63 })),
				frame(ROUTER, MAC.pod, datagram(OTHER, POD, swap(ports), { ttl: 63 })),
			);
			const there = world.run("egress", frame(MAC.pod, ROUTER, datagram(POD, OTHER, ports)));
			assert.equal(there.verdict, REDIRECT);
			assert.equal(
				there.packet.toString("hex"),
				frame(ROUTER, OTHER_MAC, datagram(POD, OTHER, ports, { ttl: 63 })).toString("hex"),
			);
			const back = world.run("egress", frame(OTHER_MAC, ROUTER, datagram(OTHER, POD, swap(ports))), { ifindex: pod1 });
			assert.equal(
				back.packet.toString("hex"),
				frame(ROUTER, MAC.pod, datagram(OTHER, POD, swap(ports), { ttl: 63 })).toString("hex"),
			);
			assert.equal(world.datapath.counters().packets.egress.fast, 2);
		});
	});

	test("bridged: arrives as it was sent", () => {
		const ports = next();
		track(ports);
		inWorld((world) => {
			const sent = frame(MAC.pod, OTHER_MAC, datagram(POD, OTHER, ports));
			teach(world, sent, frame(OTHER_MAC, MAC.pod, datagram(OTHER, POD, swap(ports))));
			const there = world.run("egress", sent);
			assert.equal(there.verdict, REDIRECT);
			assert.equal(there.packet.toString("hex"), sent.toString("hex"));
			assert.equal(
				world.run("egress", frame(MAC.pod, ROUTER, datagram(POD, OTHER, ports))).verdict,
				NEXT,
				"to be routed: another decision",
			);
			assert.deepEqual(world.datapath.counters().packets.egress.fallback, { mac: 1 });
		});
	});

	test("bridged, past connection tracking: both directions seen are enough where the bridge does not call it", () => {
		for (const untracked of [true, false]) {
			const ports = next();
			inWorld(
				(world) => {
					const sent = frame(MAC.pod, OTHER_MAC, datagram(POD, OTHER, ports));
					teach(world, sent, frame(OTHER_MAC, MAC.pod, datagram(OTHER, POD, swap(ports))));
					assert.equal(world.run("egress", sent).verdict, untracked ? REDIRECT : NEXT);
				},
				{ untracked },
			);
		}
	});

	test("ICMP echo is known by its identifier", () => {
		inWorld((world) => {
			const echo = (type: number, source: string, destination: string, ttl: number): Buffer =>
				ipv4({ source, destination, protocol: 1, ttl }, icmp(type, 0, 4711));
			teach(world, frame(ROUTER, OTHER_MAC, echo(8, POD, OTHER, 63)), frame(ROUTER, MAC.pod, echo(0, OTHER, POD, 63)));
			assert.equal(world.run("egress", frame(MAC.pod, ROUTER, echo(8, POD, OTHER, 64))).verdict, REDIRECT);
			assert.equal(
				world.run("egress", frame(OTHER_MAC, ROUTER, echo(0, OTHER, POD, 64)), { ifindex: pod1 }).verdict,
				REDIRECT,
			);
			assert.equal(world.run("egress", frame(MAC.pod, ROUTER, echo(0, POD, OTHER, 64))).verdict, NEXT);
		});
	});

	test("through a Service: routed there, its answer bridged back with the Service's address", () => {
		const ports = next();
		track(ports, `${OTHER}:5353`);
		inWorld((world) => {
			const backend = { source: ports.source, destination: 5353 };
			teach(
				world,
				frame(ROUTER, OTHER_MAC, datagram(POD, OTHER, backend, { ttl: 63 })),
				frame(OTHER_MAC, MAC.pod, datagram(SERVICE, POD, swap(ports))),
			);
			const there = world.run("egress", frame(MAC.pod, ROUTER, datagram(POD, SERVICE, ports)));
			assert.equal(
				there.packet.toString("hex"),
				frame(ROUTER, OTHER_MAC, datagram(POD, OTHER, backend, { ttl: 63 })).toString("hex"),
			);
			const back = world.run("egress", frame(OTHER_MAC, MAC.pod, datagram(OTHER, POD, swap(backend))), {
				ifindex: pod1,
			});
			assert.equal(
				back.packet.toString("hex"),
				frame(OTHER_MAC, MAC.pod, datagram(SERVICE, POD, swap(ports))).toString("hex"),
			);
		});
	});

	test("through a Service that the bridge itself translates: the frame gets the backend's MAC address, and is not routed", () => {
		const ports = next();
		track(ports, `${OTHER}:5353`);
		inWorld((world) => {
			const backend = { source: ports.source, destination: 5353 };
			const delivered = frame(MAC.pod, OTHER_MAC, datagram(POD, OTHER, backend));
			teach(world, delivered, frame(OTHER_MAC, MAC.pod, datagram(SERVICE, POD, swap(ports))));
			const there = world.run("egress", frame(MAC.pod, ROUTER, datagram(POD, SERVICE, ports)));
			assert.equal(there.packet.toString("hex"), delivered.toString("hex"));
		});
	});

	describe("is left to the fallback", () => {
		const warm = (body: (world: World, ports: Ports) => void): void => {
			const ports = next();
			track(ports);
			inWorld((world) => {
				teach(
					world,
					frame(ROUTER, OTHER_MAC, datagram(POD, OTHER, ports, { ttl: 63 })),
					frame(ROUTER, MAC.pod, datagram(OTHER, POD, swap(ports), { ttl: 63 })),
				);
				body(world, ports);
			});
		};
		const reasons = (world: World) => world.datapath.counters().packets.egress.fallback;

		test("from another veth, or with another source MAC address: a forged sender", () =>
			warm((world, ports) => {
				const packet = datagram(POD, OTHER, ports);
				assert.equal(world.run("egress", frame(MAC.pod, ROUTER, packet), { ifindex: pod1 }).verdict, NEXT);
				assert.equal(world.run("egress", frame(OTHER_MAC, ROUTER, packet)).verdict, NEXT);
				assert.deepEqual(reasons(world), { veth: 1, mac: 1 });
			}));

		test("larger than the other pod takes, or at its last hop", () =>
			warm((world, ports) => {
				const large = ipv4({ source: POD, destination: OTHER, protocol: UDP }, udp(ports, Buffer.alloc(1400)));
				assert.equal(world.run("egress", frame(MAC.pod, ROUTER, large)).verdict, NEXT);
				assert.equal(
					world.run("egress", frame(MAC.pod, ROUTER, datagram(POD, OTHER, ports, { ttl: 1 }))).verdict,
					NEXT,
				);
				assert.deepEqual(reasons(world), { mtu: 1, ttl: 1 });
			}));

		test("when either pod was evicted, or the other way was never seen", () => {
			for (const ip of [POD, OTHER])
				warm((world, ports) => {
					assert.equal(
						world.datapath.retirePods((pod) => pod.ip === parseIpv4(ip)),
						1,
					);
					assert.equal(world.run("egress", frame(MAC.pod, ROUTER, datagram(POD, OTHER, ports))).verdict, NEXT);
				});
			const ports = next();
			track(ports);
			inWorld((world) => {
				world.run("ingress_init", frame(ROUTER, OTHER_MAC, datagram(POD, OTHER, ports, { ttl: 63 })), {
					mark: MARK,
					ifindex: pod1,
					ingressIfindex: world.pod0,
				});
				assert.equal(world.run("egress", frame(MAC.pod, ROUTER, datagram(POD, OTHER, ports))).verdict, NEXT);
				assert.deepEqual(reasons(world), { reverse: 1 });
			});
		});

		test("when it comes out of the tunnel", () =>
			warm((world, ports) => {
				assert.equal(world.run("ingress", inbound(datagram(POD, OTHER, ports))).verdict, NEXT);
				assert.deepEqual(world.datapath.counters().packets.ingress.fallback, { flow_miss: 1 });
			}));

		test("forged from within, it moves no flow that comes through the tunnel", () =>
			inWorld((world) => {
				world.teach("udp");
				assert.equal(world.run("egress", fromPod(inner("udp", "egress"))).verdict, REDIRECT);
				world.run("ingress_init", frame(OTHER_MAC, MAC.pod, inner("udp", "ingress")), {
					mark: MARK,
					ifindex: world.pod0,
					ingressIfindex: pod1,
				});
				assert.equal(world.datapath.lessons().ingress.conflict, 1);
				assert.equal(world.run("egress", fromPod(inner("udp", "egress"))).verdict, REDIRECT);
				assert.equal(world.run("ingress", inbound(inner("udp", "ingress"))).verdict, REDIRECT);
			}));

		test("forged out of the tunnel, it moves no flow within the host", () =>
			warm((world, ports) => {
				const there = (): number => world.run("egress", frame(MAC.pod, ROUTER, datagram(POD, OTHER, ports))).verdict;
				assert.equal(there(), REDIRECT);
				world.run("ingress_init", frame(ROUTER, MAC.pod, datagram(OTHER, POD, swap(ports), { ttl: 62 })), {
					mark: MARK,
					ifindex: world.pod0,
				});
				assert.equal(world.datapath.lessons().ingress.conflict, 1);
				assert.equal(there(), REDIRECT);
			}));

		test("the host's own packet teaches nothing", () => {
			const ports = next();
			track(ports);
			inWorld((world) => {
				const delivered = frame(ROUTER, OTHER_MAC, datagram(POD, OTHER, ports, { ttl: 63 }));
				world.run("ingress_init", delivered, { mark: MARK, ifindex: pod1, ingressIfindex: 0 });
				assert.deepEqual(world.datapath.lessons().ingress, {});
			});
		});
	});

	test("through a veth whose qdisc must see every packet: redirected through it", () => {
		const ports = next();
		track(ports);
		inWorld(
			(world) => {
				const sent = frame(MAC.pod, OTHER_MAC, datagram(POD, OTHER, ports));
				teach(world, sent, frame(OTHER_MAC, MAC.pod, datagram(OTHER, POD, swap(ports))));
				assert.equal(world.run("egress", sent).verdict, REDIRECT);
			},
			{ shaped: true },
		);
	});
});
