// Rtnetlink against the running kernel, in a network namespace of its own:
//
//   uplink (veth) ---- peer in the pod namespace        br0 -- pod0 (veth) ---- eth0 in the pod namespace
//   vxlan devices with every flag ONCache asks about
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { closeSync, openSync } from "node:fs";
import { after, before, describe, it } from "node:test";
import { KernelError } from "../../src/kernel/error.js";
import { CLONE_NEWNET, unshare } from "../../src/kernel/libc.js";
import type { Link, VxlanInfo } from "../../src/kernel/link.js";
import { NETLINK_ROUTE, Netlink } from "../../src/kernel/netlink.js";
import { Rtnetlink } from "../../src/kernel/rtnetlink.js";
import { formatIp, parseIp } from "../../src/net/ip.js";
import { parseIpv4 } from "../../src/net/ipv4.js";

const elsewhere = openSync("/proc/thread-self/ns/net", "r");
unshare(CLONE_NEWNET);
const podNetns = `/proc/${process.pid}/fd/${openSync("/proc/thread-self/ns/net", "r")}`;
unshare(CLONE_NEWNET);

const PAIRS = 500;
let kernel: Rtnetlink;

function sh(script: string): void {
	execFileSync("sh", ["-ec", script], { stdio: ["ignore", "ignore", "pipe"] });
}

function link(name: string): Link {
	const found = kernel.links().find((candidate) => candidate.name === name);
	assert.ok(found, `a device ${name}`);
	return found;
}

function vxlan(options: string): VxlanInfo {
	sh(`ip link add probe type vxlan ${options}`);
	try {
		const info = link("probe").vxlan;
		assert.ok(info, "IFLA_VXLAN of a vxlan device");
		return info;
	} finally {
		sh("ip link del probe");
	}
}

before(() => {
	sh(`
		ip link set lo up
		ip link add uplink mtu 1600 address 02:00:00:00:00:01 type veth peer name uplink netns ${podNetns}
		ip addr add 192.168.7.1/24 dev uplink
		ip link set uplink up
		ip link add br0 type bridge
		ip link add pod0 type veth peer name eth0 netns ${podNetns}
		ip link set pod0 master br0
	`);
	kernel = Rtnetlink.open();
});
after(() => kernel.close());

describe("link()", () => {
	it("finds one device by its name, and none where there is none", () => {
		assert.deepEqual(kernel.link("pod0"), link("pod0"));
		assert.equal(kernel.link("nothere"), undefined);
	});

	it("finds the other end of a veth in its own network namespace", () => {
		const fd = openSync(podNetns, "r");
		const nsid = kernel.nsidOf(fd);
		closeSync(fd);
		assert.equal(nsid, link("pod0").linkNetnsid);
		assert.equal(kernel.link("eth0", nsid)?.link, link("pod0").ifindex);
		assert.equal(kernel.link("pod0", nsid), undefined);
	});

	it("a namespace that no device leads to has no number", () => {
		assert.equal(kernel.nsidOf(elsewhere), undefined);
	});
});

