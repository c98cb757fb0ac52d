import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { parseIpv4 } from "../net/ipv4.js";
import type { MacAddress } from "../net/mac.js";
import type { Link, Route, VxlanInfo } from "./link.js";
import { findPodVeths, findTunnels, type Network, type Tunnel } from "./topology.js";

function device(ifindex: number, name: string, change: Partial<Link> = {}): Link {
	return {
		ifindex,
		name,
		kind: undefined,
		mac: "02:00:00:00:00:01" as MacAddress,
		mtu: 1500,
		up: true,
		loopback: false,
		master: undefined,
		link: undefined,
		linkNetnsid: undefined,
		vxlan: undefined,
		geneve: undefined,
		bridge: undefined,
		...change,
	};
}

const VXLAN: VxlanInfo = {
	vni: 1,
	port: 8472,
	link: undefined,
	local: undefined,
	ipv6: false,
	portRange: { low: 0, high: 0 },
	ttl: 0,
	ttlInherit: false,
	tos: 0,
	df: "unset",
	udpChecksum: false,
	labelInherit: false,
	zeroChecksum6: { tx: false, rx: false },
	collectMetadata: false,
	extensions: false,
};

function vxlan(change: Partial<VxlanInfo> = {}, link: Partial<Link> = {}): Link {
	return device(4, "flannel.1", { kind: "vxlan", mtu: 1450, vxlan: { ...VXLAN, ...change }, ...link });
}

const over6 = (zeroChecksum6: VxlanInfo["zeroChecksum6"], change: Partial<VxlanInfo> = {}): Link =>
	vxlan({ link: 2, ipv6: true, udpChecksum: true, zeroChecksum6, ...change });

function route(to: string, device: number, table = 254): Route {
	const [ip, prefix] = to.split("/");
	return {
		destination: parseIpv4(ip as string),
		prefixLength: Number(prefix),
		gateway: undefined,
		device,
		table,
		source: undefined,
		forwards: true,
		mtu: undefined,
	};
}

const lo = device(1, "lo", { loopback: true, mtu: 65536 });
const eth0 = device(2, "eth0");
const eth1 = device(3, "eth1");

function tunnelOf(tunnel: Link, network: Partial<Network> = {}): Tunnel {
	const [found] = findTunnels({ links: [lo, eth0, eth1, tunnel], addresses: [], routes: [], fdb: [], ...network });
	assert.ok(found);
	return found;
}

describe("findTunnels() finds the uplink", () => {
	const local = parseIpv4("192.168.7.1");
	const remote = parseIpv4("192.168.7.2");
	const mac = "0a:00:00:00:00:02" as MacAddress;
	const uplinkOf = (tunnel: Link, network: Partial<Network>) => tunnelOf(tunnel, network).uplink?.name;
	const addresses = [
		{ ifindex: 1, ip: local, prefixLength: 32 },
		{ ifindex: 3, ip: local, prefixLength: 24 },
	];
	const fdb = [{ ifindex: 4, master: undefined, mac, remote }];
	const routes = [route("0.0.0.0/0", 2), route("192.168.7.0/24", 3)];

	it("by the device that the tunnel names", () => {
		assert.equal(uplinkOf(vxlan({ link: 2, local }), { addresses, fdb, routes }), "eth0");
	});

	it("its MTU is the least that a device or a route over it allows", () => {
		const mtuOf = (...more: Route[]) =>
			findTunnels({ links: [lo, eth0, eth1, vxlan({ link: 2 })], addresses: [], routes: more, fdb: [] })[0]?.mtu;
		assert.equal(mtuOf(), 1450);
		assert.equal(mtuOf({ ...route("10.244.2.0/24", 4), mtu: 1300 }), 1300);
		assert.equal(mtuOf({ ...route("192.168.7.0/24", 2), mtu: 1400 }), 1350);
		assert.equal(mtuOf({ ...route("192.168.7.0/24", 3), mtu: 1000 }), 1450, "another device's route");
	});

	it("else by its local address, not on loopback", () => {
		assert.equal(uplinkOf(vxlan({ local }), { addresses, routes: [route("0.0.0.0/0", 2)] }), "eth1");
	});

	it("else by the most specific route to a remote host of its forwarding entries", () => {
		assert.equal(uplinkOf(vxlan(), { fdb, routes }), "eth1");
		assert.equal(
			uplinkOf(vxlan(), { fdb: [{ ifindex: 9, master: undefined, mac, remote }], routes }),
			"eth0",
			"not of another tunnel's",
		);
		const multicast = [{ ifindex: 4, master: undefined, mac, remote: parseIpv4("239.1.1.1") }];
		assert.equal(uplinkOf(vxlan(), { fdb: multicast, routes: [route("224.0.0.0/4", 3), ...routes] }), "eth0");
	});

	it("else by the default route", () => {
		assert.equal(uplinkOf(vxlan(), { routes }), "eth0");
		assert.equal(uplinkOf(vxlan(), { routes: [route("0.0.0.0/0", 3, 1000)] }), undefined, "of the main table only");
	});

	it("never the tunnel device itself", () => {
		assert.equal(uplinkOf(vxlan(), { fdb, routes: [route("192.168.7.0/24", 4), route("0.0.0.0/0", 2)] }), "eth0");
	});
});

