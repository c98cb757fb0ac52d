import assert from "node:assert/strict";
import { test } from "node:test";
import { DEFAULT_SPEC, labOf, specOf, tunnelTo } from "./topology.js";

test("labOf() gives every host and pod its own names and addresses", () => {
	const lab = labOf({ ...DEFAULT_SPEC, hosts: 16, pods: 100 });
	const all = lab.hosts.flatMap((host) => [host, ...host.pods]);
	for (const key of ["name", "netns", "ip", "mac"] as const)
		assert.equal(new Set(all.map((place) => place[key])).size, all.length, key);
	const veths = lab.hosts.flatMap((host) => host.pods.map(({ veth }) => veth));
	assert.equal(new Set(veths).size, veths.length);
	assert.ok(veths.every((name) => name.length <= 15));
});

test("two hosts share a wire, more a bridge", () => {
	assert.equal(labOf(DEFAULT_SPEC).fabric, undefined);
	assert.equal(labOf({ ...DEFAULT_SPEC, hosts: 3 }).fabric, "/run/netns/oc-lab-fabric");
});

test("both ends of a pair choose the same tunnel", () => {
	for (const given of [
		{ tunnels: 3, hosts: 5 },
		{ overlay: "geneve", hosts: 4 },
	] as const) {
		const { hosts } = labOf(specOf(given));
		for (const host of hosts)
			for (const peer of hosts.filter((other) => other !== host)) {
				const [near, far] = [tunnelTo(host, peer, 4), tunnelTo(peer, host, 4)];
				assert.equal(near.vni, far.vni);
				assert.deepEqual([near.peer ?? peer.name, far.peer ?? host.name], [peer.name, host.name]);
			}
	}
});

test("a family of pods has its subnet, its addresses and a tunnel", () => {
	const [host] = labOf(specOf({ family: "dual", underlay: "dual" })).hosts;
	assert.deepEqual(
		host?.subnets.map(({ cidr }) => cidr),
		["10.244.1.0/24", "fd00:10:244:1::/64"],
	);
	assert.deepEqual(host?.pods[0]?.addresses, ["10.244.1.2", "fd00:10:244:1::2"]);
	assert.deepEqual(
		host?.tunnels.map(({ name, families, underlay }) => [name, families, underlay]),
		[
			["flannel.1", [4], 4],
			["flannel-v6.1", [6], 6],
		],
	);
	assert.equal(labOf(specOf({ family: "ipv6" })).hosts[0]?.gateway, "fd00:10:244:1::1");
});
