// What an attacker sends who knows everything about a warm flow but is not where it comes from.
import type { Lab } from "../../src/lab/topology.js";
import { macOf } from "../../src/lab/topology.js";
import { checksum, ethernet, type Ipv4Header, ipv4, udp, vxlan } from "../kernel/packet.js";
import type { Random } from "./choice.js";
import { CABLE_MAC, flowPacket, gatewayMac, hostOf, type L4, L4S, type Place, podFrame, podOf, STRANGER } from "./field.js"; // biome-ignore format: a list

export interface Attack {
	kind: string;
	from: Place;
	frame: Buffer;
	/** Whose address in a switch's table the frame has taken. */
	robbed?: Place;
	/**
	 * The host where it arrives cannot tell it from the flow's own packets: the fallback of the attacker's host has carried
	 * it, or it is forged to the last bit of the outer IP header.
	 */
	isPerfect?: boolean;
	/** Neither ONCache's first program nor its second sees it, but the fallback's rule of dscp mode does. */
	isUnseen?: boolean;
}

interface Given {
	lab: Lab;
	random: Random;
	l4: L4;
	/** What the attack is recognised by wherever it arrives. */
	sign: string;
	flags?: number;
}

const TOS = [0, 0, 0x04, 0x08, 0x0c, 0x24, 0xb8, 0xfc, 1, 2, 3];
const MARKS = [0x04, 0x08, 0x0c, 0x14, 0x2c, 0xf4, 0xfc];
const OUTER_PORT = 51234;

function inside(
	{ lab, random, l4, sign, flags }: Given,
	from: "h1p1" | "h2p1",
	header: { tos?: number; ttl?: number } = {},
): Buffer {
	// biome-ignore format: a signature
	const payload = sign + "x".repeat(random.pick([0, 0, 8, 100, 1000]));
	return flowPacket(lab, l4, from, {
		tos: random.pick(TOS),
		payload,
		...(flags !== undefined && { flags }),
		...header,
	});
}

interface Outer {
	/** Outer addresses and Ethernet source. */
	source: string;
	mac: string;
	destinationMac?: string;
	ip?: Partial<Ipv4Header>;
	vni?: number;
	flags?: number;
	udpChecksum?: number;
	innerSource?: string;
	innerDestination?: string;
	/** Changes the whole frame at the end. */
	version?: number;
}

/** To h1, as a tunnel's end would send it. */
export function tunnelled(lab: Lab, packet: Buffer, outer: Outer): Buffer {
	const [h1, h2] = lab.hosts as [Lab["hosts"][number], Lab["hosts"][number]];
	const innerFrame = ethernet(
		{ source: outer.innerSource ?? h2.tunnelMac, destination: outer.innerDestination ?? h1.tunnelMac },
		packet,
	);
	const datagram = udp(
		{ source: OUTER_PORT, destination: lab.spec.port, checksum: outer.udpChecksum ?? 0 },
		vxlan(outer.vni ?? lab.spec.vni, innerFrame, outer.flags),
	);
	const header = { source: outer.source, destination: h1.ip, protocol: 17, fragment: 0, ...outer.ip };
	const whole = ipv4(header, datagram);
	if (outer.version !== undefined) {
		whole[0] = outer.version * 16 + 5;
		whole.writeUInt16BE(0, 10);
		whole.writeUInt16BE(checksum(whole.subarray(0, 20)), 10);
	}
	return ethernet({ source: outer.mac, destination: outer.destinationMac ?? h1.mac }, whole);
}

type Make = (given: Given) => Omit<Attack, "kind">;

const pod =
	(from: Place, as: "h1p1" | "h2p1", header: (random: Random) => { tos?: number; ttl?: number } = () => ({})): Make =>
	(given) => ({
		from,
		isPerfect: from.slice(0, 2) === as.slice(0, 2),
		frame: podFrame(given.lab, from, inside(given, as, header(given.random))),
	});

const stranger =
	(change: (given: Given) => Partial<Outer>, from: Place = "h4", header: { tos?: number; ttl?: number } = {}): Make =>
	(given) => {
		const h2 = hostOf(given.lab, "h2");
		const forged = { source: h2.ip, mac: STRANGER.mac };
		return { from, frame: tunnelled(given.lab, inside(given, "h2p1", header), { ...forged, ...change(given) }) };
	};

const unseen =
	(make: Make): Make =>
	(given) => ({ ...make(given), isUnseen: true });

