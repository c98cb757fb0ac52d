// A bridge that does not know where a MAC address is sends its frames to every port: to the right pod, too. What the other
// ports see of it is no place to deliver to.
import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { setTimeout } from "node:timers/promises";
import type { LabPod } from "../../src/lab/topology.js";
import { inside, ping, type TestLab, upWithAgents } from "./world.js";

const STALENESS_MS = 1000;
const PODS = 3;
/** One flow, by its identifier. */
const FLOW = ["-e", "4711", "-i", "0.01", "-W", "1"];

describe("a pod that its bridge has forgotten, and that only listens", () => {
	let world: TestLab;
	before(async () => {
		world = await upWithAgents("e2e-flood", ["--max-staleness-ms", String(STALENESS_MS)], { pods: PODS });
	});
	after(() => world?.down());

	/** Echo requests that have reached it. */
	async function heard(pod: LabPod): Promise<number> {
		const { kernel } = JSON.parse(await inside(pod, "nstat", "-asj", "IcmpInEchos")) as {
			kernel: { IcmpInEchos: number };
		};
		return kernel.IcmpInEchos;
	}

	for (let at = 0; at < PODS; at++)
		test(`gets every packet, at port ${at + 1} of ${PODS}`, async () => {
			const pod = world.h2.pods[at] as LabPod;

			assert.deepEqual(await ping(world.p1, pod, "-c", "10", ...FLOW), { sent: 10, received: 10 });
			const before = await heard(pod);
			await inside(pod, "sysctl", "-qw", "net.ipv4.icmp_echo_ignore_all=1");
			await setTimeout(STALENESS_MS + 100); // what was learned is asked about again
			await inside(world.h2, "bridge", "fdb", "del", pod.mac, "dev", pod.veth, "master");
			await ping(world.p1, pod, "-c", "20", ...FLOW);
			assert.equal((await heard(pod)) - before, 20);
		});
});
