import assert from "node:assert/strict";
import { describe, test } from "node:test";
import type { Filter, Link, Qdisc, VxlanInfo } from "../kernel/link.js";
import type { Ipv4 } from "../net/ipv4.js";
import type { MacAddress } from "../net/mac.js";
import { CHOOSE_ALL, desiredState, tunnelEntries, vethEntries } from "./desired.js";
import type { Snapshot } from "./snapshot.js";

const VXLAN: VxlanInfo = {
	vni: 1, port: 8472, link: 2, local: 0xc0a84d01 as Ipv4, portRange: { low: 0, high: 0 }, ttl: 0, ttlInherit: false,
	tos: 0, df: "unset", udpChecksum: false, labelInherit: false, zeroChecksum6: { tx: false, rx: false }, collectMetadata: false, extensions: false, ipv6: false,
}; // biome-ignore format: a record

function link(ifindex: number, name: string, more: Partial<Link> = {}): Link {
	const none = {
		kind: undefined,
		master: undefined,
		link: undefined,
		linkNetnsid: undefined,
		vxlan: undefined,
		geneve: undefined,
		bridge: undefined,
	};
	return {
		ifindex,
		name,
		mac: "0a:00:00:00:00:01" as MacAddress,
		mtu: 1500,
		up: true,
		loopback: false,
		...none,
		...more,
	};
}

const pod = (ifindex: number, name: string, more: Partial<Link> = {}): Link =>
	link(ifindex, name, { kind: "veth", link: 2, linkNetnsid: ifindex, mtu: 1450, ...more });

function snapshot(links: Link[], more: Partial<Snapshot> = {}): Snapshot {
	const base = [link(2, "eth0"), link(5, "flannel.1", { kind: "vxlan", mtu: 1450, vxlan: VXLAN })];
	return {
		links: [...base, ...links],
		addresses: [],
		routes: [],
		fdb: [],
		qdiscs: [],
		filters: [],
		bridgesCallIptables: true,
		ipsec: [],
		...more,
	};
}

const qdisc = (ifindex: number, kind: string): Qdisc => ({ ifindex, kind, handle: 0, parent: 0xffffffff });
const filter = (ifindex: number, parent: number): Filter => ({
	ifindex, parent, kind: "u32", priority: 1, handle: 1, bpfName: undefined, bpfId: undefined,
}); // biome-ignore format: a record

test("desiredState() wants the tunnel, its uplink and every pod's veth", () => {
	const desired = desiredState(snapshot([pod(7, "veth7")]), CHOOSE_ALL);
	assert.deepEqual(desired.uplinks, [2]);
	assert.deepEqual(
		tunnelEntries(desired).map(({ ifindex, uplink, vni, mtu }) => [ifindex, uplink, vni, mtu]),
		[[5, 2, 1, 1450]],
	);
	assert.deepEqual(vethEntries(desired), [
		{
			ifindex: 7,
			shaped: false,
			mtu: 1450,
			router: "0a:00:00:00:00:01",
			untracked: false,
			zones: { ipv4: 0, ipv6: 0 },
		},
	]);
});

test("tunnels over IPv6 are the last, and dscp mode has none", () => {
	const over6 = { ...VXLAN, ipv6: true, zeroChecksum6: { tx: true, rx: true } };
	const first = link(4, "flannel-v6.1", { kind: "vxlan", mtu: 1430, vxlan: over6 });
	const entries = tunnelEntries(desiredState(snapshot([]), CHOOSE_ALL));
	assert.deepEqual(entries.map(({ ifindex }) => ifindex), [5]); // biome-ignore format: a list
	const both = { ...snapshot([]), links: [first, ...snapshot([]).links] };
	assert.deepEqual(
		tunnelEntries(desiredState(both, CHOOSE_ALL)).map(({ ifindex, ipv6, mtu }) => [ifindex, ipv6, mtu]),
		[
			[5, false, 1450],
			[4, true, 1430],
		],
	);
	const why = "dscp mode knows outer IPv4 headers only";
	const { tunnels } = desiredState(both, { ...CHOOSE_ALL, whyNoIpv6Underlay: why });
	assert.deepEqual(tunnels.map((tunnel) => tunnel.why), [why, null]); // biome-ignore format: a list
});

