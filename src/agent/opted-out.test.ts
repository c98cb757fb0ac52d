// From a pod's address to its veth, as the kernel and the CNI plugin know it.
import assert from "node:assert/strict";
import { test } from "node:test";
import type { Hop } from "../kernel/forwarding.js";
import type { Link } from "../kernel/link.js";
import { formatIp, type Ip } from "../net/ip.js";
import type { MacAddress } from "../net/mac.js";
import type { PodName } from "./api.js";
import { OptedOutVeths } from "./opted-out.js";

const BRIDGE = 9;
const MAC = "0a:58:00:00:00:02" as MacAddress;
const A: PodName = { namespace: "a", name: "a" };

function kernel(hops: Record<string, Partial<Hop>>, devices = [7, 8, BRIDGE]) {
	return () => ({
		links: new Map(devices.map((ifindex) => [ifindex, { bridge: ifindex === BRIDGE ? {} : undefined } as Link])),
		hops: (ips: readonly Ip[]): [Ip, Hop | undefined][] =>
			ips.map((ip) => {
				const hop = hops[formatIp(ip)];
				return [ip, hop && { device: 0, ip, mac: undefined, ...hop }];
			}),
		portOf: (bridge: number, mac: MacAddress) => (bridge === BRIDGE && mac === MAC ? 8 : undefined),
	});
}

const nobody = (): undefined => undefined;
const wanted = new Map([["10.0.0.2", A]]);

test("a routed pod is behind the device of its route, a bridged one behind its bridge's port", () => {
	assert.deepEqual([...new OptedOutVeths().find(wanted, kernel({ "10.0.0.2": { device: 7 } }), nobody)], [[7, A]]);
	const bridged = kernel({ "10.0.0.2": { device: BRIDGE, mac: MAC } });
	assert.deepEqual([...new OptedOutVeths().find(wanted, bridged, nobody)], [[8, A]]);
});

test("where the kernel does not know, the CNI plugin may", () => {
	for (const hop of [{ device: BRIDGE }, { device: BRIDGE, mac: "failed" as const }]) {
		assert.deepEqual([...new OptedOutVeths().find(wanted, kernel({ "10.0.0.2": hop }), nobody)], []);
		assert.deepEqual([...new OptedOutVeths().find(wanted, kernel({ "10.0.0.2": hop }), () => 7)], [[7, A]]);
	}
});

test("what was found stays while the neighbour entry comes and goes, and ends with the device or the wish", () => {
	const veths = new OptedOutVeths();
	veths.find(wanted, kernel({ "10.0.0.2": { device: BRIDGE, mac: MAC } }), nobody);
	assert.deepEqual([...veths.find(wanted, kernel({}), nobody)], [[8, A]]);
	assert.deepEqual([...veths.find(wanted, kernel({}, [7, BRIDGE]), nobody)], []);
	veths.find(wanted, kernel({ "10.0.0.2": { device: BRIDGE, mac: MAC } }), nobody);
	assert.deepEqual([...veths.find(new Map(), kernel({}), nobody)], []);
	assert.deepEqual([...veths.find(wanted, kernel({}), nobody)], []);
});
