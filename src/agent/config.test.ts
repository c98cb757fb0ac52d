import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { ConfigError, type ConfigFlags, DEFAULT_CONFIG, isExcluded, loadConfig, resolveSizes } from "./config.js";

const folder = mkdtempSync(join(tmpdir(), "oncache-config-"));
const file = join(folder, "config.yaml");
after(() => rmSync(folder, { recursive: true }));

function load(yaml: string, flags: ConfigFlags = {}) {
	writeFileSync(file, yaml);
	return loadConfig({ file, flags });
}

test("loadConfig() of an empty file and no flags is the defaults", () => {
	assert.deepEqual(load("# nothing\n"), DEFAULT_CONFIG);
});

test("loadConfig() takes the file over the defaults and the flags over the file", () => {
	const yaml = "logLevel: debug\nmark: 0x40\ncache:\n  egress: 100\n  ingress: 200\ntunnels: [flannel.1]\n";
	const flags = {
		logLevel: "warn",
		cacheEgress: "300",
		mark: undefined,
		maxStalenessMs: "500",
		verifyIntervalMs: "60000",
		verbose: true,
	};
	assert.deepEqual(load(yaml, flags), {
		...DEFAULT_CONFIG,
		logLevel: "warn",
		mark: 0x40,
		maxStalenessMs: 500,
		verifyIntervalMs: 60_000,
		cache: { filter: "auto", filter6: "auto", egress: 300, ingress: 200 },
		tunnels: ["flannel.1"],
	});
});

test("loadConfig() reads numbers, lists and switches from the text of flags", () => {
	const flags = { mark: "0x1000", cacheFilter: "auto", tunnels: "a0,b0", excludeInterfaces: "lxc*", countFlows: true };
	const config = load("", flags);
	assert.equal(config.mark, 0x1000);
	assert.equal(config.cache.filter, "auto");
	assert.deepEqual(config.tunnels, ["a0", "b0"]);
	assert.deepEqual(config.excludeInterfaces, ["lxc*"]);
	assert.equal(config.countFlows, true);
	assert.equal(load("", { tunnels: "auto" }).tunnels, "auto");
});

const KEYS =
	"socket, bpffs, logLevel, attach, markMode, mark, maxStalenessMs, verifyIntervalMs, countFlows, cache, tunnels, excludeInterfaces, cni, cniBinDir, ovsRunDir, ovsBridge, ovsTable, ovsZone, ovsZone6, kubernetes, kubernetesPods, nodeName, metricsAddress, cniConfDir";
const FILE_PROBLEMS: { yaml: string; says: string }[] = [
	{ yaml: "loglevel: info", says: `unknown key "loglevel"; allowed: ${KEYS}` },
	{ yaml: "cache: { fitler: 4096 }", says: 'unknown key "cache.fitler"; allowed: filter, filter6, egress, ingress' },
	{ yaml: "- info", says: `the whole is ["info"]; allowed: ${KEYS}` },
	{ yaml: "cache: 5", says: '"cache" is 5; allowed: filter, filter6, egress, ingress' },
	{ yaml: "logLevel: loud", says: '"logLevel" is "loud"; allowed: trace, debug, info, warn, error' },
	{ yaml: "countFlows: yes", says: '"countFlows" is "yes"; allowed: true, false' },
	{ yaml: "maxStalenessMs: 99", says: '"maxStalenessMs" is 99; allowed: a whole number from 100 to 60000' },
	{ yaml: "maxStalenessMs: 1e9", says: '"maxStalenessMs" is 1000000000; allowed: a whole number from 100 to 60000' },
	{ yaml: 'maxStalenessMs: "500"', says: '"maxStalenessMs" is "500"; allowed: a whole number from 100 to 60000' },
	{
		yaml: "verifyIntervalMs: 5",
		says: '"verifyIntervalMs" is 5; allowed: 0 (never) or a whole number from 1000 to 86400000',
	},
	{ yaml: "maxStalenessMs:", says: '"maxStalenessMs" is null; allowed: a whole number from 100 to 60000' },
	{ yaml: "cache: { egress: 15 }", says: '"cache.egress" is 15; allowed: a whole number from 16 to 65536' },
	{
		yaml: "cache: { filter: 4194305 }",
		says: '"cache.filter" is 4194305; allowed: "auto" or a whole number from 1024 to 4194304',
	},
	{
		yaml: "cache: { filter: many }",
		says: '"cache.filter" is "many"; allowed: "auto" or a whole number from 1024 to 4194304',
	},
	{ yaml: "socket: run/x", says: '"socket" is "run/x"; allowed: an absolute path of at most 107 characters' },
	{ yaml: "tunnels: []", says: '"tunnels" is []; allowed: "auto" or a list of device names' },
	{ yaml: "tunnels: [a/b]", says: '"tunnels.0" is "a/b"; allowed: a device name' },
	{ yaml: "tunnels: all", says: '"tunnels" is "all"; allowed: "auto" or a list of device names' },
	{
		yaml: "excludeInterfaces: lo",
		says: '"excludeInterfaces" is "lo"; allowed: a list of device names, or of patterns with * and ?',
	},
	{ yaml: "mark: 0x3000", says: '"mark" is 0x3000; allowed: a single bit: 0x2, 0x4, 0x40, 0x1000' },
	{ yaml: "mark: 0", says: '"mark" is 0x0; allowed: a single bit: 0x2, 0x4, 0x40, 0x1000' },
];