test("a pod's MTU is no larger than its bridge's", () => {
	const bridge = link(9, "cni0", { kind: "bridge", mtu: 1400 });
	assert.equal(vethEntries(desiredState(snapshot([bridge, pod(7, "veth7", { master: 9 })]), CHOOSE_ALL))[0]?.mtu, 1400);
});

test("a veth with a rate limit on its egress is delivered through it", () => {
	const shaped = (kind: string) =>
		vethEntries(desiredState(snapshot([pod(7, "veth7")], { qdiscs: [qdisc(7, kind)] }), CHOOSE_ALL))[0]?.shaped;
	assert.deepEqual(["tbf", "htb", "noqueue", "fq_codel", "clsact"].map(shaped), [true, true, false, false, false]);
});

test("a veth whose ingress others classify is left alone, with the reason", () => {
	const [veth] = desiredState(snapshot([pod(7, "veth7")], { filters: [filter(7, 0xfffffff2)] }), CHOOSE_ALL).veths;
	assert.equal(veth?.why, "A u32 classifier on its ingress must see every packet");
});

test("a classifier on a veth's egress is respected like a rate limit", () => {
	const desired = desiredState(snapshot([pod(7, "veth7")], { filters: [filter(7, 0xfffffff3)] }), CHOOSE_ALL);
	assert.equal(vethEntries(desired)[0]?.shaped, true);
});

test("excluded veths and devices that are down are not wanted", () => {
	const choice = { tunnels: "auto", isExcluded: (name: string) => name === "veth7" } as const;
	const desired = desiredState(snapshot([pod(7, "veth7"), pod(8, "veth8", { up: false })]), choice);
	assert.deepEqual(
		desired.veths.map(({ why, excluded }) => [why, excluded]),
		[
			["Excluded by the configuration", true],
			["The device is down", false],
		],
	);
	assert.deepEqual(vethEntries(desired), []);
});

test("only configured tunnels are wanted", () => {
	const desired = desiredState(snapshot([]), { tunnels: ["vxlan.calico"], isExcluded: () => false });
	assert.deepEqual(
		desired.tunnels.map(({ why }) => why),
		["Not among the configured tunnels"],
	);
	assert.deepEqual(desired.uplinks, []);
});

test("tunnels beyond the programs' table say so", () => {
	const more = Array.from({ length: 9 }, (_, i) =>
		link(20 + i, `vx${i}`, { kind: "vxlan", mtu: 1450, vxlan: { ...VXLAN, vni: 20 + i } }),
	);
	const desired = desiredState(snapshot(more), CHOOSE_ALL);
	assert.equal(tunnelEntries(desired).length, 8);
	assert.equal(desired.tunnels.filter(({ why }) => why === "More than 8 tunnel devices").length, 2);
});

const SWITCH = {
	runDir: "/run/ovs",
	bridge: "br-int",
	zones: { ipv4: 65520, ipv6: 65510 },
	table: "ConntrackState",
	tunnels: [],
	remotes: [0xc0a84d02 as Ipv4],
	userspacePorts: [],
	diverted: {},
};
const GATEWAY = link(9, "antrea-gw0", { kind: "openvswitch", mac: "0a:00:00:00:00:09" as MacAddress });
const switched = (more: Partial<NonNullable<Snapshot["switch"]>> = {}): Snapshot => ({
	...snapshot([GATEWAY, link(10, "ovs-system", { kind: "openvswitch" }), pod(7, "veth7", { master: 10 })], {
		addresses: [{ ifindex: 9, ip: 0x0af40101 as Ipv4, prefixLength: 24 }],
		switch: { ...SWITCH, ...more },
	}),
});

test("desiredState() gives the pods of a switch its gateway and zone", () => {
	const metadata = link(5, "vxlan_sys_4789", {
		kind: "vxlan",
		vxlan: { ...VXLAN, vni: 0, local: undefined, collectMetadata: true },
	});
	const { links, ...rest } = switched();
	const desired = desiredState(
		{ ...rest, links: [...links.filter(({ ifindex }) => ifindex !== 5), metadata] },
		CHOOSE_ALL,
	);
	assert.deepEqual(
		tunnelEntries(desired).map(({ mac, flowBased }) => [mac, flowBased]),
		[[GATEWAY.mac, { zones: { ipv4: 65520, ipv6: 65510 }, gateway: 9 }]],
	);
	assert.deepEqual(
		vethEntries(desired).map(({ router, zones }) => [router, zones]),
		[[GATEWAY.mac, { ipv4: 65520, ipv6: 65510 }]],
	);
});

