// watchNetwork() against the running kernel, in a network namespace of its own.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { readdirSync } from "node:fs";
import { it } from "node:test";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { CLONE_NEWNET, unshare } from "../../src/kernel/libc.js";
import { type Change, watchNetwork, watchRuleset } from "../../src/kernel/monitor.js";
import { patiently } from "../../src/lab/patience.js";

unshare(CLONE_NEWNET);

function sh(script: string): void {
	execFileSync("sh", ["-ec", script], { stdio: ["ignore", "ignore", "pipe"] });
}

/** Watches while `body` runs; `until(kind)` waits for the first report that names it after the call. */
async function watching(
	bufferBytes: number,
	body: (until: (kind: Change) => Promise<void>, reports: Change[][]) => Promise<void>,
): Promise<void> {
	const stop = new AbortController();
	const reports: Change[][] = [];
	let listener: (changes: ReadonlySet<Change>) => void = () => {};
	watchNetwork({
		signal: stop.signal,
		bufferBytes,
		onChange: (changes) => {
			reports.push([...changes].sort());
			listener(changes);
		},
	});
	const until = (kind: Change) =>
		new Promise<void>((resolve) => {
			listener = (changes) => changes.has(kind) && resolve();
		});
	await body(until, reports).finally(() => stop.abort());
}

const LARGE = 1 << 20;
const BOUND = { timeout: patiently(20_000) };

it("reports a new device as a link change, without an overrun", BOUND, () =>
	watching(LARGE, async (until, reports) => {
		sh("ip link add br0 type bridge");
		await until("link");
		assert.ok(!reports.flat().includes("overrun"));
	}),
);

it("reports addresses, routes, neighbours, forwarding entries and classifiers by kind", BOUND, () =>
	watching(LARGE, async (until) => {
		sh("ip link add up0 type veth peer name up1; ip link set up0 up; ip link set up1 up");
		await until("link");
		sh("ip addr add 10.1.0.1/24 dev up0");
		await until("address");
		sh("ip route add 10.2.0.0/16 via 10.1.0.2");
		await until("route");
		sh("ip rule add from 10.9.0.0/16 lookup 100");
		await until("route");
		sh("sysctl -qw net.ipv6.conf.up0.disable_ipv6=0; ip addr add fd00:1::1/64 dev up0 nodad");
		await until("address");
		sh("ip route add fd00:2::/64 via fd00:1::2 dev up0");
		await until("route");
		sh("ip -6 rule add from fd00:9::/64 lookup 100");
		await until("route");
		sh("ip nexthop add id 1 via 10.1.0.2 dev up0");
		await until("route");
		sh("tc qdisc add dev up0 clsact");
		await until("tc");
		const path = "/proc/sys/net/ipv4/conf/up0/forwarding";
		sh(`if grep -q 1 ${path}; then echo 0 >${path}; else echo 1 >${path}; fi`);
		await until("ruleset");
	}),
);

it("reports a neighbour or forwarding entry when what was known of it is not so any more", BOUND, () =>
	watching(LARGE, async (until, reports) => {
		sh(`
			ip link add vx0 type vxlan id 9 dstport 8472 nolearning
			ip neigh add 10.1.0.9 lladdr 0a:00:00:00:00:02 dev up0
			ip neigh add fd00:1::9 lladdr 0a:00:00:00:00:02 dev up0
			bridge fdb add 0a:00:00:00:00:03 dev vx0 dst 10.1.0.2 self permanent
			ip addr add 10.1.7.1/24 dev up0
		`);
		await until("address");
		assert.ok(!reports.flat().includes("neighbour"), "what is new was never relied upon");
		for (const change of [
			"ip neigh change 10.1.0.9 lladdr 0a:00:00:00:00:07 dev up0",
			"ip neigh del 10.1.0.9 dev up0",
			"ip neigh change fd00:1::9 lladdr 0a:00:00:00:00:07 dev up0",
			"ip neigh del fd00:1::9 dev up0",
			"bridge fdb replace 0a:00:00:00:00:03 dev vx0 dst 10.1.0.3 self permanent",
			"bridge fdb del 0a:00:00:00:00:03 dev vx0 self",
		]) {
			sh(change);
			await until("neighbour");
		}
	}),
);

it("reports a change of the nftables ruleset, through nft and through iptables, when it holds", BOUND, async () => {
	const stop = new AbortController();
	let seen: () => void = () => {};
	watchRuleset({ signal: stop.signal, onChange: (changes) => changes.has("ruleset") && seen() });
	for (const change of ["nft add table ip watched", "iptables -A FORWARD -s 10.7.7.7 -j DROP", "nft flush ruleset"]) {
		const told = new Promise<void>((resolve) => {
			seen = resolve;
		});
		sh(change);
		await told;
	}
	stop.abort();
});

it("reports changes that came together in one call", BOUND, () =>
	watching(LARGE, async (until, reports) => {
		sh(
			"ip link add d0 type bridge; ip addr add 10.3.0.1/24 dev d0; ip link set d0 up; ip route add 10.4.0.0/16 dev d0",
		);
		await until("route");
		for (const kind of ["address", "link", "route"] as const) assert.ok(reports[0]?.includes(kind), kind);
	}),
);

it("reports an overrun when the kernel had to drop notifications, and goes on watching", BOUND, () =>
	watching(8192, async (until) => {
		const batch = Array.from({ length: 200 }, (_, index) => `link set lo mtu ${20000 + index}\n`).join("");
		execFileSync("ip", ["-batch", "-"], { input: batch });
		await until("overrun");
		sh("ip link add after type bridge");
		await until("link");
	}),
);

it("loses nothing of a burst that fits into the buffer", BOUND, () =>
	watching(LARGE, async (until, reports) => {
		const batch = Array.from({ length: 200 }, (_, index) => `link set lo mtu ${30000 + index}\n`).join("");
		execFileSync("ip", ["-batch", "-"], { input: batch });
		await until("link");
		assert.ok(!reports.flat().includes("overrun"));
	}),
);

it("goes on watching after a garbage collection", BOUND, () =>
	watching(LARGE, async (until) => {
		setFlagsFromString("--expose_gc");
		const collectGarbage: () => void = runInNewContext("gc");
		collectGarbage();
		sh("ip link add collected type bridge");
		await until("link");
	}),
);

it("closes its socket at the abort and lets the process end", BOUND, () => {
	const files = () => readdirSync("/proc/self/fd").length;
	const before = files();
	const stop = new AbortController();
	watchNetwork({ signal: stop.signal, onChange: () => assert.fail("called after the abort") });
	assert.equal(files(), before + 1);
	sh("ip link add last type bridge");
	stop.abort();
	assert.equal(files(), before);
});