describe("findTunnels() describes a tunnel", () => {
	it("with VNI, port and nothing inherited", () => {
		const { link, uplink, ...rest } = tunnelOf(vxlan({ link: 2, vni: 42, port: 4789, tos: 0x20, ttl: 5, df: "set" }));
		assert.equal(link.name, "flannel.1");
		assert.equal(uplink, eth0);
		assert.deepEqual(rest, {
			kind: "vxlan",
			vni: 42,
			port: 4789,
			mtu: 1450,
			tosInherit: false,
			ttlInherit: false,
			bridge: undefined,
			dfInherit: false,
			labelInherit: false,
			ipv6: false,
			flowBased: undefined,
			why: undefined,
		});
	});

	it("with what it inherits", () => {
		const tunnel = tunnelOf(vxlan({ link: 2, tos: 1, ttlInherit: true, df: "inherit" }));
		assert.deepEqual([tunnel.tosInherit, tunnel.ttlInherit, tunnel.dfInherit], [true, true, true]);
	});

	it("over IPv6, whose header is longer, and whose checksum is another option than that over IPv4", () => {
		const { ipv6, mtu, labelInherit, why } = tunnelOf(over6({ tx: true, rx: true }, { labelInherit: true }));
		assert.deepEqual([ipv6, mtu, labelInherit, why], [true, 1430, true, undefined]);
	});

	it("with the smaller MTU of the device and what the uplink leaves", () => {
		assert.equal(tunnelOf(vxlan({ link: 2 }, { mtu: 1400 })).mtu, 1400);
		assert.equal(tunnelOf(vxlan({ link: 2 }, { mtu: 1500 })).mtu, 1450);
	});

	it("and passes over devices of other kinds", () => {
		assert.deepEqual(findTunnels({ links: [lo, eth0], addresses: [], routes: [], fdb: [] }), []);
	});
});

const gateway = device(9, "gw0", { kind: "openvswitch" });
const gatewayAddress = { ifindex: 9, ip: parseIpv4("10.244.1.1"), prefixLength: 24 };
const switchOf = (tunnel: { udpChecksum?: boolean; tosInherit?: boolean }): Network["switch"] => ({
	zones: { ipv4: 65520, ipv6: 65510 },
	remotes: [parseIpv4("192.168.77.2")],
	tunnels: [{ kind: "vxlan", port: 8472, tosInherit: false, ttlInherit: false, udpChecksum: false, ...tunnel }],
});

describe("findTunnels() describes a switch's tunnel", () => {
	const metadata = vxlan({ vni: 0, collectMetadata: true });
	const network = { addresses: [gatewayAddress], routes: [route("192.168.77.0/24", 2)], fdb: [] };

	it("with its gateway, zone and options, and the uplink towards the hosts that its flows name", () => {
		const links = [eth0, gateway, metadata];
		const [tunnel] = findTunnels({ ...network, links, switch: switchOf({ tosInherit: true }) });
		assert.deepEqual(
			[
				tunnel?.why,
				tunnel?.uplink?.name,
				tunnel?.flowBased?.zones,
				tunnel?.flowBased?.gateway?.name,
				tunnel?.tosInherit,
			],
			[undefined, "eth0", { ipv4: 65520, ipv6: 65510 }, "gw0", true],
		);
	});

	it("with Antrea's zone where only its gateway is seen, over the default route", () => {
		const antrea = { ...gateway, name: "antrea-gw0" };
		const [tunnel] = findTunnels({
			...network,
			links: [eth0, device(8, "other0", { kind: "openvswitch" }), antrea, metadata],
			routes: [route("0.0.0.0/0", 2)],
		});
		assert.deepEqual(
			[tunnel?.why, tunnel?.uplink?.name, tunnel?.flowBased?.zones],
			[undefined, "eth0", { ipv4: 65520, ipv6: 65510 }],
		);
	});
});

