// What a change in the cluster means for what is cached.
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import type { NamespaceRecord, NodeRecord, PodRecord, PolicyRecord } from "./records.js";
import type { AnyRecord, Kind } from "./sources.js";
import { View } from "./view.js";

const pod = (uid: string, ips: string[], more: Partial<PodRecord> = {}): PodRecord => ({
	uid, name: uid, namespace: "a", node: "n1", ips, accelerate: null, labels: "", ...more,
}); // biome-ignore format: a record
const namespace = (name: string, more: Partial<NamespaceRecord> = {}): NamespaceRecord => ({
	uid: `ns-${name}`, name, namespace: "", accelerate: null, labels: "", ...more,
}); // biome-ignore format: a record
const node = (name: string, ips: string[]): NodeRecord => ({ uid: name, name, namespace: "", ips });
const policy = (name: string, generation = 1): PolicyRecord => ({ uid: name, name, namespace: "a", generation });

interface Told {
	view: View;
	said: string[];
	/** What was said since the last time. */
	news(): string[];
	replace(kind: Kind, records: AnyRecord[], source?: string): void;
	put(kind: Kind, record: AnyRecord, source?: string): void;
	gone(kind: Kind, uid: string, source?: string): void;
}

function told(): Told {
	const said: string[] = [];
	const view = new View("n1", {
		onPolicies: (why) => said.push(why),
		onGone: (ips) => said.push(`gone ${ips.join(" ")}`),
		onRelabelled: (ips) => said.push(`relabelled ${ips.join(" ")}`),
		onNodesGone: (ips) => said.push(`nodes gone ${ips.join(" ")}`),
		onOptedOut: (ips) => said.push(["opted out", ...[...ips].sort()].join(" ")),
	});
	return {
		view,
		said,
		news: () => said.splice(0),
		replace: (kind, records, source = kind) => view.apply({ type: "replace", kind, source, records }),
		put: (kind, record, source = kind) => view.apply({ type: "change", kind, source, put: [record], gone: [] }),
		gone: (kind, uid, source = kind) => view.apply({ type: "change", kind, source, put: [], gone: [uid] }),
	};
}

/** Everything was read once; nothing of it was news. */
function synced(pods: PodRecord[] = [], namespaces: NamespaceRecord[] = [namespace("a")]): Told {
	const it = told();
	it.replace("namespaces", namespaces);
	it.replace("nodes", []);
	it.replace("networkpolicies", []);
	it.replace("pods", pods);
	it.news();
	return it;
}

describe("pods", () => {
	test("what is there when reading begins is no change", () => {
		const { said, replace } = told();
		replace("networkpolicies", [policy("deny")]);
		replace("nodes", [node("n1", ["192.168.0.1"])]);
		replace("pods", [pod("p", ["10.0.0.2"])]);
		replace("namespaces", [namespace("a")]);
		assert.deepEqual(said, ["opted out"]);
	});

	test("a pod that is gone, and one that has another address, leave theirs", () => {
		const { put, gone, news, view } = synced([pod("p", ["10.0.0.2", "fd00::2"])]);
		put("pods", pod("p", ["10.0.0.3", "fd00::2"]));
		assert.deepEqual(news(), ["gone 10.0.0.2"]);
		gone("pods", "p");
		assert.deepEqual(news(), ["gone 10.0.0.3 fd00::2"]);
		assert.equal(view.podAt("fd00::2"), null);
	});

	test("a pod that has ended has no address any more: whoever reads it says so", () => {
		const { put, news } = synced([pod("p", ["10.0.0.2"])]);
		put("pods", pod("p", []));
		assert.deepEqual(news(), ["gone 10.0.0.2"]);
	});

	test("an address that another pod has already taken over is evicted once, and stays the other's", () => {
		const { put, gone, news, view } = synced([pod("old", ["10.0.0.2"])]);
		put("pods", pod("new", ["10.0.0.2"]));
		assert.deepEqual(news(), ["gone 10.0.0.2"]);
		gone("pods", "old");
		assert.deepEqual(news(), []);
		assert.equal(view.podAt("10.0.0.2")?.name, "new");
	});

	test("a list that lacks a pod says that it is gone", () => {
		const { replace, news } = synced([pod("p", ["10.0.0.2"]), pod("q", ["10.0.0.3"])]);
		replace("pods", [pod("q", ["10.0.0.3"])]);
		assert.deepEqual(news(), ["gone 10.0.0.2"]);
	});

	test("a pod in two sources is gone when both say so", () => {
		const { replace, gone, news, view } = synced([pod("p", ["10.0.0.2"])]);
		replace("pods", [pod("p", ["10.0.0.2"])], "pods by label");
		gone("pods", "p", "pods by label");
		assert.deepEqual(news(), []);
		assert.equal(view.podAt("10.0.0.2")?.name, "p");
		gone("pods", "p");
		assert.deepEqual(news(), ["gone 10.0.0.2"]);
	});

	test("other labels: its addresses are judged again", () => {
		const { put, news } = synced([pod("p", ["10.0.0.2"], { labels: "x" })]);
		put("pods", pod("p", ["10.0.0.2"], { labels: "y" }));
		assert.deepEqual(news(), ["relabelled 10.0.0.2"]);
	});
});

