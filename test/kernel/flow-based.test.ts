// Tunnels of a switch: VNI and remote host come with each packet, connection tracking has a zone.
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { probeFeatures } from "../../src/datapath/features.js";
import { parseIpv4 } from "../../src/net/ipv4.js";
import { inner6, track6 } from "./ipv6.js";
import { guardTime, retryTime } from "./pace.js";
import {
	enterNetns, fromPod, inbound, inner, LOCAL_PORT, MAC, MARK, NEXT, openWorld, outbound, REDIRECT, REMOTE_HOST, REMOTE_PORT, toPod, track, type World,
} from "./world.js"; // biome-ignore format: a list

/** Antrea's. */
const ZONE = 65520;
const ZONE6 = 65510;
const VNI = 7;

enterNetns();

const { zones } = probeFeatures();

function inSwitchedWorld(use: (world: World) => void | Promise<void>): () => Promise<void> {
	return async () => {
		const world = openWorld({ zones: { ipv4: ZONE, ipv6: ZONE6 } });
		try {
			await use(world);
		} finally {
			world.close();
		}
	};
}

/** All gateways of the switch have one address for each other; their own ones are the inner sources. */
const asks = (world: World, vni = VNI): void => {
	world.run("egress_init", outbound(inner("udp", "egress", { ttl: 63 }), { vni }), { mark: MARK });
	world.run("ingress_init", toPod(inner("udp", "ingress", { ttl: 62 })), { mark: MARK });
};
const egress = (world: World) => world.run("egress", fromPod(inner("udp", "egress")));

