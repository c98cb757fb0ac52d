// Programs on their hooks: tcx and clsact, take-over by a later agent, other people's programs, and nothing left at the end.
import assert from "node:assert/strict";
import { existsSync, readdirSync, readlinkSync } from "node:fs";
import { after, describe, test } from "node:test";
import { foreignTcxPrograms } from "../../src/datapath/attach.js";
import { Datapath, destroy } from "../../src/datapath/datapath.js";
import { probeFeatures } from "../../src/datapath/features.js";
import { control, ONCACHE_CONTRACT } from "../../src/datapath/layout.js";
import type { AttachKind, DatapathOptions } from "../../src/datapath/types.js";
import { ensureBpffs } from "../../src/kernel/bpffs.js";
import { Rtnetlink } from "../../src/kernel/rtnetlink.js";
import { parseIpv4 } from "../../src/net/ipv4.js";
import { enterNetns, tool } from "./world.js";

enterNetns();
tool("ip", "link", "set", "pod0", "up");
tool("ip", "link", "set", "eth0", "up");

const bpffs = `/sys/fs/bpf/oct-attach-${process.pid}`;
after(() => destroy(bpffs));

const rtnetlink = Rtnetlink.open();
const indexOf = (name: string): number => rtnetlink.links().find((link) => link.name === name)?.ifindex ?? 0;
const pod0 = indexOf("pod0");
const up0 = indexOf("up0");

function open(attach: AttachKind = USUAL, sizes: Partial<DatapathOptions["sizes"]> = {}): Datapath {
	ensureBpffs(bpffs);
	return Datapath.open({
		bpffs,
		attach,
		markMode: "metadata",
		mark: 0x1000,
		maxStalenessMs: 2000,
		countFlows: false,
		sizes: { filter: 1024, egress: 64, ingress: 64, ...sizes },
	});
}

const tcx = probeFeatures().tcx;
const needsTcx = { skip: tcx.ok ? false : tcx.why };
const needs = (kind: AttachKind): { skip: string | boolean } => (kind === "tcx" ? needsTcx : { skip: false });
/** What an agent would choose here. */
const USUAL: AttachKind = tcx.ok ? "tcx" : "clsact";

const shown = (datapath: Datapath): string[] =>
	datapath
		.attachments()
		.map(({ ifindex, direction, program, kind, gone }) =>
			[
				ifindex === pod0 ? "pod0" : ifindex === up0 ? "up0" : "?",
				direction,
				program,
				kind,
				gone ? "gone" : "there",
			].join(" "),
		);
const qdiscs = (): string => tool("tc", "qdisc", "show");

/** Frames that the device sees on its egress hook: ARP requests for a neighbour that does not exist. */
function packetsThrough(datapath: Datapath): number {
	const { egress } = datapath.counters().packets;
	return egress.fast + Object.values(egress.fallback).reduce((sum, count) => sum + count, 0);
}

/** Sends `count` frames from the pod's end of the veth. */
function sendFromPod(count: number): void {
	const sent = `import socket;s=socket.socket(socket.AF_PACKET,socket.SOCK_RAW);s.bind(("eth0",0));[s.send(b"\\xff"*12+b"\\x08\\x06"+b"\\0"*46) for _ in range(${count})]`;
	tool("python3", "-c", sent);
}

for (const kind of ["tcx", "clsact"] as const)
	describe(`attached by ${kind}`, needs(kind), () => {
		test("programs see the packets, outlive their agent, and are taken over by the next one with all that is cached", () => {
			const before = qdiscs();
			const first = open(kind);
			first.attach(pod0, "ingress", "egress", kind);
			first.attach(pod0, "egress", "ingress_init", kind);
			assert.deepEqual(shown(first).sort(), [
				`pod0 egress ingress_init ${kind} there`,
				`pod0 ingress egress ${kind} there`,
			]);
			sendFromPod(3);
			assert.equal(packetsThrough(first), 3);
			first.close();
			sendFromPod(2);

			const second = open(kind);
			assert.equal(second.reused, true);
			assert.equal(packetsThrough(second), 5);
			second.attach(pod0, "ingress", "egress", kind);
			assert.equal(shown(second).length, 2, "replaced, not added");
			sendFromPod(1);
			assert.equal(packetsThrough(second), 6);
			second.close();

			assert.ok(destroy(bpffs).length > 0);
			assert.equal(qdiscs(), before);
			assert.ok(!existsSync(bpffs));
			assert.deepEqual(foreignTcxPrograms(pod0, "ingress", []), []);
			assert.deepEqual(destroy(bpffs), [], "and again");
		});
	});