describe("opting out", () => {
	test("is told only when pods and namespaces are known: a namespace that is read later would be missed", () => {
		const { replace, news } = told();
		replace("pods", [pod("p", ["10.0.0.2"])]);
		assert.deepEqual(news(), []);
		replace("namespaces", [namespace("a", { accelerate: false })]);
		assert.deepEqual(news(), ["opted out 10.0.0.2"]);
	});

	test("a pod's own word wins over its namespace's", () => {
		const { put, news, view } = synced([pod("p", ["10.0.0.2"]), pod("q", ["10.0.0.3"], { accelerate: true })]);
		put("namespaces", namespace("a", { accelerate: false }));
		assert.deepEqual(news(), ["opted out 10.0.0.2"]);
		put("pods", pod("q", ["10.0.0.3"], { accelerate: null }));
		assert.deepEqual(news(), ["opted out 10.0.0.2 10.0.0.3"]);
		put("pods", pod("p", ["10.0.0.2"], { accelerate: true, node: "n2" }));
		assert.deepEqual(news(), ["opted out 10.0.0.3"]);
		assert.deepEqual([...view.optedOut().local.keys()], ["10.0.0.3"]);
		put("namespaces", namespace("a"));
		assert.deepEqual(news(), ["opted out"]);
	});

	test("goes with its pod, before the address is evicted", () => {
		const { gone, news } = synced([pod("p", ["10.0.0.2"], { accelerate: false })]);
		gone("pods", "p");
		assert.deepEqual(news(), ["opted out", "gone 10.0.0.2"]);
	});

	test("does not go to the pod that has the address next", () => {
		const { put, news } = synced([pod("p", ["10.0.0.2"], { accelerate: false })]);
		put("pods", pod("q", ["10.0.0.2"]));
		assert.deepEqual(news(), ["opted out", "gone 10.0.0.2"]);
	});

	test("is told once: a change of something else is no news", () => {
		const { put, news } = synced([pod("p", ["10.0.0.2"], { accelerate: false })]);
		put("pods", pod("p", ["10.0.0.2"], { accelerate: false, node: "n2" }));
		assert.deepEqual(news(), []);
	});
});

describe("policies and nodes", () => {
	test("a policy that comes, changes and goes; what changes but its specification is no change", () => {
		const { put, gone, news } = synced();
		put("networkpolicies", policy("deny"));
		put("networkpolicies", policy("deny"));
		put("networkpolicies", policy("deny", 2));
		gone("networkpolicies", "deny");
		assert.deepEqual(news(), ["policy a/deny came", "policy a/deny changed", "policy a/deny is gone"]);
	});

	test("a namespace with other labels is under other policies", () => {
		const { put, news } = synced();
		put("namespaces", namespace("a", { labels: "x" }));
		assert.deepEqual(news(), ["labels of namespace a changed"]);
	});

	test("a node that is gone, or has another address", () => {
		const { put, gone, news, view } = synced();
		put("nodes", node("n2", ["192.168.0.2", "203.0.113.2"]));
		assert.equal(view.nodeAt("203.0.113.2"), "n2");
		put("nodes", node("n2", ["192.168.0.2"]));
		assert.deepEqual(news(), ["nodes gone 203.0.113.2"]);
		gone("nodes", "n2");
		assert.deepEqual(news(), ["nodes gone 192.168.0.2"]);
	});
});