test("desiredState() asks in the zone that is known where a switch tracks one family only", () => {
	const zonesOf = (zones: { ipv4: number | undefined; ipv6: number | undefined }) => {
		const metadata = link(5, "genev_sys_6081", {
			kind: "vxlan",
			vxlan: { ...VXLAN, vni: 0, local: undefined, collectMetadata: true },
		});
		const { links, ...rest } = switched({ zones });
		const desired = desiredState(
			{ ...rest, links: [...links.filter(({ ifindex }) => ifindex !== 5), metadata] },
			CHOOSE_ALL,
		);
		return vethEntries(desired)[0]?.zones;
	};
	assert.deepEqual(zonesOf({ ipv4: 7, ipv6: undefined }), { ipv4: 7, ipv6: 7 });
	assert.deepEqual(zonesOf({ ipv4: undefined, ipv6: 8 }), { ipv4: 8, ipv6: 8 });
});

test("desiredState() leaves alone what a switch reads in user space, copies or diverts, and a switch that is not prepared", () => {
	const whyOf = (snapshot: Snapshot, choice = CHOOSE_ALL) => desiredState(snapshot, choice).veths[0]?.why;
	assert.equal(whyOf(switched()), null);
	assert.match(whyOf(switched({ userspacePorts: ["veth7"] })) ?? "", /packet socket/);
	assert.equal(whyOf(switched({ diverted: { veth7: "It is mirrored" } })), "It is mirrored");
	assert.equal(whyOf(switched(), { ...CHOOSE_ALL, whyNoSwitch: () => "No flows" }), "No flows");
	const uplink = desiredState(switched({ userspacePorts: ["eth0"] }), CHOOSE_ALL);
	assert.match(uplink.tunnels[0]?.why ?? "", /Uplink "eth0": .*packet socket/);
});

test("a pod that is opted out is left alone, as the user wished", () => {
	const optedOut = new Map([[7, { namespace: "a", name: "b" }]]);
	const { veths } = desiredState(snapshot([pod(7, "veth7"), pod(8, "veth8")]), { ...CHOOSE_ALL, optedOut });
	assert.deepEqual(
		veths.map(({ why, excluded }) => [why, excluded]),
		[
			["Pod a/b is opted out", true],
			[null, false],
		],
	);
});

describe("what encrypts the tunnel's packets", () => {
	const policy = { family: 4, destination: new Uint8Array(4), prefixLength: 0, protocol: 0, port: undefined } as const;
	for (const [what, ipsec, isRefused] of [
		["a policy for everything", policy, true],
		["one for the tunnel's port", { ...policy, protocol: 17, port: 8472 }, true],
		["one for another port", { ...policy, protocol: 17, port: 4789 }, false],
		["one for TCP", { ...policy, protocol: 6 }, false],
		["one for IPv6", { ...policy, family: 6 as const, destination: new Uint8Array(16) }, false],
	] as const)
		test(`${what}: the tunnel is ${isRefused ? "refused" : "accelerated"}`, () => {
			const { tunnels, uplinks } = desiredState(snapshot([], { ipsec: [ipsec] }), CHOOSE_ALL);
			assert.equal(/IPsec/.test(tunnels[0]?.why ?? ""), isRefused);
			assert.deepEqual(uplinks, isRefused ? [] : [2]);
		});
});

test("next to Cilium nothing is touched, whatever else is there", () => {
	const links = [pod(7, "veth7"), link(20, "cilium_host", { kind: "veth" })];
	const desired = desiredState(snapshot(links), CHOOSE_ALL);
	assert.deepEqual([desired.uplinks, vethEntries(desired), tunnelEntries(desired)], [[], [], []]);
	assert.match(desired.veths[0]?.why ?? "", /Cilium/);
});