describe("findTunnels() says why a tunnel cannot be accelerated:", () => {
	const cases: [string, Link, RegExp, Partial<Network>?][] = [
		["underlay elsewhere", vxlan({ link: 2 }, { linkNetnsid: 0 }), /another network namespace/],
		["metadata mode", vxlan({ link: 2, vni: 0, collectMetadata: true }), /metadata mode/],
		[
			"metadata mode, zone not known",
			vxlan({ link: 2, vni: 0, collectMetadata: true }),
			/zone is not known.*set ovsZone/,
			{ links: [eth0, gateway, vxlan({ link: 2, vni: 0, collectMetadata: true })], addresses: [gatewayAddress] },
		],
		[
			"metadata mode, with checksums",
			vxlan({ link: 2, vni: 0, collectMetadata: true }),
			/options:csum=true/,
			{
				links: [eth0, gateway, vxlan({ link: 2, vni: 0, collectMetadata: true })],
				addresses: [gatewayAddress],
				switch: switchOf({ udpChecksum: true }),
			},
		],
		["no VNI", vxlan({ link: 2, vni: 0 }), /has no VNI/],
		["UDP checksum over IPv6", over6({ tx: false, rx: true }), /checksums over IPv6; create it with udp6zerocsumtx/],
		[
			"none over IPv6 refused",
			over6({ tx: true, rx: false }),
			/without checksum over IPv6; create it with udp6zerocsumrx/,
		],
		["extensions", vxlan({ link: 2, extensions: true }), /extension/],
		["UDP checksum", vxlan({ link: 2, udpChecksum: true }), /checksums; create it with noudpcsum/],
		["tunnel down", vxlan({ link: 2 }, { up: false }), /"flannel.1" is down/],
		["no uplink", vxlan(), /has no uplink/],
		[
			"uplink down",
			vxlan({ link: 2 }),
			/"eth0", which is down/,
			{ links: [{ ...eth0, up: false }, vxlan({ link: 2 })] },
		],
		[
			"uplink without Ethernet",
			vxlan({ link: 2 }),
			/not an Ethernet/,
			{ links: [{ ...eth0, mac: undefined }, vxlan({ link: 2 })] },
		],
	];
	for (const [name, link, expected, network] of cases)
		it(name, () => {
			assert.match(tunnelOf(link, network).why ?? "", expected);
		});

	it("uplink is a tunnel", () => {
		const under = vxlan({ link: 2 }, { ifindex: 5, name: "under" });
		const tunnels = findTunnels({ links: [eth0, vxlan({ link: 5 }), under], addresses: [], routes: [], fdb: [] });
		assert.match(tunnels[0]?.why ?? "", /"under", which is a tunnel device itself/);
		assert.equal(tunnels[1]?.why, undefined);
	});
});

describe("findPodVeths()", () => {
	const veth = (ifindex: number, name: string, change: Partial<Link> = {}) =>
		device(ifindex, name, { kind: "veth", link: 2, linkNetnsid: 0, ...change });
	const names = (links: Link[]) => {
		const tunnels = findTunnels({ links, addresses: [], routes: [], fdb: [] });
		return findPodVeths(links, tunnels).map(({ link }) => link.name);
	};

	it("lists veths whose peer lives in another namespace", () => {
		const here = veth(12, "here", { linkNetnsid: undefined, link: 13 });
		assert.deepEqual(names([lo, eth0, vxlan({ link: 2 }), veth(10, "pod1"), veth(11, "pod2", { master: 5 }), here]), [
			"pod1",
			"pod2",
		]);
	});

	it("leaves out a veth that is the uplink, whose peer's number is that of a device here", () => {
		const uplink = veth(2, "eth0", { link: 10 });
		assert.deepEqual(names([uplink, vxlan({ link: 2 }), veth(10, "pod1")]), ["pod1"]);
	});

	it("leaves out the veths under a VLAN or bridge that is the uplink", () => {
		const vlan = device(20, "wire.5", { kind: "vlan", link: 21 });
		const bridge = device(22, "br-wire", { kind: "bridge" });
		const links = [vlan, veth(21, "wire"), bridge, veth(23, "port", { master: 22 }), veth(24, "pod1")];
		assert.deepEqual(names([...links, vxlan({ link: 20 })]), ["port", "pod1"]);
		assert.deepEqual(names([...links, vxlan({ link: 22 })]), ["wire", "pod1"]);
	});
});