describe("links()", () => {
	it("describes loopback", () => {
		const lo = link("lo");
		assert.deepEqual(lo, {
			ifindex: 1,
			name: "lo",
			kind: undefined,
			mac: "00:00:00:00:00:00",
			mtu: 65536,
			up: true,
			loopback: true,
			master: undefined,
			link: undefined,
			linkNetnsid: undefined,
			vxlan: undefined,
			geneve: undefined,
			bridge: undefined,
		});
	});

	it("describes a veth whose peer lives in another namespace, and its bridge", () => {
		const uplink = link("uplink");
		assert.equal(uplink.kind, "veth");
		assert.equal(uplink.mac, "02:00:00:00:00:01");
		assert.equal(uplink.mtu, 1600);
		assert.equal(uplink.up, true);
		assert.equal(typeof uplink.linkNetnsid, "number");
		assert.equal(typeof uplink.link, "number");
		const pod = link("pod0");
		assert.equal(pod.up, false);
		assert.equal(pod.master, link("br0").ifindex);
		assert.equal(pod.linkNetnsid, uplink.linkNetnsid);
	});

	it("gives a veth no namespace id when its peer lives here too", () => {
		sh("ip link add here0 type veth peer name here1");
		assert.equal(link("here0").linkNetnsid, undefined);
		assert.equal(link("here0").link, link("here1").ifindex);
		sh("ip link del here0");
	});

	it("gives a device without Ethernet header no MAC address", () => {
		sh("ip tuntap add tun9 mode tun");
		assert.equal(link("tun9").mac, undefined);
		sh("ip link del tun9");
	});

	it("describes a vxlan device as Flannel makes it", () => {
		assert.deepEqual(vxlan("id 1 dstport 8472 local 192.168.7.1 dev uplink nolearning noudpcsum"), {
			vni: 1,
			port: 8472,
			link: link("uplink").ifindex,
			local: parseIpv4("192.168.7.1"),
			ipv6: false,
			portRange: { low: 0, high: 0 },
			ttl: 0,
			ttlInherit: false,
			tos: 0,
			df: "unset",
			labelInherit: false,
			udpChecksum: false,
			zeroChecksum6: { tx: false, rx: false },
			collectMetadata: false,
			extensions: false,
		});
	});

	it("reads ttl, tos, df, checksum and source ports of a vxlan device", () => {
		const info = vxlan("id 42 dstport 4789 ttl 5 tos inherit df set udpcsum srcport 20000 30000");
		assert.equal(info.vni, 42);
		assert.equal(info.port, 4789);
		assert.equal(info.link, undefined);
		assert.equal(info.local, undefined);
		assert.equal(info.ttl, 5);
		assert.equal(info.ttlInherit, false);
		assert.equal(info.tos, 1);
		assert.equal(info.df, "set");
		assert.equal(info.udpChecksum, true);
		assert.deepEqual(info.portRange, { low: 20000, high: 30000 });
	});

	it("reads inherited ttl and df, and a fixed tos", () => {
		const info = vxlan("id 16777215 dstport 4789 ttl inherit tos 0x20 df inherit noudpcsum");
		assert.equal(info.vni, 16777215);
		assert.equal(info.ttlInherit, true);
		assert.equal(info.tos, 0x20);
		assert.equal(info.df, "inherit");
	});

	it("recognises metadata mode, extensions and an IPv6 underlay", () => {
		assert.equal(vxlan("dstport 4789 external").collectMetadata, true);
		assert.equal(vxlan("id 5 dstport 4789 gbp").extensions, true);
		assert.equal(vxlan("dstport 4789 external gpe").extensions, true);
		assert.equal(vxlan("id 5 dstport 4789 remcsumtx").extensions, true);
		assert.equal(vxlan("id 5 dstport 4789 local fd00::1").ipv6, true);
		assert.equal(vxlan("id 5 dstport 4789").ipv6, false);
		const over6 = "id 5 dstport 4789 local fd00::1";
		assert.deepEqual(vxlan(over6).zeroChecksum6, { tx: false, rx: false });
		assert.deepEqual(vxlan(`${over6} udp6zerocsumtx`).zeroChecksum6, { tx: true, rx: false });
		assert.deepEqual(vxlan(`${over6} udp6zerocsumrx`).zeroChecksum6, { tx: false, rx: true });
	});
});

it("addresses() lists the addresses of both families with their devices, of a point-to-point device its own", () => {
	sh("ip addr add 10.9.0.1 peer 10.9.0.2/32 dev br0");
	assert.deepEqual(
		kernel.addresses().map(({ ifindex, ip, prefixLength }) => [ifindex, formatIp(ip), prefixLength]),
		[
			[1, "127.0.0.1", 8],
			[link("uplink").ifindex, "192.168.7.1", 24],
			[link("br0").ifindex, "10.9.0.1", 32],
			[1, "::1", 128],
		],
	);
});

it("routes() lists gateways, devices and tables, the preferred one first", () => {
	sh(`
		ip route add default via 192.168.7.254 dev uplink metric 200
		ip route add default via 192.168.7.253 dev uplink metric 100
		ip route add 10.244.2.0/24 via 192.168.7.2 dev uplink onlink mtu 1300
		ip route add blackhole 10.66.0.0/16
		ip route add 10.67.0.0/16 dev uplink table 1000
	`);
	const routes = kernel.routes().map(({ destination, gateway, ...route }) => ({
		...route,
		to: `${formatIp(destination)}/${route.prefixLength}`,
		via: gateway && formatIp(gateway),
	}));
	const device = link("uplink").ifindex;
	const to = (destination: string) => routes.filter((route) => route.to === destination);
	assert.deepEqual(
		to("0.0.0.0/0").map((route) => route.via),
		["192.168.7.253", "192.168.7.254"],
	);
	assert.deepEqual(to("10.244.2.0/24"), [
		{
			prefixLength: 24,
			device,
			table: 254,
			source: undefined,
			forwards: true,
			mtu: 1300,
			to: "10.244.2.0/24",
			via: "192.168.7.2",
		},
	]);
	assert.equal(to("10.66.0.0/16")[0]?.forwards, false);
	assert.equal(to("10.66.0.0/16")[0]?.device, undefined);
	assert.equal(to("10.67.0.0/16")[0]?.table, 1000);
	assert.equal(to("192.168.7.1/32")[0]?.table, 255);
});

