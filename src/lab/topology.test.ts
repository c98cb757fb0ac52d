import assert from "node:assert/strict";
import { test } from "node:test";
import { checkSpec, DEFAULT_SPEC, labOf } from "./topology.js";

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

test("checkSpec() names the value and what is allowed", () => {
	for (const [wrong, words] of [
		[{ hosts: 1 }, /hosts "1" .* 2 to 16/],
		[{ hosts: 2.5 }, /hosts "2.5"/],
		[{ pods: 0 }, /pods per host "0" .* 1 to 100/],
		[{ vni: 0x1000000 }, /VNI "16777216"/],
		[{ port: Number.NaN }, /port "NaN"/],
		[{ name: "../etc" }, /"..\/etc"/],
	] as const)
		assert.throws(() => checkSpec({ ...DEFAULT_SPEC, ...wrong }), words);
});