describe("a flow based tunnel", { skip: zones.ok ? false : zones.why }, () => {
	test(
		"teaches nothing of what another zone of connection tracking knows",
		inSwitchedWorld((world) => {
			const ports = { local: LOCAL_PORT, remote: REMOTE_PORT };
			track("udp", "SEEN_REPLY,ASSURED", ports);
			track("udp", "SEEN_REPLY,ASSURED", ports, ZONE - 1);
			asks(world);
			assert.deepEqual(world.datapath.lessons(), {
				egress: { not_established: 1 },
				ingress: { not_established: 1 },
			});
		}),
	);

	test(
		"teaches what its zone knows, with the VNI of the packet",
		inSwitchedWorld((world) => {
			track("udp", "SEEN_REPLY,ASSURED", { local: LOCAL_PORT, remote: REMOTE_PORT }, ZONE);
			asks(world);
			assert.deepEqual(world.datapath.lessons(), { egress: { learned: 1 }, ingress: { learned: 1 } });
			assert.deepEqual(
				world.datapath.hosts().map(({ remote, vni }) => [remote, vni]),
				[[parseIpv4(REMOTE_HOST), VNI]],
			);
			const { verdict, packet } = egress(world);
			assert.equal(verdict, REDIRECT);
			assert.equal(packet.readUInt32BE(14 + 20 + 8 + 4) >>> 8, VNI);
		}),
	);

	test(
		"asks about IPv6 in the zone of IPv6",
		inSwitchedWorld((world) => {
			const ports = { local: LOCAL_PORT, remote: REMOTE_PORT };
			const asks6 = (): void => {
				const frame = inner6("udp", "egress", { hopLimit: 63 });
				world.run("egress_init", outbound(frame, { vni: VNI }), { mark: MARK });
				world.run("ingress_init", toPod(inner6("udp", "ingress", { hopLimit: 62 })), { mark: MARK });
			};
			track6("udp", "SEEN_REPLY,ASSURED", ports, ZONE);
			asks6();
			assert.deepEqual(world.datapath.lessons(), {
				egress: { not_established: 1 },
				ingress: { not_established: 1 },
			});
			track6("udp", "SEEN_REPLY,ASSURED", ports, ZONE6);
			asks6();
			assert.equal(world.datapath.lessons().egress.learned, 1);
			assert.equal(world.datapath.lessons().ingress.learned, 1);
			assert.equal(world.run("egress", fromPod(inner6("udp", "egress"))).verdict, REDIRECT);
		}),
	);

	const families = [
		["IPv4", track, inner("udp", "egress", { ttl: 63 }), inner("udp", "ingress", { ttl: 62 }), ZONE],
		["IPv6", track6, inner6("udp", "egress", { hopLimit: 63 }), inner6("udp", "ingress", { hopLimit: 62 }), ZONE6],
	] as const;
	for (const [family, enter, out, back, zone] of families)
		test(
			`asks once about the two directions of a flow that come together, and about each from then on: ${family}`,
			inSwitchedWorld(async (world) => {
				const move = (ipv4: number, ipv6: number): void =>
					world.datapath.setTunnels(
						world.datapath.tunnels().map((tunnel) => ({ ...tunnel, flowBased: { zones: { ipv4, ipv6 }, gateway: 0 } })),
					);
				const leaves = (): void => {
					move(ZONE, ZONE6);
					world.run("egress_init", outbound(out, { vni: VNI }), { mark: MARK });
				};
				/** In a zone that knows nothing: what is learned was not asked about. */
				const arrives = (): void => {
					move(ZONE - 2, ZONE6 - 2);
					world.run("ingress_init", toPod(back), { mark: MARK });
				};
				enter("udp", "SEEN_REPLY,ASSURED", { local: LOCAL_PORT, remote: REMOTE_PORT }, zone);
				leaves();
				arrives();
				assert.deepEqual(world.datapath.lessons(), { egress: { learned: 1 }, ingress: { learned: 1 } });
				arrives();
				assert.deepEqual(world.datapath.lessons().ingress, { learned: 1, not_established: 1 });

				world.datapath.flushAll();
				await guardTime();
				leaves();
				await retryTime();
				arrives();
				assert.deepEqual(world.datapath.lessons(), {
					egress: { learned: 2 },
					ingress: { learned: 1, not_established: 2 },
				});
			}),
		);

	test(
		"takes what comes in by the address that all gateways have, whoever sent it there; from another VNI it does not",
		inSwitchedWorld((world) => {
			track("udp", "SEEN_REPLY,ASSURED", { local: LOCAL_PORT, remote: REMOTE_PORT }, ZONE);
			asks(world);
			const arrives = (options: { vni?: number; innerDestination?: string }): number =>
				world.run(
					"ingress",
					inbound(inner("udp", "ingress"), {
						vni: VNI,
						innerSource: "0a:30:f4:00:09:00",
						innerDestination: MAC.remoteTunnel,
						...options,
					}),
				).verdict;
			assert.equal(arrives({}), REDIRECT);
			assert.equal(arrives({ vni: VNI + 1 }), NEXT);
			assert.equal(arrives({ innerDestination: "0a:30:f4:00:09:01" }), NEXT);
		}),
	);

	test(
		"keeps what differs from flow to flow apart: another VNI is another entry",
		inSwitchedWorld((world) => {
			track("udp", "SEEN_REPLY,ASSURED", { local: LOCAL_PORT, remote: REMOTE_PORT }, ZONE);
			asks(world);
			asks(world, VNI + 1);
			assert.deepEqual(
				world.datapath
					.hosts()
					.map(({ vni }) => vni)
					.sort(),
				[VNI, VNI + 1],
			);
		}),
	);

	test(
		"teaches nothing of what the switch does not route",
		inSwitchedWorld((world) => {
			track("udp", "SEEN_REPLY,ASSURED", { local: LOCAL_PORT, remote: REMOTE_PORT }, ZONE);
			world.run("egress_init", outbound(inner("udp", "egress"), { vni: VNI, innerSource: MAC.pod }), { mark: MARK });
			assert.deepEqual(world.datapath.lessons().egress, { unfit: 1 });
		}),
	);
});
