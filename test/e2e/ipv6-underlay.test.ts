// Hosts that reach each other over IPv6: commands know them, and what the kernel tells about them is evicted at once: the bound
// of staleness is a minute away, so nothing else can be the cause.
import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { setTimeout } from "node:timers/promises";
import type { FlowList, FlushResult, VerifyResult } from "../../src/agent/api.js";
import { patiently } from "../../src/lab/patience.js";
import { answerAll, EXCHANGES, fastShare, MOST } from "./exchange.js";
import {
	deviceCounters,
	end,
	eventually,
	inside,
	oncache as oncacheOn,
	type TestLab,
	upWithAgents,
	whilePinging,
} from "./world.js";

let world: TestLab;
let there: string;

before(async () => {
	world = await upWithAgents("e2e-under6", ["--max-staleness-ms", "60000"], { family: "dual", underlay: "ipv6" });
	there = world.h2.nodeIps[6] as string;
});
after(() => world.down());

const oncache = (command: string, ...rest: string[]) => oncacheOn(world.h1, command, ...rest);

async function json<T>(command: string, ...rest: string[]): Promise<T> {
	return JSON.parse((await oncache(command, "--json", ...rest)).stdout) as T;
}

test("TCP, UDP and ICMP are fast, of inner IPv4 and IPv6", async () => {
	const servers = await answerAll(world.p2);
	try {
		for (const ip of world.p2.addresses)
			for (const [protocol, exchange] of Object.entries(EXCHANGES)) {
				const share = await fastShare(world.h1, () => exchange(world.p1, { ip }));
				assert.ok(share > MOST, `${protocol} to ${ip}: only ${(100 * share).toFixed(1)} % fast`);
			}
	} finally {
		await Promise.all(servers.map(end));
	}
});

describe("commands", () => {
	test("flows names the host, verify finds no difference, doctor nothing to do about the tunnel", () =>
		whilePinging(world.h1, world.p1, world.p2.ip, async () => {
			const { flows } = await json<FlowList>("flows", "--peer", world.p2.ip);
			assert.ok(flows.some(({ host, protocol }) => protocol === "icmp" && host === there));
			const { checked, differences } = await json<VerifyResult>("verify");
			assert.deepEqual([checked.hosts, differences], [1, []]);
			const findings = await json<{ level: string; what: string }[]>("doctor");
			assert.deepEqual(
				findings.filter(({ what }) => /tunnel|MTU/.test(what)).filter(({ level }) => level !== "ok"),
				[],
			);
		}));

	test("flush --host takes its IPv6 address in any spelling", () =>
		whilePinging(world.h1, world.p1, world.p2.ip, async () => {
			const { hosts } = await json<FlushResult>("flush", "--host", there.replace("::", ":0:0:0:0:0:"));
			assert.equal(hosts, 1);
		}));
});

describe("what the kernel tells is evicted at once", () => {
	const arrived = async (): Promise<number> => (await deviceCounters(world.p2, "eth0")).rx;
	const standsStill = async (): Promise<boolean> => {
		const earlier = await arrived();
		await setTimeout(100); // a pause in which a packet would come if any came
		return (await arrived()) === earlier;
	};

	for (const [what, change, undo] of [
		["a forwarding entry", "bridge fdb replace FAR dev TUNNEL dst fd00:77::99", "bridge fdb replace FAR dev TUNNEL dst THERE"],
		["the underlay's neighbour", "ip neigh replace THERE lladdr 0a:00:00:00:00:99 dev UPLINK nud permanent", "ip neigh replace THERE lladdr MAC dev UPLINK nud permanent"],
		["the underlay's route", "ip route add blackhole THERE/128", "ip route del blackhole THERE/128"],
	] as const) // biome-ignore format: a table
		for (const family of [0, 1])
			test(`${what}, of inner ${family === 0 ? "IPv4" : "IPv6"}`, () => {
				const script = (text: string): string =>
					text
						.replaceAll("FAR", world.h2.tunnelMac)
						.replaceAll("TUNNEL", world.h1.tunnel)
						.replaceAll("THERE", there)
						.replaceAll("UPLINK", world.h1.uplink)
						.replaceAll("MAC", world.h2.mac);
				return whilePinging(world.h1, world.p1, world.p2.addresses[family] as string, async () => {
					await inside(world.h1, "sh", "-ec", script(change));
					await eventually("nothing reaches the pod", standsStill, patiently(3000)); // audits come every 30 s
					await inside(world.h1, "sh", "-ec", script(undo));
				});
			});
});
