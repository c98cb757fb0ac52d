import assert from "node:assert/strict";
import { test } from "node:test";
import { endpoint, familyOf, shortHash } from "./service.js";
import { iptablesRules, iptablesWithout } from "./services-iptables.js";
import { nftablesRules } from "./services-nftables.js";

const SERVICE = {
	name: "default/web:http",
	clusterIp: "10.96.0.80",
	port: 80,
	protocol: "tcp" as const,
	backends: [1, 2, 3].map((last) => ({ ip: `10.244.1.${last}`, port: 8080 })),
};

test("shortHash() is the base32 of the SHA-256, as kube-proxy names chains", () => {
	// Names that stand in kube-proxy's own tests.
	assert.equal(shortHash("ns1/svc1:p80tcp", 16), "XPGD46QRK7WJZT7O");
	assert.equal(shortHash("ns1/svc1/tcp/p80", 8), "ULMVA6XW");
});

test("endpoint() puts IPv6 addresses in brackets", () => {
	assert.equal(endpoint({ ip: "10.244.1.2", port: 80 }), "10.244.1.2:80");
	assert.equal(endpoint({ ip: "fd00::2", port: 80 }), "[fd00::2]:80");
	assert.deepEqual(["10.244.1.2", "fd00::2"].map(familyOf), [4, 6]);
});

test("iptablesRules() gives every backend the same chance", () => {
	const rules = iptablesRules([SERVICE], "10.244.0.0/16", "");
	const chances = [...rules.matchAll(/--probability (\S+)/g)].map(([, chance]) => Number(chance));
	assert.deepEqual(chances, [0.3333333333, 0.5]);
	assert.equal(rules.match(/-j DNAT/g)?.length, 3);
});

test("iptablesRules() enters its jumps once, and deletes the chains of services that are gone", () => {
	const before = `*nat
:PREROUTING ACCEPT [0:0]
:KUBE-SEP-GONE - [0:0]
:KUBE-SVC-GONE - [0:0]
-A PREROUTING -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
COMMIT
`;
	const rules = iptablesRules([SERVICE], "10.244.0.0/16", before);
	assert.doesNotMatch(rules, /-I PREROUTING/);
	assert.match(rules, /-I POSTROUTING/);
	assert.match(rules, /:KUBE-SEP-GONE - \[0:0\]\n(.*\n)*-X KUBE-SEP-GONE\n/);
	assert.equal(iptablesWithout("*nat\nCOMMIT\n"), "");
});

test("nftablesRules() knows only the host's own addresses of the family", () => {
	const rules = nftablesRules([{ ...SERVICE, nodePort: 30080, affinitySeconds: 9 }], {
		family: 4,
		network: "10.244.0.0/16",
		nodeIps: ["192.168.77.1", "fd00:77::1"],
	});
	assert.match(rules, /set nodeport-ips \{.* elements = \{ 192\.168\.77\.1 \} \}/);
	assert.match(rules, /numgen random mod 3 vmap \{ 0 : goto endpoint-/);
	assert.equal(rules.match(/timeout 9s/g)?.length, 3);
});
