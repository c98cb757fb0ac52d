// Sysctls of a network namespace of its own.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { openSync } from "node:fs";
import { it } from "node:test";
import { CLONE_NEWNET, unshare } from "../../src/kernel/libc.js";
import { readSysctl, writeSysctl } from "../../src/kernel/sysctl.js";

const home = `/proc/${process.pid}/fd/${openSync("/proc/thread-self/ns/net", "r")}`;
unshare(CLONE_NEWNET);

const LIBERAL = "net.netfilter.nf_conntrack_tcp_be_liberal";

function readAtHome(path: string): string {
	return execFileSync("nsenter", [`--net=${home}`, "cat", path], { encoding: "utf8" }).trim();
}

it("reads and writes the settings of its own network namespace only", () => {
	const path = "/proc/sys/net/netfilter/nf_conntrack_tcp_be_liberal";
	const before = readAtHome(path);
	const other = before === "1" ? 0 : 1;
	writeSysctl(LIBERAL, other);
	assert.equal(readSysctl(LIBERAL), String(other));
	assert.equal(readAtHome(path), before);
});

it("takes a name with slashes for devices with dots", () => {
	execFileSync("ip", ["link", "add", "eth0.5", "type", "bridge"]);
	writeSysctl("net/ipv4/conf/eth0.5/rp_filter", 2);
	assert.equal(readSysctl("net/ipv4/conf/eth0.5/rp_filter"), "2");
});

it("reads a setting that does not exist as undefined, and refuses to write it", () => {
	assert.equal(readSysctl("net.ipv4.no_such_setting"), undefined);
	assert.throws(
		() => writeSysctl("net.ipv4.no_such_setting", 1),
		/Cannot set sysctl "net.ipv4.no_such_setting" to "1"/,
	);
});

it("names setting and value when the kernel refuses the value", () => {
	assert.throws(() => writeSysctl(LIBERAL, 7), /Cannot set sysctl "net.netfilter.*" to "7": EINVAL/);
});