/** Every frame carries a warm flow's addresses and ports. */
const KINDS: Record<string, Make> = {
	"neighbour with the victim's IP": pod("h1p2", "h1p1"),
	"neighbour with the victim's IP and marks": pod("h1p2", "h1p1", (random) => ({ tos: random.pick(MARKS) })),
	"neighbour with the victim's IP, TTL expires": pod("h1p2", "h1p1", (random) => ({ ttl: random.pick([0, 1]) })),
	"neighbour with the victim's IP and MAC": (given) => ({
		from: "h1p2",
		robbed: "h1p1",
		isPerfect: true,
		frame: podFrame(given.lab, "h1p2", inside(given, "h1p1"), podOf(given.lab, "h1p1").mac),
	}),
	"neighbour as the partner, straight to the victim": unseen((given) => ({
		from: "h1p2",
		frame: ethernet({ source: podOf(given.lab, "h1p2").mac, destination: podOf(given.lab, "h1p1").mac }, inside(given, "h2p1")), // biome-ignore format: a call
	})),
	"neighbour as the partner, by the gateway": unseen(pod("h1p2", "h2p1")),
	"neighbour as the gateway": unseen((given) => ({
		from: "h1p2",
		frame: ethernet({ source: gatewayMac(given.lab, "h1p2"), destination: podOf(given.lab, "h1p1").mac }, inside(given, "h2p1")), // biome-ignore format: a call
	})),
	"the partner's neighbour with the partner's IP": pod("h2p2", "h2p1"),
	"the partner's neighbour with the partner's IP and marks": pod("h2p2", "h2p1", (random) => ({
		tos: random.pick(MARKS),
	})),
	"the partner's neighbour with the partner's IP and MAC": (given) => ({
		from: "h2p2",
		robbed: "h2p1",
		isPerfect: true,
		frame: podFrame(given.lab, "h2p2", inside(given, "h2p1"), podOf(given.lab, "h2p1").mac),
	}),
	"a pod of the third host with the partner's IP": pod("h3p1", "h2p1"),
	"a stranger with the third host's IP": stranger(({ lab }) => ({ source: hostOf(lab, "h3").ip })),
	"a stranger as himself": stranger(() => ({ source: STRANGER.ip })),
	"a stranger with the partner's host's IP": (given) => ({ ...stranger(() => ({}))(given), isPerfect: true }),
	"a stranger with the partner's host's IP on another uplink": unseen(
		stranger(() => ({ mac: STRANGER.cableMac, destinationMac: CABLE_MAC }), "cable"),
	),
	"a stranger with another VNI": stranger(({ lab, random }) => ({ vni: random.pick([0, lab.spec.vni + 1, 0xffffff]) })),
	"a stranger without the VNI flag": stranger(({ random }) => ({ flags: random.pick([0, 0x88, 0x0c, 0x80]) })),
	"a stranger to another tunnel MAC": stranger(() => ({ innerDestination: macOf(0x20, 9, 9) })),
	"a stranger from another tunnel MAC": stranger(({ lab, random }) => ({
		innerSource: random.pick([macOf(0x20, 9, 9), hostOf(lab, "h3").tunnelMac]),
	})),
	"a stranger to another host's MAC": stranger(({ lab }) => ({ destinationMac: hostOf(lab, "h3").mac })),
	"a stranger to a broadcast MAC": stranger(() => ({ destinationMac: "ff:ff:ff:ff:ff:ff" })),
	"a stranger to another outer IP": stranger(({ random }) => ({
		ip: { destination: random.pick(["192.168.77.9", "192.168.77.255", "10.244.1.1"]) },
	})),
	"a stranger with a wrong outer checksum": stranger(() => ({ ip: { checksumError: 1 } })),
	"a stranger with a wrong outer UDP checksum": stranger(() => ({ udpChecksum: 0x1234 })),
	"a stranger with an outer version that is not 4": stranger(({ random }) => ({ version: random.pick([0, 5, 6, 15]) })),
	"a stranger with outer options": unseen(stranger(() => ({ ip: { options: Buffer.of(1, 1, 1, 0) } }))),
	"a stranger with an outer length that lies": stranger(() => ({ ip: { totalLength: 60 } })),
	"a stranger, TTL expires": stranger(() => ({}), "h4", { ttl: 1 }),
	"a stranger with a broken ECN": stranger(() => ({ ip: { tos: 3 } }), "h4", { tos: 0 }),
};

const NAMES = Object.keys(KINDS);
const CONTROL_FLAGS = [0x02, 0x04, 0x14, 0x11, 0x12];

/** Of those that are perfect, or of the others. */
export function nextAttack(lab: Lab, random: Random, sign: string, isPerfect: boolean, isControl: boolean): Attack {
	const l4 = isControl ? "tcp" : random.pick(L4S);
	const flags = isControl ? { flags: random.pick(CONTROL_FLAGS) } : {};
	for (;;) {
		const kind = random.pick(NAMES);
		const attack = (KINDS[kind] as Make)({ lab, random, sign, l4, ...flags });
		if ((attack.isPerfect ?? false) === isPerfect) return { kind, ...attack };
	}
}
