import assert from "node:assert/strict";
import { test } from "node:test";
import type { Attached } from "../datapath/attach.js";
import type { TunnelEntry, VethEntry } from "../datapath/types.js";
import type { Link } from "../kernel/link.js";
import type { Tunnel } from "../kernel/topology.js";
import type { MacAddress } from "../net/mac.js";
import { type Desired, NOTHING, tunnelEntries, vethEntries } from "./desired.js";
import { type Action, type Actual, plan } from "./plan.js";

const UPLINK = 2;
const TUNNEL = 5;

function link(ifindex: number, name: string): Link {
	const none = {
		kind: undefined,
		master: undefined,
		link: undefined,
		linkNetnsid: undefined,
		vxlan: undefined,
		geneve: undefined,
		bridge: undefined,
		flowBased: undefined,
	};
	return { ifindex, name, mac: "0a:00:00:00:00:01" as MacAddress, mtu: 1500, up: true, loopback: false, ...none };
}

function desired(veths: number[], shaped = false): Desired {
	const tunnel: Tunnel = {
		link: link(TUNNEL, "flannel.1"),
		kind: "vxlan",
		bridge: undefined,
		flowBased: undefined,
		vni: 1,
		port: 8472,
		uplink: link(UPLINK, "eth0"),
		mtu: 1450,
		tosInherit: false,
		ttlInherit: false,
		dfInherit: false,
		labelInherit: false,
		ipv6: false,
		why: undefined,
	};
	return {
		tunnels: [{ tunnel, bridging: "none", why: null }],
		uplinks: [UPLINK],
		veths: veths.map((ifindex) => ({
			link: link(ifindex, `veth${ifindex}`),
			entry: { ifindex, shaped, mtu: 1450, router: undefined, untracked: false, zones: { ipv4: 0, ipv6: 0 } },
			why: null,
			excluded: false,
		})),
	};
}

function attached(ifindex: number, kind: Attached["kind"] = "tcx", gone = false): Attached[] {
	const isUplink = ifindex === UPLINK;
	return [
		{ ifindex, direction: "egress", program: isUplink ? "egress_init" : "ingress_init", kind, gone },
		{ ifindex, direction: "ingress", program: isUplink ? "ingress" : "egress", kind, gone },
	];
}

function actual(attachments: Attached[], veths: VethEntry[], tunnels: TunnelEntry[], isOwn = true): Actual {
	return { attachments, veths, tunnels, isOwn: () => isOwn };
}

/** What is there when `want` was applied. */
const settled = (want: Desired): Actual =>
	actual(
		[UPLINK, ...vethEntries(want).map(({ ifindex }) => ifindex)].flatMap((ifindex) => attached(ifindex)),
		vethEntries(want),
		tunnelEntries(want),
	);

const brief = (actions: Action[]): string[] =>
	actions.map((action) =>
		[action.kind, "ifindex" in action ? action.ifindex : "", "direction" in action ? action.direction : ""]
			.join(" ")
			.trim(),
	);

test("plan() does nothing when everything is as it should be", () => {
	assert.deepEqual(plan(desired([7]), settled(desired([7])), "tcx"), []);
});

test("plan() does nothing when a device's entry was read back with its fields in another order", () => {
	const is = settled(desired([7]));
	const turned = <T extends object>(entry: T): T => Object.fromEntries(Object.entries(entry).reverse()) as T;
	assert.deepEqual(
		plan(desired([7]), { ...is, veths: is.veths.map(turned), tunnels: is.tunnels.map(turned) }, "tcx"),
		[],
	);
});

test("plan() tells the programs about devices before it attaches them, and init programs come first", () => {
	assert.deepEqual(brief(plan(desired([7]), actual([], [], []), "tcx")), [
		"setTunnels",
		"setVeths",
		"attach 2 egress",
		"attach 2 ingress",
		"attach 7 egress",
		"attach 7 ingress",
	]);
});

test("plan() attaches a veth that is new and leaves the others alone", () => {
	assert.deepEqual(brief(plan(desired([7, 8]), settled(desired([7])), "tcx")), [
		"setVeths",
		"attach 8 egress",
		"attach 8 ingress",
	]);
});

test("plan() removes the programs of a veth that is gone, and evicts its pod", () => {
	const now = settled(desired([7, 8]));
	const gone = now.attachments.map((is) => (is.ifindex === 8 ? { ...is, gone: true } : is));
	assert.deepEqual(brief(plan(desired([7]), { ...now, attachments: gone }, "tcx")), [
		"detach 8 egress",
		"detach 8 ingress",
		"setVeths",
		"flushVeth 8",
	]);
});

test("plan() replaces every program that an earlier agent has left", () => {
	const now = { ...settled(desired([7])), isOwn: () => false };
	assert.deepEqual(brief(plan(desired([7]), now, "tcx")), [
		"attach 2 egress",
		"attach 2 ingress",
		"attach 7 egress",
		"attach 7 ingress",
	]);
});

test("plan() moves programs that are attached in another way", () => {
	const now = settled(desired([]));
	const clsact = { ...now, attachments: attached(UPLINK, "clsact") };
	assert.deepEqual(brief(plan(desired([]), clsact, "tcx")), ["attach 2 egress", "attach 2 ingress"]);
});

test("plan() puts a program back that somebody has removed", () => {
	const now = settled(desired([7]));
	const less = {
		...now,
		attachments: now.attachments.filter((is) => !(is.ifindex === 7 && is.direction === "ingress")),
	};
	assert.deepEqual(brief(plan(desired([7]), less, "tcx")), ["attach 7 ingress"]);
});

test("plan() evicts a pod whose veth got or lost a shaper", () => {
	assert.deepEqual(brief(plan(desired([7], true), settled(desired([7])), "tcx")), ["setVeths", "flushVeth 7"]);
});

test("plan() evicts what was learned over a tunnel that has changed", () => {
	const now = settled(desired([]));
	const other = { ...now, tunnels: now.tunnels.map((entry) => ({ ...entry, vni: 9 })) };
	assert.deepEqual(brief(plan(desired([]), other, "tcx")), ["setTunnels", `flushTunnel ${TUNNEL}`]);
});

test("plan() takes everything off when nothing may be accelerated", () => {
	assert.deepEqual(brief(plan(NOTHING, settled(desired([7])), "tcx")), [
		"detach 2 egress",
		"detach 2 ingress",
		"detach 7 egress",
		"detach 7 ingress",
		"setTunnels",
		"setVeths",
		"flushVeth 7",
		`flushTunnel ${TUNNEL}`,
	]);
});
