import assert from "node:assert/strict";
import { test } from "node:test";
import { checkSpec, DEFAULT_SPEC, type LabSpec, specOf } from "./spec.js";

test("specOf() completes by what the overlay usually has, and keeps what is given", () => {
	assert.deepEqual(specOf({}), DEFAULT_SPEC);
	const { vni, port, podNetwork } = specOf({ overlay: "calico", port: 8472 });
	assert.deepEqual([vni, port, podNetwork], [4096, 8472, "routed"]);
	for (const overlay of ["flannel", "calico", "bridged", "geneve", "antrea"] as const) checkSpec(specOf({ overlay }));
});

test("checkSpec() names the value and what is allowed", () => {
	for (const [wrong, words] of [
		[{ hosts: 1 }, /hosts "1" .* 2 to 16/],
		[{ hosts: 2.5 }, /hosts "2.5"/],
		[{ pods: 0 }, /pods per host "0" .* 1 to 100/],
		[{ vni: 0x1000000 }, /VNI "16777216"/],
		[{ port: Number.NaN }, /port "NaN"/],
		[{ tunnels: 5 }, /tunnels "5" .* 1 to 4/],
		[{ name: "../etc" }, /"..\/etc"/],
		[{ podNetwork: "none" }, /network "none" .* bridge, hairpin, routed, ptp or netkit/],
		[{ overlay: "weave" }, /"weave"/],
		[{ family: "ipv5" }, /"ipv5"/],
		[{ underlay: "ipx" }, /"ipx"/],
		[{ uplink: "tun" }, /"tun"/],
		[{ fdb: "none" }, /"none"/],
	] as const)
		assert.throws(() => checkSpec({ ...DEFAULT_SPEC, ...wrong } as LabSpec), words);
});

test("checkSpec() refuses what does not go together", () => {
	for (const [wrong, words] of [
		[{ overlay: "calico", podNetwork: "bridge" }, /Calico has routed pods/],
		[{ overlay: "bridged", podNetwork: "ptp" }, /needs a bridge/],
		[{ fdb: "learning" }, /does not learn/],
		[{ direct: true }, /3 hosts/],
		[{ direct: true, hosts: 3, overlay: "geneve" }, /no direct routes/],
		[{ underlay: "dual" }, /--family dual/],
		[{ underlay: "dual", family: "dual", overlay: "bridged" }, /one underlay/],
		[{ tunnels: 2 }, /3 hosts/],
		[{ tunnels: 2, hosts: 3, overlay: "calico" }, /several tunnels/],
		[{ tunnels: 2, hosts: 3, vni: 0xffffff }, /leaves no number/],
	] as const)
		assert.throws(() => checkSpec(specOf(wrong)), words);
});