for (const { yaml, says } of FILE_PROBLEMS)
	test(`loadConfig() refuses a file with "${yaml}"`, () => {
		assert.throws(() => load(yaml), new ConfigError(`Cannot use "${file}": ${says}`));
	});

const MARK_OWNERS: [string, string][] = [
	["0x4000", "kube-proxy"],
	["0x8000", "kube-proxy"],
	["0x100", "Cilium"],
	["0x800", "Cilium"],
	["0x10000", "Calico"],
	["0x80000000", "Calico"],
	["0x2000", "the CNI plugin portmap"],
	["0x80", "the AWS VPC CNI"],
	["0x8", "Istio (mark 1337)"],
];

for (const [mark, owner] of MARK_OWNERS)
	test(`loadConfig() refuses the mark ${mark}: it belongs to ${owner}`, () => {
		const says = `--mark is ${mark}; allowed: 0x2, 0x4, 0x40, 0x1000 (this bit belongs to ${owner})`;
		assert.throws(() => load("", { mark }), new ConfigError(`Cannot use the command line: ${says}`));
	});

test("loadConfig() names the flag that is wrong", () => {
	const says = '--cache-filter is "lots"; allowed: "auto" or a whole number from 1024 to 4194304';
	assert.throws(() => load("", { cacheFilter: "lots" }), new ConfigError(`Cannot use the command line: ${says}`));
});

test("loadConfig() tells every problem of a file, one per line", () => {
	assert.throws(
		() => load("attach: xdp\nmarkMode: both\n"),
		new ConfigError(
			`Cannot use "${file}": "attach" is "xdp"; allowed: auto, tcx, clsact\n` +
				`Cannot use "${file}": "markMode" is "both"; allowed: auto, metadata, dscp`,
		),
	);
});

test("loadConfig() refuses a file that is not YAML, with the place", () => {
	assert.throws(() => load("cache: [1\n"), /^ConfigError: Cannot read ".*config\.yaml": .* at line 2, column 1/);
	assert.throws(() => load("mark: 2\nmark: 4\n"), /Map keys must be unique at line 2/);
});

test("loadConfig() refuses a missing file that was asked for", () => {
	const missing = join(folder, "missing.yaml");
	assert.throws(() => loadConfig({ file: missing }), /Cannot read ".*missing\.yaml": ENOENT/);
});

test("resolveSizes() sizes the filter cache by memory: a quarter of a percent, a power of two, within bounds", () => {
	const filterFor = (gibibytes: number) => resolveSizes(DEFAULT_CONFIG, gibibytes * 2 ** 30).filter;
	assert.deepEqual([0.5, 1, 4, 24, 64, 1024].map(filterFor), [16384, 16384, 32768, 262144, 524288, 1048576]);
	assert.equal(resolveSizes(DEFAULT_CONFIG, 4 * 2 ** 30).filter6, 8192, "that of IPv6 is a quarter as large");
});

test("resolveSizes() rounds what was asked for up to powers of two", () => {
	const cache = { filter: 1025, filter6: 2049, egress: 16, ingress: 65_535 };
	assert.deepEqual(resolveSizes({ cache }, 0), { filter: 2048, filter6: 4096, egress: 16, ingress: 65_536 });
	assert.equal(resolveSizes({ cache: { ...cache, filter: 4_194_304 } }, 0).filter, 4_194_304);
});

test("isExcluded() knows names, * and ?, and nothing else as special", () => {
	const excludeInterfaces = ["veth.1", "lxc*", "cali?"];
	const names = ["veth.1", "vethx1", "lxc", "lxc12", "xlxc", "cali1", "cali", "cali12"];
	const excluded = names.filter((name) => isExcluded(name, { excludeInterfaces }));
	assert.deepEqual(excluded, ["veth.1", "lxc", "lxc12", "cali1"]);
});
