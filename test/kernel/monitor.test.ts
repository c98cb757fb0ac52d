// watchNetwork() against the running kernel, in a network namespace of its own.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { readdirSync } from "node:fs";
import { it } from "node:test";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { CLONE_NEWNET, unshare } from "../../src/kernel/libc.js";
import { type Change, watchNetwork } from "../../src/kernel/monitor.js";

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
const BOUND = { timeout: 20_000 };

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
		sh("ip neigh add 10.1.0.2 lladdr 0a:00:00:00:00:02 dev up0");
		await until("neighbour");
		sh("bridge fdb add 0a:00:00:00:00:03 dev up0 self");
		await until("neighbour");
		sh("tc qdisc add dev up0 clsact");
		await until("tc");
	}),
);

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