it("fdb() lists the remote hosts behind one vxlan device", () => {
	sh(`
		ip link add vx0 type vxlan id 7 dstport 8472 dev uplink nolearning
		ip link add vx1 type vxlan id 8 dstport 8472 dev uplink nolearning
		bridge fdb add 0a:00:00:00:00:02 dev vx0 dst 192.168.7.2 self permanent
		bridge fdb append 00:00:00:00:00:00 dev vx0 dst 192.168.7.3 self permanent
		bridge fdb add 0a:00:00:00:00:09 dev vx1 dst 192.168.7.9 self permanent
	`);
	const ifindex = link("vx0").ifindex;
	const entries = kernel.fdb(ifindex).filter((entry) => entry.remote !== undefined);
	assert.deepEqual(
		entries.toSorted((a, b) => (b.mac > a.mac ? 1 : -1)),
		[
			{ ifindex, master: undefined, mac: "0a:00:00:00:00:02", remote: parseIpv4("192.168.7.2") },
			{ ifindex, master: undefined, mac: "00:00:00:00:00:00", remote: parseIpv4("192.168.7.3") },
		],
	);
	sh("ip link del vx0; ip link del vx1");
});

it("qdiscs() lists shapers and clsact with handle and parent", () => {
	sh(`
		tc qdisc add dev pod0 root handle 1: tbf rate 10mbit burst 32k latency 50ms
		tc qdisc add dev pod0 clsact
	`);
	const ifindex = link("pod0").ifindex;
	const qdiscs = kernel.qdiscs().filter((qdisc) => qdisc.ifindex === ifindex);
	assert.deepEqual(qdiscs, [
		{ ifindex, kind: "tbf", handle: 0x10000, parent: 0xffffffff },
		{ ifindex, kind: "clsact", handle: 0xffff0000, parent: 0xfffffff1 },
	]);
});

it("filters() lists classifiers of one device and direction", () => {
	sh(`
		tc filter add dev pod0 ingress protocol ip prio 7 u32 match ip protocol 17 0xff action mirred egress redirect dev lo
		tc filter add dev pod0 egress protocol ip prio 9 bpf da bytecode '1,6 0 0 4294967295,'
	`);
	const ifindex = link("pod0").ifindex;
	const ingress = kernel.filters(ifindex, 0xfffffff2);
	assert.deepEqual(new Set(ingress.map((filter) => `${filter.kind} ${filter.priority}`)), new Set(["u32 7"]));
	assert.deepEqual(kernel.filters(ifindex, 0xfffffff3), [
		{
			ifindex,
			parent: 0xfffffff3,
			kind: "bpf",
			priority: 9,
			handle: 1,
			bpfName: undefined,
			bpfId: undefined,
		},
	]);
	assert.deepEqual(kernel.filters(1, 0xfffffff2), []);
});

it("an error carries the action, the kernel's own words and the code", () => {
	const netlink = Netlink.open(NETLINK_ROUTE);
	try {
		const RTM_GETLINK = 18;
		assert.throws(
			() => netlink.request({ type: RTM_GETLINK, body: Buffer.alloc(16), action: "show device 0" }, (body) => body),
			(error: KernelError) =>
				error instanceof KernelError &&
				error.code === "EINVAL" &&
				/^Cannot show device 0: .+ \(EINVAL\)$/.test(error.message),
		);
		const body = Buffer.alloc(16);
		body.writeInt32LE(1, 4);
		const answers = netlink.request({ type: RTM_GETLINK, body, action: "show device 1" }, (answer) =>
			answer.readInt32LE(4),
		);
		assert.deepEqual(answers, [1], "the socket still works after an error");
	} finally {
		netlink.close();
	}
});

