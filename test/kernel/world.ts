// A host in a network namespace of its own for BPF_PROG_TEST_RUN:
//
//   pod 10.244.1.2 --- pod0 [egress, ingress_init]   flannel.1   [egress_init, ingress] up0 --- host 192.168.77.2, pod 10.244.2.2
//
// Nothing is attached: every packet is put into one program by hand. The caches are filled by the init programs themselves.
import { spawnSync } from "node:child_process";
import { mkdirSync } from "node:fs";
import { Datapath, destroy } from "../../src/datapath/datapath.js";
import { runProgram, type TestContext, type TestResult } from "../../src/datapath/testrun.js";
import type { MarkMode, ProgramName, TunnelEntry, Zones } from "../../src/datapath/types.js";
import { ensureBpffs } from "../../src/kernel/bpffs.js";
import { loadConntrack } from "../../src/kernel/conntrack.js";
import { CLONE_NEWNET, unshare } from "../../src/kernel/libc.js";
import { Rtnetlink } from "../../src/kernel/rtnetlink.js";
import type { MacAddress } from "../../src/net/mac.js";
import { ethernet, type Ipv4Header, icmp, ipv4, tcp, udp, vxlan } from "./packet.js";

export const MARK = 0x1000;
export const NEXT = -1;
export const DROP = 2;
export const REDIRECT = 7;
export const POD = "10.244.1.2";
export const REMOTE = "10.244.2.2";
export const LOCAL_HOST = "192.168.77.1";
export const REMOTE_HOST = "192.168.77.2";
export const VNI = 42;
export const PORT = 8472;
export const OUTER_PORT = 51234;
const MAC = {
	pod: "0a:58:00:00:00:02",
	gateway: "0a:58:00:00:00:01",
	tunnel: "0a:20:00:00:00:01",
	remoteTunnel: "0a:20:00:00:00:02",
	uplink: "0a:10:00:00:00:01",
	remoteUplink: "0a:10:00:00:00:02",
};

export { MAC };

export type L4 = "tcp" | "udp" | "icmp";
const PROTOCOL = { icmp: 1, tcp: 6, udp: 17 } as const;
export const LOCAL_PORT = 40000;
export const REMOTE_PORT = 80;
export const ECHO_ID = 777;

/** Moves this process into a fresh network namespace; the first thing a test file does. */
export function enterNetns(): void {
	unshare(CLONE_NEWNET);
	loadConntrack();
	// Neighbour discovery would send packets of its own.
	tool("sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=1", "net.ipv6.conf.default.disable_ipv6=1");
	tool("ip", "link", "set", "lo", "up");
	tool("ip", "link", "add", "pod0", "mtu", "1450", "type", "veth", "peer", "name", "eth0");
	tool("ip", "link", "add", "up0", "address", MAC.uplink, "type", "veth", "peer", "name", "wire");
	tool("ip", "link", "set", "up0", "up");
	tool("ip", "link", "set", "wire", "up");
	tool("ip", "addr", "add", `${LOCAL_HOST}/24`, "dev", "up0");
	tool("ip", "link", "add", "flannel.1", "address", MAC.tunnel, "mtu", "1450", "type", "vxlan", "id", String(VNI),
		"local", LOCAL_HOST, "dev", "up0", "dstport", String(PORT), "nolearning", "noudpcsum"); // biome-ignore format: one command
	tool("ip", "link", "set", "flannel.1", "up");
	tool("ip", "route", "add", "10.244.2.0/24", "dev", "flannel.1");
	tool("sysctl", "-qw", "net.ipv4.ip_forward=1");
}

export function tool(...argv: string[]): string {
	const { status, stdout, stderr } = spawnSync(argv[0] ?? "", argv.slice(1), { encoding: "utf8" });
	if (status !== 0) throw new Error(`${argv.join(" ")}: ${stderr}`);
	return stdout;
}

export interface World {
	datapath: Datapath;
	pod0: number;
	up0: number;
	flannel: number;
	run(program: ProgramName, packet: Uint8Array, context?: TestContext): TestResult;
	/** Both init programs see the flow carried by the fallback. */
	teach(l4: L4): void;
	close(): void;
}

export interface WorldOptions {
	markMode?: MarkMode;
	maxStalenessMs?: number;
	countFlows?: boolean;
	tunnel?: Partial<
		Pick<TunnelEntry, "kind" | "port" | "ipv6" | "tosInherit" | "ttlInherit" | "dfInherit" | "labelInherit">
	>;
	/** The tunnel is a switch's, which has its flows in these zones of connection tracking. */
	zones?: Zones;
}

let worlds = 0;

