// Addresses that are left to the fallback: nothing is learned of them, whichever end of a flow they are.
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { evictAddresses } from "../../src/agent/flush.js";
import { formatIp, type Ip, parseIp } from "../../src/net/ip.js";
import type { MacAddress } from "../../src/net/mac.js";
import { inner6, POD6, REMOTE6, teach6 } from "./ipv6.js";
import { guardTime } from "./pace.js";
import { ipv4, udp } from "./packet.js";
import {
	enterNetns, fromPod, inbound, inner, MAC, MARK, NEXT, openWorld, POD, REDIRECT, REMOTE, tool, toPod, type World,
} from "./world.js"; // biome-ignore format: a list

enterNetns();
tool("ip", "link", "add", "pod1", "mtu", "1450", "type", "veth", "peer", "name", "eth1");
const pod1 = Number(/^(\d+):/.exec(tool("ip", "-o", "link", "show", "pod1"))?.[1]);

async function inWorld(use: (world: World) => void | Promise<void>): Promise<void> {
	const world = openWorld();
	try {
		await use(world);
	} finally {
		world.close();
	}
}

const ips = (...texts: string[]): Set<Ip> => new Set(texts.map(parseIp));
const egress = (world: World): number => world.run("egress", fromPod(inner("udp", "egress"))).verdict;
const ingress = (world: World): number => world.run("ingress", inbound(inner("udp", "ingress"))).verdict;
const egress6 = (world: World): number => world.run("egress", fromPod(inner6("udp", "egress"))).verdict;
const ingress6 = (world: World): number => world.run("ingress", inbound(inner6("udp", "ingress"))).verdict;
const NOTHING_LEARNED = { egress: { opted_out: 1 }, ingress: { opted_out: 1 } };

describe("an address that is opted out", () => {
	for (const [what, address] of [
		["the pod of this host", POD],
		["the pod of another host", REMOTE],
	] as const)
		test(`${what}: neither direction is learned`, () =>
			inWorld((world) => {
				assert.deepEqual(world.datapath.setOptedOut(ips(address)), ips(address));
				world.teach("udp");
				assert.deepEqual(world.datapath.lessons(), NOTHING_LEARNED);
				assert.deepEqual([egress(world), ingress(world)], [NEXT, NEXT]);
				assert.deepEqual([world.datapath.hosts(), world.datapath.pods()], [[], []]);
			}));

	for (const [what, address] of [
		["the pod of this host", POD6],
		["the pod of another host", REMOTE6],
	] as const)
		test(`IPv6, ${what}: neither direction is learned`, () =>
			inWorld((world) => {
				world.datapath.setOptedOut(ips(address));
				teach6(world, "udp");
				assert.deepEqual(world.datapath.lessons(), NOTHING_LEARNED);
				assert.deepEqual([egress6(world), ingress6(world)], [NEXT, NEXT]);
			}));

	test("another pod of the same host: neither is learned from the other", () =>
		inWorld((world) => {
			const other = "10.244.1.3";
			const router = MAC.gateway as MacAddress;
			world.datapath.setVeths(
				[world.pod0, pod1].map((ifindex) => ({
					ifindex,
					shaped: false,
					mtu: 1450,
					router,
					untracked: false,
					zones: { ipv4: 0, ipv6: 0 },
				})),
			);
			for (const veth of [world.pod0, pod1]) world.datapath.noteSender(veth, MAC.pod as MacAddress);
			tool("conntrack", "-I", "-p", "udp", "-s", POD, "-d", other, "--sport", "5000", "--dport", "6000",
				"--timeout", "600", "--status", "SEEN_REPLY,ASSURED"); // biome-ignore format: one command
			const there = ipv4(
				{ source: POD, destination: other, protocol: 17, ttl: 63 },
				udp({ source: 5000, destination: 6000 }),
			);
			world.datapath.setOptedOut(ips(other));
			world.run("ingress_init", toPod(there), { mark: MARK, ifindex: pod1, ingressIfindex: world.pod0 });
			assert.deepEqual(world.datapath.lessons().ingress, { opted_out: 1 });
			world.datapath.setOptedOut(new Set());
			world.run("ingress_init", toPod(there), { mark: MARK, ifindex: pod1, ingressIfindex: world.pod0 });
			assert.deepEqual(world.datapath.lessons().ingress, { opted_out: 1, learned: 1 });
		}));

	test("does not concern other pods, and is forgotten when it is taken out", () =>
		inWorld((world) => {
			world.datapath.setOptedOut(ips("10.244.2.3", "fd00::1"));
			assert.deepEqual([...world.datapath.optedOut()].map(formatIp).sort(), ["10.244.2.3", "fd00::1"]);
			world.teach("udp");
			assert.deepEqual([egress(world), ingress(world)], [REDIRECT, REDIRECT]);
			assert.deepEqual(world.datapath.setOptedOut(ips("fd00::1", POD)), ips(POD), "only what is new");
			assert.deepEqual([...world.datapath.optedOut()].map(formatIp).sort(), [POD, "fd00::1"].sort());
		}));

	test("a flow that is asked about again and again is left in peace after a few questions", () =>
		inWorld((world) => {
			world.datapath.setOptedOut(ips(REMOTE));
			for (let i = 0; i < 6; i++) world.teach("udp");
			assert.deepEqual([egress(world), ingress(world)], [NEXT, NEXT]);
			const { packets } = world.datapath.counters();
			assert.deepEqual([packets.egress.fallback, packets.ingress.fallback], [{ backoff: 1 }, { backoff: 1 }]);
		}));
});

describe("evictAddresses()", () => {
	for (const address of [POD, REMOTE])
		test(`${address}: what was learned of it is gone, and not confirmed by its next packets`, () =>
			inWorld(async (world) => {
				world.teach("udp");
				teach6(world, "udp");
				assert.deepEqual([egress(world), ingress(world), egress6(world)], [REDIRECT, REDIRECT, REDIRECT]);
				const added = world.datapath.setOptedOut(ips(address));
				const { pods, flows } = await evictAddresses(world.datapath, added);
				assert.deepEqual([pods, flows], address === POD ? [1, 0] : [0, 1]);
				await guardTime();
				world.teach("udp");
				assert.deepEqual([egress(world), ingress(world)], [NEXT, NEXT]);
				assert.deepEqual([egress6(world), ingress6(world)], [REDIRECT, REDIRECT], "the others stay");
			}));
});