it(`links() lists ${2 * PAIRS} more devices completely`, () => {
	const before = kernel.links().length;
	const pairs = Array.from({ length: PAIRS }, (_, index) => [`many${index}`, `peer${index}`] as const);
	// Not bridges: the kernel needs 16 ms to remove each, with all of rtnetlink locked.
	const batch = pairs.map(([name, peer]) => `link add ${name} type veth peer name ${peer}\n`).join("");
	execFileSync("ip", ["-batch", "-"], { input: batch });
	const links = kernel.links();
	assert.equal(links.length, before + 2 * PAIRS);
	const present = new Set(links.map((each) => each.name));
	assert.deepEqual(
		pairs.flat().filter((name) => !present.has(name)),
		[],
	);
});

it("routesTo() is the kernel's own answer for each address, in order, and none where it has no route", () => {
	sh("ip rule add to 10.68.0.0/16 lookup 1001; ip route add 10.68.0.0/16 via 192.168.7.68 table 1001");
	const asked = ["10.244.2.9", "10.66.0.1", "10.68.1.1", "192.168.7.77"].map((ip) => parseIpv4(ip));
	const many = Array.from({ length: 50 }, () => asked).flat();
	const answers = kernel
		.routesTo(many)
		.map((route) => route && [route.device, route.gateway && formatIp(route.gateway)]);
	const device = link("uplink").ifindex;
	const expected = [[device, "192.168.7.2"], undefined, [device, "192.168.7.68"], [device, undefined]];
	assert.deepEqual(answers, Array.from({ length: 50 }, () => expected).flat());
	sh("ip rule del to 10.68.0.0/16 lookup 1001");
});

it("neighbours() has a MAC address only while the entry may be used", () => {
	sh(`
		ip neigh replace 192.168.7.80 lladdr 0a:00:00:00:00:80 dev uplink nud permanent
		ip neigh replace 192.168.7.81 dev uplink nud failed
	`);
	const macOf = (ip: string) => kernel.neighbours().find((entry) => entry.ip === parseIpv4(ip))?.mac;
	assert.equal(macOf("192.168.7.80"), "0a:00:00:00:00:80");
	assert.equal(macOf("192.168.7.81"), undefined);
});

it("addresses(), routes(), routesTo() and neighbours() know IPv6 too", () => {
	sh(`
		sysctl -qw net.ipv6.conf.uplink.disable_ipv6=0
		ip addr add fd00:7::1/64 dev uplink nodad
		ip route add fd00:10:244:2::/64 via fd00:7::2 dev uplink onlink mtu 1300
		ip route add blackhole fd00:66::/32
		ip route add fd00:68::/32 via fd00:7::68 dev uplink table 1001
		ip -6 rule add to fd00:68::/32 lookup 1001
		ip neigh replace fd00:7::80 lladdr 0a:00:00:00:00:80 dev uplink nud permanent
		ip neigh replace fd00:7::81 dev uplink nud failed
	`);
	const device = link("uplink").ifindex;
	assert.ok(kernel.addresses().some(({ ifindex, ip }) => ifindex === device && formatIp(ip) === "fd00:7::1"));
	const pods = kernel.routes().find(({ destination }) => formatIp(destination) === "fd00:10:244:2::");
	assert.deepEqual([pods?.prefixLength, pods?.device, pods?.mtu, pods?.table], [64, device, 1300, 254]);
	assert.equal(pods?.gateway, parseIp("fd00:7::2"));

	const mixed = ["fd00:10:244:2::9", "10.244.2.9", "fd00:66::1", "fd00:68::1", "fd00:7::77", "fd00:99::1"].map(parseIp);
	assert.deepEqual(
		kernel.routesTo(mixed).map((route) => route && [route.device, route.gateway && formatIp(route.gateway)]),
		[[device, "fd00:7::2"], [device, "192.168.7.2"], undefined, [device, "fd00:7::68"], [device, undefined], undefined],
	);

	sh("ip route add blackhole fd00:7::77/128");
	const bound = { device, source: parseIp("fd00:7::1") };
	assert.deepEqual(
		kernel.routesTo(["fd00:7::76", "fd00:7::77"].map(parseIp), bound).map((route) => route?.device),
		[device, undefined],
		"a socket that is bound to a device and an address finds the route that leads nowhere",
	);
	sh("ip route del blackhole fd00:7::77/128");

	const macOf = (ip: string) => kernel.neighbours().find((entry) => entry.ip === parseIp(ip))?.mac;
	assert.equal(macOf("fd00:7::80"), "0a:00:00:00:00:80");
	assert.equal(macOf("fd00:7::81"), undefined);
	sh("ip -6 rule del to fd00:68::/32 lookup 1001");
});
