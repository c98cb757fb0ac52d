// What a hit costs as the filter cache fills: single test runs of `egress` on random ones of N cached flows. No traffic.
import { Datapath, destroy } from "../datapath/datapath.js";
import { NO_OTHER } from "../datapath/flows.js";
import { flow, flowKey, host, pod, SlotState } from "../datapath/layout.js";
import { runProgram } from "../datapath/testrun.js";
import { ensureBpffs } from "../kernel/bpffs.js";
import type { Ipv4 } from "../net/ipv4.js";
import { BenchError } from "./error.js";
import { median } from "./statistics.js";

export interface GrowthPoint {
	/** In the filter cache. */
	flows: number;
	/** Medians of single runs of `egress`, one per fill-up; they take a test run's own overhead with them. */
	nsPerPacket: number[];
}

const COUNTS = [1, 1000, 10_000, 100_000, 1_000_000];
const CAPACITY = 1 << 21;
const RUNS = 4000;
const REPEATS = 3;
const BATCH = 10_000;
const LOOPBACK = 1;
const UDP = 17;
const POD = 0x0af40102;
const REMOTE = 0x0af40202;
const REDIRECT = 7;
const FRAME_MACS = Buffer.from("0a58000000010a5800000002", "hex");

/** Uses a datapath of its own, attached to nothing; fills it several times over, so that the machine's moods show. */
export function measureGrowth(bpffs: string): GrowthPoint[] {
	const sequences = Array.from({ length: REPEATS }, () => fillUp(bpffs));
	return COUNTS.map((flows, at) => ({ flows, nsPerPacket: sequences.map((sequence) => sequence[at] ?? Number.NaN) }));
}

function fillUp(bpffs: string): number[] {
	ensureBpffs(bpffs);
	const datapath = Datapath.open({
		bpffs,
		attach: "tcx",
		markMode: "metadata",
		mark: 0x1000,
		maxStalenessMs: 60_000,
		countFlows: false,
		sizes: { filter: CAPACITY, egress: 16, ingress: 16 },
	});
	try {
		fillSlots(datapath);
		let filled = 0;
		return COUNTS.map((flows) => {
			while (filled < flows) {
				const count = Math.min(BATCH, flows - filled);
				fill(datapath, filled, count);
				filled += count;
			}
			return measure(datapath, flows);
		});
	} finally {
		datapath.close();
		destroy(bpffs);
	}
}

/** One remote host and one pod, which all flows refer to. */
function fillSlots({ maps }: Datapath): void {
	const slot = { state: SlotState.LIVE, generation: 1, retiredAt: 0n };
	host.write(maps.egress.view, 0, {
		slot,
		template: Array.from({ length: 8 }, () => 0n),
		checksum: 0,
		uplink: LOOPBACK,
		remoteIp: REMOTE as Ipv4,
		localIp: POD as Ipv4,
		vni: 1,
		mtu: 1450,
		tunnelFlags: 0,
		tunnel: LOOPBACK,
		ipId: 0,
		headerLen: 0,
		header: [],
	});
	const macs = new Uint8Array(FRAME_MACS);
	pod.write(maps.ingress.view, 0, {
		slot,
		ip: POD as Ipv4,
		veth: LOOPBACK,
		macs,
		vethFlags: 0,
		mtu: 1450,
		fromPod: macs,
	});
}

/** The n-th flow differs in port and remote address. */
function keyOf(n: number): { localPort: number; remoteIp: Ipv4 } {
	return { localPort: 1024 + (n % 60_000), remoteIp: (REMOTE + Math.floor(n / 60_000)) as Ipv4 };
}

function fill(datapath: Datapath, from: number, count: number): void {
	const keys = Buffer.alloc(count * flowKey.size);
	const values = Buffer.alloc(count * flow.size);
	const verdict = { confirmedAt: datapath.now, sampledAt: 0n, ref: 1n << 32n, epoch: 1, outerPort: 50_000, flags: 0 };
	const keyView = new DataView(keys.buffer, keys.byteOffset);
	const valueView = new DataView(values.buffer, values.byteOffset);
	for (let i = 0; i < count; i++) {
		const key = { localIp: POD as Ipv4, remotePort: 80, proto: UDP, ...keyOf(from + i) };
		flowKey.write(keyView, i * flowKey.size, key);
		flow.write(valueView, i * flow.size, { egress: verdict, ingress: verdict, packets: [0n, 0n], ...NO_OTHER });
	}
	datapath.maps.filter.setBatch(keys, values, count);
}

function measure(datapath: Datapath, flows: number): number {
	const program = datapath.programFd("egress");
	const runs = Array.from({ length: RUNS }, () => {
		const packet = packetOf(Math.floor(Math.random() * flows));
		return runProgram(program, packet, { ifindex: LOOPBACK });
	});
	const hits = runs.filter(({ verdict }) => verdict === REDIRECT).length;
	if (hits < RUNS)
		throw new BenchError(`Cannot measure hits with ${flows} flows: ${RUNS - hits} of ${RUNS} packets missed`);
	return median(runs.map(({ durationNs }) => durationNs));
}

/** A UDP datagram of 18 bytes in IPv4 and Ethernet. */
function packetOf(n: number): Buffer {
	const { localPort, remoteIp } = keyOf(n);
	const packet = Buffer.alloc(60);
	FRAME_MACS.copy(packet);
	packet.writeUInt16BE(0x0800, 12);
	packet.writeUInt16BE(0x4500, 14);
	packet.writeUInt16BE(46, 16);
	packet.writeUInt8(64, 22);
	packet.writeUInt8(UDP, 23);
	packet.writeUInt32BE(POD, 26);
	packet.writeUInt32BE(remoteIp, 30);
	let sum = 0;
	for (let at = 14; at < 34; at += 2) sum += packet.readUInt16BE(at);
	while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
	packet.writeUInt16BE(~sum & 0xffff, 24);
	packet.writeUInt16BE(localPort, 34);
	packet.writeUInt16BE(80, 36);
	packet.writeUInt16BE(26, 38);
	return packet;
}