describe("moving from one way to the other", () => {
	test("leaves one program on the hook", needsTcx, () => {
		const datapath = open();
		for (const kind of ["tcx", "clsact", "tcx"] as const) {
			datapath.attach(pod0, "ingress", "egress", kind);
			assert.deepEqual(shown(datapath), [`pod0 ingress egress ${kind} there`]);
		}
		datapath.close();
		destroy(bpffs);
	});
});

describe("other people's things", () => {
	test("a clsact qdisc that was there stays, and so does one that others use now", () => {
		tool("tc", "qdisc", "add", "dev", "pod0", "clsact");
		const datapath = open("clsact");
		datapath.attach(pod0, "ingress", "egress", "clsact");
		datapath.attach(up0, "egress", "egress_init", "clsact");
		tool("tc", "filter", "add", "dev", "up0", "egress", "u32", "match", "u32", "0", "0", "flowid", ":1");
		datapath.close();
		destroy(bpffs);
		assert.match(qdiscs(), /clsact ffff: dev pod0/);
		assert.match(qdiscs(), /clsact ffff: dev up0/);
		assert.match(tool("tc", "filter", "show", "dev", "up0", "egress"), /u32/);
		assert.equal(tool("tc", "filter", "show", "dev", "pod0", "ingress"), "");
		tool("tc", "qdisc", "del", "dev", "pod0", "clsact");
		tool("tc", "qdisc", "del", "dev", "up0", "clsact");
	});

	test("a classifier behind ours still sees what is not ours", () => {
		tool("tc", "qdisc", "add", "dev", "pod0", "clsact");
		const redirect = ["action", "mirred", "egress", "redirect", "dev", "up0"];
		tool("tc", "filter", "add", "dev", "pod0", "ingress", "u32", "match", "u32", "0", "0", ...redirect);
		const sentByUplink = (): number => JSON.parse(tool("ip", "-s", "-j", "link", "show", "up0"))[0].stats64.tx.packets;
		const before = sentByUplink();
		const datapath = open();
		datapath.attach(pod0, "ingress", "egress", USUAL);
		sendFromPod(4);
		assert.equal(packetsThrough(datapath), 4);
		assert.equal(sentByUplink() - before, 4);
		datapath.close();
		destroy(bpffs);
		tool("tc", "qdisc", "del", "dev", "pod0", "clsact");
	});
});

describe("a device that is gone", () => {
	for (const kind of ["tcx", "clsact"] as const)
		test(`is shown as gone, and its ${kind} traces can be removed`, needs(kind), () => {
			tool("ip", "link", "add", "pod9", "type", "veth", "peer", "name", "eth9");
			const pod9 = indexOf("pod9");
			const datapath = open(kind);
			datapath.attach(pod9, "ingress", "egress", kind);
			tool("ip", "link", "del", "pod9");
			assert.deepEqual(shown(datapath), [`? ingress  ${kind} gone`]);
			assert.equal(datapath.detach(pod9, "ingress"), true);
			assert.deepEqual(shown(datapath), []);
			datapath.close();
			destroy(bpffs);
		});
});

test("what is closed holds no program and no map of the kernel any more", () => {
	const held = (): string[] =>
		readdirSync("/proc/self/fd").flatMap((fd) => {
			try {
				const target = readlinkSync(`/proc/self/fd/${fd}`);
				return /bpf[-_](map|prog|link)/.test(target) ? [target] : [];
			} catch {
				return []; // the listing's own
			}
		});
	const before = held();
	const first = open();
	const pinned = Datapath.openPinned(bpffs);
	assert.ok(held().length > before.length);
	pinned?.close();
	first.close();
	assert.deepEqual(held(), before);
	destroy(bpffs);
});

describe("maps of an earlier agent", () => {
	test("of another size are replaced together, and what must be restored later is kept", () => {
		const first = open();
		first.savedTcpBeLiberal = 0;
		first.close();
		const second = open(USUAL, { egress: 128 });
		assert.equal(second.reused, false);
		assert.equal(second.savedTcpBeLiberal, 0);
		assert.equal(second.capacities.egress, 128);
		second.close();
		destroy(bpffs);
	});

	test("of another contract are never read", () => {
		const first = open();
		const { view } = first.maps.control;
		view.setUint32(control.offset.contract, ONCACHE_CONTRACT + 1, true);
		first.close();
		const second = open();
		assert.equal(second.reused, false);
		second.close();
		destroy(bpffs);
	});

	test("can be opened without loading anything, and flushed", () => {
		const first = open();
		const pinned = Datapath.openPinned(bpffs);
		assert.ok(pinned);
		assert.equal(pinned.flushPod(parseIpv4("10.0.0.1")), 0);
		assert.throws(() => pinned.programFd("egress"), /opened from its pins only/);
		pinned.using = false;
		assert.equal(first.using, false);
		pinned.close();
		first.close();
		destroy(bpffs);
		assert.equal(Datapath.openPinned(bpffs), undefined);
	});
});
