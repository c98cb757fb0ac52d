// The CNI plugin in chains with Debian's, as a container runtime executes them, on lab hosts with real agents.
import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { run } from "../../src/lab/command.js";
import { BRIDGE, prefix } from "../../src/lab/topology.js";
import { CniRuntime, type Container, type Network } from "./cni-runtime.js";
import { statusOf, type TestLab, upWithAgents } from "./world.js";

const NAME = "e2e-cni";
const dir = mkdtempSync(join(tmpdir(), "oncache-test-"));
let world: TestLab;
let runtime: CniRuntime;

before(async () => {
	world = await upWithAgents(NAME, [], { pods: 1 });
	runtime = new CniRuntime(world.h1.netns);
});
after(async () => {
	await world.down();
	rmSync(dir, { recursive: true });
});

/** Of the lab's first host: addresses that the lab's own pods do not have. */
function network(cniVersion = "1.0.0", more: Partial<Network> = {}): Network {
	return {
		cniVersion,
		name: "chained",
		plugins: [
			{
				type: "bridge",
				bridge: BRIDGE,
				isGateway: true,
				mtu: 1450,
				ipam: {
					type: "host-local",
					dataDir: dir,
					ranges: [
						[
							{
								subnet: world.h1.podCidr,
								rangeStart: "10.244.1.100",
								rangeEnd: "10.244.1.150",
								gateway: world.h1.gateway,
							},
						],
					],
					routes: [{ dst: "0.0.0.0/0" }],
				},
			},
			{ type: "oncache-cni", socket: world.h1.socket, last: true },
		],
		...more,
	};
}

let number = 0;

async function container(): Promise<Container> {
	// Named as the lab's pods are: whoever takes the lab down finds it.
	const name = `${prefix(NAME)}h1p${100 + ++number}`;
	await run(["ip", "netns", "add", name]);
	return { id: name, netns: `/run/netns/${name}` };
}

describe("a chain", () => {
	for (const version of ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0"])
		test(`CNI ${version}: attached when ADD returns, and the result is the one before`, async () => {
			const list = network(version);
			const pod = await container();
			const result = await runtime.add(list, pod);
			const { pods, cni } = await statusOf(world.h1);
			assert.deepEqual(
				pods.map(({ attached }) => attached),
				[true, true],
			);
			assert.equal(cni?.attachments, 1);
			assert.equal(runtime.said, "");
			assert.ok(result.ip4 || result.ips);
			await runtime.del(list, pod);
			assert.equal((await statusOf(world.h1)).cni?.attachments, 0);
		});
});
