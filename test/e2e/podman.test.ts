// Containers that podman makes, as root with a CNI network, one on each of two hosts. The agents find them by themselves.
import assert from "node:assert/strict";
import { after, afterEach, before, describe, test } from "node:test";
import { type Podman, type PodmanContainer, startPodman } from "../runtime/podman.js";
import { endRunning } from "./running.js";
import { ask, serve } from "./talk.js";
import { end, inside, ping, statusOf, type TestLab, tunnelPackets, upWithAgents } from "./world.js";

const NAME = "e2e-podman";
/** So long that no packet of a short exchange is a sample. */
const STALENESS = ["--max-staleness-ms", "60000"];
/** Opening, and the established packets that teach both hosts, in both directions; a TCP connection also ends there. */
const TO_BEGIN = 8;
const TO_BEGIN_AND_END = 16;
const [ROUNDS, PORT] = [100, 8080];

describe("containers of podman with a CNI network", () => {
	let world: TestLab;
	let podmen: [Podman, Podman];
	let a: PodmanContainer;
	let b: PodmanContainer;

	before(async () => {
		world = await upWithAgents(NAME, STALENESS, { pods: 1 });
		podmen = await Promise.all([startPodman(world.h1, world.lab), startPodman(world.h2, world.lab, { addresses: 1 })]);
		[a, b] = await Promise.all([podmen[0].run("a"), podmen[1].run("b")]);
	});
	afterEach(endRunning); // of a test that failed: the next ones are about something else
	after(() => world?.down());

	const look = async () => {
		const { egress, ingress } = (await statusOf(world.h1)).packets;
		return { tunnel: await tunnelPackets(world.h1), fast: egress.fast + ingress.fast };
	};

	test("ping each other over the fast path", async () => {
		assert.match(a.ip, /^10\.244\.1\.1\d\d$/);
		const before = await look();
		const said = await podmen[0].exec("a", ["ping", "-c", String(ROUNDS), "-i", "0.005", b.ip]);
		assert.match(said, new RegExp(`${ROUNDS} packets transmitted, ${ROUNDS} packets received`));
		const now = await look();
		const [tunnel, fast] = [now.tunnel - before.tunnel, now.fast - before.fast];
		assert.ok(tunnel <= TO_BEGIN, `the tunnel device carried ${tunnel} of ${2 * ROUNDS} packets`);
		assert.ok(fast >= 2 * ROUNDS - TO_BEGIN, `${fast} of ${2 * ROUNDS} packets were fast`);
	});

	test("stream by TCP over the fast path, and after one of them was replaced at the same address", async () => {
		for (const name of ["b", "heir"]) {
			if (name === "heir") {
				await podmen[1].remove("b");
				const heir = await podmen[1].run(name);
				assert.equal(heir.ip, b.ip);
				// The bridge plugin does not announce it: the host sends to the old one's MAC address until the new one speaks.
				await ping(heir, { ip: world.h2.gateway }, "-c", "1", "-W", "1");
				b = heir;
			}
			const server = await serve(b, PORT);
			const before = await look();
			const bytes = 1_000_000;
			assert.deepEqual(await ask(a, "tcp", b.ip, PORT, { bytes }), [{ name, from: a.ip, bytes }]);
			const now = await look();
			await end(server);
			const [tunnel, fast] = [now.tunnel - before.tunnel, now.fast - before.fast];
			assert.ok(tunnel <= TO_BEGIN_AND_END, `the tunnel device carried ${tunnel} packets`);
			assert.ok(fast > 2 * TO_BEGIN_AND_END, `${fast} packets were fast`);
		}
	});

	test("leave their host as it was when they are removed", async () => {
		await podmen[0].remove("a");
		const left = JSON.parse(await inside(world.h1, "ip", "-j", "link", "show", "type", "veth")) as unknown[];
		assert.equal(left.length, 2, "the lab's own pod, and the cable");
		await Promise.all(podmen.map(({ node }) => node.stop()));
	});
});
