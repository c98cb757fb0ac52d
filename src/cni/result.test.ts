import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { CniError } from "./error.js";
import { inVersion, readResult } from "./result.js";
import { VERSIONS } from "./version.js";

const SINGLES = {
	cniVersion: "0.2.0",
	ip4: { ip: "10.1.0.5/16", gateway: "10.1.0.1", routes: [{ dst: "0.0.0.0/0", gw: "10.1.0.1" }] },
	ip6: { ip: "fd00::5/64", routes: [{ dst: "::/0" }] },
	dns: { nameservers: ["10.1.0.1"] },
};
const INTERFACES = [
	{ name: "cni0", mac: "00:11:22:33:44:55" },
	{ name: "veth3243", mac: "55:44:33:22:11:11", sandbox: "" },
	{ name: "eth0", mac: "99:88:77:66:55:44", sandbox: "/var/run/netns/blue" },
];
const ROUTES = [{ dst: "0.0.0.0/0", gw: "10.1.0.1" }, { dst: "::/0" }];
const LISTS = {
	cniVersion: "0.4.0",
	interfaces: INTERFACES,
	ips: [
		{ version: "4", address: "10.1.0.5/16", gateway: "10.1.0.1", interface: 2 },
		{ version: "6", address: "fd00::5/64", interface: 2 },
	],
	routes: ROUTES,
	dns: { nameservers: ["10.1.0.1"] },
};
const UNVERSIONED = {
	...LISTS,
	cniVersion: "1.0.0",
	ips: [
		{ address: "10.1.0.5/16", gateway: "10.1.0.1", interface: 2 },
		{ address: "fd00::5/64", interface: 2 },
	],
};
const FORMS = { "0.2.0": SINGLES, "0.4.0": LISTS, "1.0.0": UNVERSIONED };

describe("readResult()", () => {
	for (const [version, result] of Object.entries(FORMS))
		test(`finds the addresses of both families in a result of CNI ${version}`, () => {
			assert.deepEqual(readResult(result).addresses, ["10.1.0.5", "fd00::5"]);
		});

	test("finds the devices that are on the host", () => {
		assert.deepEqual(readResult(LISTS).hostDevices, ["cni0", "veth3243"]);
		assert.deepEqual(readResult(SINGLES).hostDevices, []);
	});

	test("leaves out what is not as it should be", () => {
		const odd = { interfaces: [null, { name: 1 }, { name: "" }, "x"], ips: { address: "1.2.3.4" }, ip4: "10.0.0.1" };
		assert.deepEqual(readResult(odd), { hostDevices: [], addresses: [] });
	});
});

describe("inVersion()", () => {
	test("does not touch what has the right form, unknown keys included", () => {
		const result = { ...UNVERSIONED, vendor: { deep: [1] }, interfaces: [{ name: "x", mtu: 1450, more: true }] };
		assert.deepEqual(inVersion(result, "1.1.0"), { ...result, cniVersion: "1.1.0" });
		assert.deepEqual(inVersion(LISTS, "0.3.0"), { ...LISTS, cniVersion: "0.3.0" });
		assert.deepEqual(inVersion(SINGLES, "0.1.0"), { ...SINGLES, cniVersion: "0.1.0" });
	});

	test("a result without a version is in the form of the configuration", () => {
		for (const version of VERSIONS) {
			const { cniVersion: _, ...bare } = FORMS[version < "0.3.0" ? "0.2.0" : version < "1.0.0" ? "0.4.0" : "1.0.0"];
			assert.deepEqual(inVersion(bare, version), { ...bare, cniVersion: version });
		}
	});

	test("converts between all three forms, and keeps what both can say", () => {
		const { interfaces: _, ...rest } = LISTS;
		const bare = { ...rest, ips: LISTS.ips.map(({ interface: _index, ...ip }) => ip) };
		assert.deepEqual(inVersion(SINGLES, "0.4.0"), bare);
		assert.deepEqual(inVersion(LISTS, "0.2.0"), SINGLES);
		assert.deepEqual(inVersion(UNVERSIONED, "0.2.0"), SINGLES);
		assert.deepEqual(inVersion(LISTS, "1.0.0"), UNVERSIONED);
		assert.deepEqual(inVersion(UNVERSIONED, "0.4.0"), LISTS);
	});

	test("refuses what the oldest form cannot say: no address", () => {
		assert.throws(
			() => inVersion({ cniVersion: "1.0.0", interfaces: INTERFACES }, "0.2.0"),
			(error) => error instanceof CniError && error.code === 7,
		);
	});
});
