// The mark rule on real packets: client -- this namespace (forwards) -- server. nft counts what arrives by TOS byte;
// a packet with a wrong IP checksum is not counted, because the kernel drops it before.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { openSync } from "node:fs";
import { before, beforeEach, it } from "node:test";
import { CLONE_NEWNET, unshare } from "../../src/kernel/libc.js";
import { hasMarkRule, installMarkRule, removeMarkRule } from "../../src/kernel/nft.js";

function newNetns(): string {
	unshare(CLONE_NEWNET);
	return `/proc/${process.pid}/fd/${openSync("/proc/thread-self/ns/net", "r")}`;
}

const client = newNetns();
const server = newNetns();
newNetns();

function sh(script: string): string {
	return execFileSync("sh", ["-ec", script], { encoding: "utf8", stdio: ["ignore", "pipe", "pipe"] });
}

/** Counts packets that arrive, by TOS byte, in a namespace. */
function count(netns: string): void {
	const rules = Array.from({ length: 256 }, (_, tos) => `@nh,8,8 ${tos} counter comment "${tos}"`).join("\n");
	execFileSync("nsenter", [`--net=${netns}`, "nft", "-f", "-"], {
		input: `table ip seen\ndelete table ip seen\ntable ip seen {
			chain seen { type filter hook prerouting priority -400;
				${rules}
			}
		}`,
	});
}

/** TOS byte -> packets, without zeros. */
function counted(netns: string): Record<number, number> {
	const { nftables } = JSON.parse(sh(`nsenter --net=${netns} nft -j list table ip seen`)) as {
		nftables: { rule?: { comment: string; expr: { counter?: { packets: number } }[] } }[];
	};
	const counters = nftables.flatMap(({ rule }) =>
		rule ? [[Number(rule.comment), rule.expr.at(-1)?.counter?.packets ?? 0] as const] : [],
	);
	return Object.fromEntries(counters.filter(([, packets]) => packets > 0));
}

/** One connection of echo requests with a TOS byte; the server answers each with the TOS byte it got. */
function ping(tos: number, packets: number): void {
	sh(`nsenter --net=${client} ping -q -n -c ${packets} -i 0.01 -W 2 -Q ${tos} 10.2.0.2`);
}

before(() => {
	sh(`
		ip link add c0 type veth peer name eth0 netns ${client}
		ip link add s0 type veth peer name eth0 netns ${server}
		ip addr add 10.1.0.1/24 dev c0; ip link set c0 up
		ip addr add 10.2.0.1/24 dev s0; ip link set s0 up
		echo 1 > /proc/sys/net/ipv4/ip_forward
		nsenter --net=${client} sh -ec 'ip addr add 10.1.0.2/24 dev eth0; ip link set eth0 up; ip route add default via 10.1.0.1'
		nsenter --net=${server} sh -ec 'ip addr add 10.2.0.2/24 dev eth0; ip link set eth0 up; ip route add default via 10.2.0.1'
	`);
});
beforeEach(() => {
	installMarkRule(["veth"]);
	count(server);
	count(client);
});

it("answers a marked packet of an established flow with the second mark, not one of a new flow", () => {
	ping(0x04, 3);
	assert.deepEqual(counted(server), { 4: 1, 12: 2 });
	assert.deepEqual(counted(client), { 12: 3 }, "the first answer is established, the others had both marks already");
});

it("keeps the other DSCP bits and ECN, and leaves a correct IP checksum", () => {
	for (let high = 0; high < 256; high += 16) {
		const tos = high | 0x04 | 0x02;
		count(server);
		ping(tos, 2);
		assert.deepEqual(counted(server), { [tos]: 1, [tos | 0x08]: 1 });
	}
});

it("leaves packets without the miss mark, or with both marks, alone", () => {
	for (const tos of [0x00, 0x08, 0x0c, 0xb8]) {
		count(server);
		ping(tos, 3);
		assert.deepEqual(counted(server), { [tos]: 3 });
	}
});

it("is installed once however often it is installed", () => {
	installMarkRule(["veth"]);
	assert.equal(sh("nft list ruleset").match(/jump established/g)?.length, 2, "once for each direction");
});

it("is gone after removal, and removing it again is harmless", () => {
	sh("nft add table ip foreign");
	assert.equal(hasMarkRule(), true);
	removeMarkRule();
	assert.equal(hasMarkRule(), false);
	removeMarkRule();
	assert.equal(sh("nft list ruleset").trim(), "table ip foreign {\n}");
	sh("nft delete table ip foreign");
	ping(0x04, 2);
	assert.deepEqual(counted(server), { 4: 2 });
});

it("is missing when somebody flushed its chain", () => {
	sh("nft flush chain ip oncache forward");
	assert.equal(hasMarkRule(), false);
});

it("says what to install when nft is missing", () => {
	const path = process.env.PATH;
	process.env.PATH = "/nonexistent";
	try {
		for (const act of [installMarkRule, hasMarkRule, removeMarkRule])
			assert.throws(act, /^Error: Cannot .+: nft is not installed; install the package nftables$/);
	} finally {
		process.env.PATH = path;
	}
});

it("what does not come from or go into a tunnel device is left alone", () => {
	installMarkRule();
	ping(0x24, 4);
	assert.deepEqual(Object.keys(counted(server)).map(Number), [0x24]);
	removeMarkRule();
});