export function openWorld(options: WorldOptions = {}): World {
	const bpffs = `/sys/fs/bpf/oct-world-${process.pid}-${worlds++}`;
	ensureBpffs(bpffs);
	mkdirSync(bpffs, { recursive: true });
	const rtnetlink = Rtnetlink.open();
	const links = rtnetlink.links();
	rtnetlink.close();
	const indexOf = (name: string): number => links.find((link) => link.name === name)?.ifindex ?? 0;
	const [pod0, up0, flannel] = [indexOf("pod0"), indexOf("up0"), indexOf("flannel.1")];
	const datapath = Datapath.open({
		bpffs,
		attach: "tcx",
		markMode: options.markMode ?? "metadata",
		mark: MARK,
		maxStalenessMs: options.maxStalenessMs ?? 60_000,
		countFlows: options.countFlows ?? false,
		sizes: { filter: 1024, egress: 64, ingress: 64 },
	});
	const { zones = { ipv4: 0, ipv6: 0 } } = options;
	datapath.setVeths([
		{
			ifindex: pod0,
			shaped: false,
			mtu: 1450,
			router: MAC.gateway as MacAddress,
			untracked: false,
			zones,
		},
	]);
	datapath.noteSender(pod0, MAC.pod as MacAddress);
	datapath.setTunnels([
		{
			kind: "vxlan",
			bridging: "none",
			flowBased: options.zones && { zones, gateway: 0 },
			ifindex: flannel,
			uplink: up0,
			vni: options.zones ? 0 : VNI,
			port: PORT,
			mtu: 1450,
			mac: MAC.tunnel as MacAddress,
			tosInherit: false,
			ttlInherit: false,
			dfInherit: false,
			labelInherit: false,
			ipv6: false,
			...options.tunnel,
		},
	]);
	const run: World["run"] = (program, packet, context = {}) => {
		const ifindex = program === "egress" || program === "ingress_init" ? pod0 : up0;
		const ingressIfindex = program === "ingress_init" ? flannel : 0;
		return runProgram(datapath.programFd(program), packet, { ifindex, ingressIfindex, ...context });
	};
	return {
		datapath,
		pod0,
		up0,
		flannel,
		run,
		teach: (l4) => {
			track(l4);
			run("egress_init", outbound(inner(l4, "egress", { ttl: 63 })), { mark: MARK });
			run("ingress_init", toPod(inner(l4, "ingress", { ttl: 62 })), { mark: MARK });
		},
		close: () => {
			datapath.close();
			destroy(bpffs);
		},
	};
}

const tracked = new Set<string>();

/** An established entry of connection tracking, made with conntrack-tools. */
export function track(
	l4: L4,
	flags = "SEEN_REPLY,ASSURED",
	ports = { local: LOCAL_PORT, remote: REMOTE_PORT },
	zone = 0,
): void {
	const key = `${l4} ${flags} ${ports.local} ${ports.remote} ${zone}`;
	if (l4 === "icmp" || tracked.has(key)) return;
	tracked.add(key);
	const state = l4 === "tcp" ? ["--state", "ESTABLISHED"] : [];
	tool("conntrack", "-I", "-p", l4, "-s", POD, "-d", REMOTE, "--sport", String(ports.local), "--dport", String(ports.remote),
		"--timeout", "600", "--status", flags, ...state, ...(zone === 0 ? [] : ["--zone", String(zone)])); // biome-ignore format: one command
}

/** The pod's packet, or the answer to it. */
export function inner(
	l4: L4,
	direction: "egress" | "ingress",
	header: Partial<Ipv4Header> = {},
	payload = "hello",
): Buffer {
	const out = direction === "egress";
	const ports = out
		? { source: LOCAL_PORT, destination: REMOTE_PORT }
		: { source: REMOTE_PORT, destination: LOCAL_PORT };
	const body = {
		tcp: () => tcp(ports, payload),
		udp: () => udp(ports, payload),
		icmp: () => icmp(out ? 8 : 0, 0, ECHO_ID, payload),
	}[l4]();
	return ipv4({ source: out ? POD : REMOTE, destination: out ? REMOTE : POD, protocol: PROTOCOL[l4], ...header }, body);
}

/** As it leaves the pod. */
export function fromPod(packet: Uint8Array, macs: { source?: string; destination?: string } = {}): Buffer {
	return ethernet({ source: MAC.pod, destination: MAC.gateway, ...macs }, packet);
}

/** As the fallback delivers it. */
export function toPod(packet: Uint8Array): Buffer {
	return ethernet({ source: MAC.gateway, destination: MAC.pod }, packet);
}

export interface OuterOptions {
	ip?: Partial<Ipv4Header>;
	vni?: number;
	flags?: number;
	sourcePort?: number;
	destinationPort?: number;
	udpChecksum?: number;
	innerSource?: string;
	innerDestination?: string;
	destinationMac?: string;
}

/** Which way a tunnel packet goes. */
export type Way = "out" | "in";

/** What the tunnel device makes of a packet, up to the outer UDP header. */
export function datagram(way: Way, packet: Uint8Array, options: OuterOptions): Buffer {
	const out = way === "out";
	const innerFrame = ethernet(
		{
			source: options.innerSource ?? (out ? MAC.tunnel : MAC.remoteTunnel),
			destination: options.innerDestination ?? (out ? MAC.remoteTunnel : MAC.tunnel),
		},
		packet,
	);
	return udp(
		{
			source: options.sourcePort ?? OUTER_PORT,
			destination: options.destinationPort ?? PORT,
			checksum: options.udpChecksum ?? 0,
		},
		vxlan(options.vni ?? VNI, innerFrame, options.flags),
	);
}

/** An outer IP packet between the two hosts. */
export function onWire(way: Way, packet: Uint8Array, options: OuterOptions): Buffer {
	const out = way === "out";
	const [source, destination] = out ? [MAC.uplink, MAC.remoteUplink] : [MAC.remoteUplink, MAC.uplink];
	return ethernet({ source, destination: options.destinationMac ?? destination }, packet);
}

function encapsulated(way: Way, packet: Uint8Array, options: OuterOptions): Buffer {
	const out = way === "out";
	const header = {
		source: out ? LOCAL_HOST : REMOTE_HOST,
		destination: out ? REMOTE_HOST : LOCAL_HOST,
		protocol: 17,
		fragment: 0,
		id: 0x4321,
		...options.ip,
	};
	return onWire(way, ipv4(header, datagram(way, packet, options)), options);
}

/** As the tunnel device sends it. */
export function outbound(packet: Uint8Array, options: OuterOptions = {}): Buffer {
	return encapsulated("out", packet, options);
}

/** As it arrives from the remote host. */
export function inbound(packet: Uint8Array, options: OuterOptions = {}): Buffer {
	return encapsulated("in", packet, options);
}
