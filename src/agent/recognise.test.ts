// The networks of the field, by what their nodes have.
import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, test } from "node:test";
import { readNetworkConfiguration } from "./network-configuration.js";
import { recognise } from "./recognise.js";

const link = (name: string, kind?: string, up = true) => ({ name, kind, up });
const BASE = [link("lo"), link("eth0")];
const CALI = link("cali0123456789a", "veth");
const VXLAN = /^Pod traffic through the VXLAN or Geneve tunnel is accelerated/;

const CASES: [title: string, links: ReturnType<typeof link>[], plugins: string[], name: string, plan: RegExp, refused?: true][] = [
	["Flannel", [link("flannel.1", "vxlan"), link("cni0", "bridge")], ["flannel", "portmap"], "Flannel", VXLAN],
	["Flannel before its device is there", [], ["flannel", "portmap"], "Flannel", /no tunnel device/],
	["Flannel with host-gw", [link("cni0", "bridge")], ["flannel", "portmap"], "Flannel", /no tunnel device/],
	["Flannel over WireGuard", [link("flannel-wg", "wireguard")], ["flannel"], "Flannel", /WireGuard \(flannel-wg\) encrypts/],
	["Calico VXLAN", [link("vxlan.calico", "vxlan"), CALI], ["calico", "portmap"], "Calico", VXLAN],
	["Calico IPIP", [link("tunl0", "ipip"), CALI], ["calico"], "Calico", /IPIP.*vxlanMode/],
	["Calico VXLAN, with the IPIP module's own device", [link("tunl0", "ipip", false), link("vxlan.calico", "vxlan")], ["calico"], "Calico", VXLAN],
	["Calico VXLAN and WireGuard", [link("vxlan.calico", "vxlan"), link("wireguard.cali", "wireguard")], [], "Calico", /wireguard\.cali\) stays on the overlay$/],
	["Calico without an overlay", [CALI], ["calico"], "Calico", /no tunnel device/],
	["Calico's eBPF data plane", [link("vxlan.calico", "vxlan"), link("bpfin.cali", "veth")], ["calico"], "Calico", /nothing is attached/, true],
	["Canal", [link("flannel.1", "vxlan"), CALI], ["calico", "portmap"], "Canal", VXLAN],
	["Antrea", [link("antrea-gw0", "openvswitch"), link("genev_sys_6081", "geneve")], ["antrea"], "Antrea", VXLAN],
	["Cilium with VXLAN", [link("cilium_host", "veth"), link("cilium_vxlan", "vxlan")], ["cilium-cni"], "Cilium", /Cilium.*nothing is attached/, true],
	["Cilium chained behind Flannel", [link("flannel.1", "vxlan"), link("cilium_host", "veth")], ["flannel", "cilium-cni"], "Cilium", /nothing is attached/, true],
	["something else with a tunnel", [link("vx0", "vxlan")], ["bridge"], "unknown", VXLAN],
	["nothing", [], [], "unknown", /no tunnel device/],
]; // biome-ignore format: a table

describe("recognise()", () => {
	for (const [title, links, plugins, name, plan, refused = false] of CASES)
		test(title, () => {
			const network = recognise({ links: [...BASE, ...links], plugins, confDir: "/etc/cni/net.d" });
			assert.deepEqual([network.name, network.refused], [name, refused]);
			assert.match(network.plan, plan);
		});

	test("says by what, and whose distribution it is", () => {
		const confDir = "/var/lib/rancher/k3s/agent/etc/cni/net.d";
		const network = recognise({ links: [link("flannel.1", "vxlan")], plugins: ["flannel", "portmap"], confDir });
		assert.deepEqual(
			[network.name, network.evidence],
			["Flannel (k3s)", ["devices flannel.1", "network configuration with flannel, portmap"]],
		);
	});
});

describe("readNetworkConfiguration()", () => {
	const inDir = (files: Record<string, string>, use: (dir: string) => void): void => {
		const dir = mkdtempSync(join(tmpdir(), "oncache-conf-"));
		try {
			for (const [name, text] of Object.entries(files)) writeFileSync(join(dir, name), text);
			mkdirSync(join(dir, "00-folder.conflist"));
			use(dir);
		} finally {
			rmSync(dir, { recursive: true });
		}
	};
	const list = (...types: string[]): string => JSON.stringify({ name: "n", plugins: types.map((type) => ({ type })) });

	test("takes the first by name, as the runtime does, and passes over what is none", () =>
		inDir({ "20-b.conflist": list("calico"), "10-a.conflist": list("flannel", "portmap"), "05.txt": "x" }, (dir) => {
			assert.deepEqual(readNetworkConfiguration(dir), { dir, plugins: ["flannel", "portmap"] });
		}));

	test("a configuration of one plugin", () =>
		inDir({ "10-a.conf": '{"type":"bridge"}' }, (dir) => {
			assert.deepEqual(readNetworkConfiguration(dir).plugins, ["bridge"]);
		}));

	for (const [what, files] of [
		["garbage", { "10-a.conflist": "{", "20-b.conf": "[]" }],
		["nothing", {}],
	] as [string, Record<string, string>][])
		test(`${what} gives no names, and no error`, () =>
			inDir(files, (dir) => assert.deepEqual(readNetworkConfiguration(dir), { dir: undefined, plugins: [] })));

	test("a directory that is not there gives no names", () =>
		assert.deepEqual(readNetworkConfiguration("/nonexistent/net.d").plugins, []));
});
