// What is kept of the API's objects.
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { readNamespace, readNode, readPod, readPolicy } from "./records.js";

const metadata = { uid: "u", name: "n", namespace: "a", resourceVersion: "1" };
const pod = (more: object = {}, about: object = {}, spec: object = {}) => ({
	metadata: { ...metadata, ...about },
	spec: { nodeName: "n1", containers: [], ...spec },
	status: { phase: "Running", podIP: "10.0.0.2", podIPs: [{ ip: "10.0.0.2" }, { ip: "fd00::2" }], ...more },
});

describe("readPod()", () => {
	test("keeps name, node and addresses", () => {
		const { name, namespace, node, ips, accelerate } = readPod(pod());
		assert.deepEqual([name, namespace, node, ips, accelerate], ["n", "a", "n1", ["10.0.0.2", "fd00::2"], null]);
	});

	test("an old server says only podIP", () => assert.deepEqual(readPod(pod({ podIPs: undefined })).ips, ["10.0.0.2"]));

	test("a pod that has ended, is in the host's network, or has none yet has no address", () => {
		for (const over of [pod({ phase: "Succeeded" }), pod({ phase: "Failed" }), pod({}, {}, { hostNetwork: true })])
			assert.deepEqual(readPod(over).ips, []);
		assert.deepEqual(readPod({ metadata, spec: {} }).ips, []);
	});

	test("what is no address is nobody's", () =>
		assert.deepEqual(
			readPod(pod({ podIPs: [{ ip: "x" }, { ip: "10.0.0.999" }, { ip: "fe80::1%eth0" }, { ip: "10.0.0.3" }] })).ips,
			["10.0.0.3"],
		));

	test("the annotation counts before the label, and only true and false count", () => {
		const key = "oncache.io/accelerate";
		const wish = (annotations: object, labels: object = {}) => readPod(pod({}, { annotations, labels })).accelerate;
		assert.equal(wish({ [key]: "false" }), false);
		assert.equal(wish({}, { [key]: "false" }), false);
		assert.equal(wish({ [key]: "true" }, { [key]: "false" }), true);
		assert.equal(wish({ [key]: "no" }), null);
	});

	test("other labels are other labels, in whatever order", () => {
		const labels = (given: object) => readPod(pod({}, { labels: given })).labels;
		assert.equal(labels({ a: "1", b: "2" }), labels({ b: "2", a: "1" }));
		assert.notEqual(labels({ a: "1" }), labels({ a: "2" }));
	});

	test("what is no pod is refused", () => {
		for (const garbage of [null, {}, { metadata: {} }, { metadata, spec: { nodeName: 7 } }])
			assert.throws(() => readPod(garbage));
	});
});

test("readNode() keeps addresses that are some", () =>
	assert.deepEqual(
		readNode({
			metadata,
			status: {
				addresses: [
					{ type: "InternalIP", address: "192.168.0.1" },
					{ type: "ExternalIP", address: "203.0.113.1" },
					{ type: "Hostname", address: "n1" },
				],
			},
		}).ips,
		["192.168.0.1", "203.0.113.1"],
	));

test("readNamespace() and readPolicy() keep wish and generation", () => {
	assert.equal(
		readNamespace({ metadata: { ...metadata, annotations: { "oncache.io/accelerate": "false" } } }).accelerate,
		false,
	);
	assert.equal(readPolicy({ metadata: { ...metadata, generation: 4 } }).generation, 4);
});
