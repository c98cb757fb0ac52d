// Who asks the API server: found without asking.
import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, describe, test } from "node:test";
import { AccessError, findAccess, problemOfKubeconfig } from "./access.js";

const dir = mkdtempSync(join(tmpdir(), "oncache-access-"));
after(() => rmSync(dir, { recursive: true }));

const GOOD = {
	clusters: [{ name: "c", cluster: { server: "https://192.0.2.1:6443" } }],
	contexts: [{ name: "x", context: { cluster: "c", user: "u" } }],
	users: [{ name: "u", user: {} }],
	"current-context": "x",
};

function file(content: unknown): string {
	const path = join(dir, "kubeconfig");
	writeFileSync(path, typeof content === "string" ? content : JSON.stringify(content));
	return path;
}

describe("findAccess()", () => {
	test("off is off, also in a pod", () =>
		assert.equal(findAccess("off", { KUBERNETES_SERVICE_HOST: "10.96.0.1", KUBECONFIG: "/x" }), undefined));
	test("auto: no pod and no $KUBECONFIG is no cluster", () => assert.equal(findAccess("auto", {}), undefined));
	test("auto: $KUBECONFIG, the first of several; whether it can be used is said later", () =>
		assert.deepEqual(findAccess("auto", { KUBECONFIG: "/a:/b" }), { kind: "file", path: "/a" }));
	test("auto: a pod asks as its service account, also when that is not mounted: it is said later", () =>
		assert.deepEqual(findAccess("auto", { KUBERNETES_SERVICE_HOST: "10.96.0.1" }), { kind: "cluster" }));
	test("a file that was named must be usable", () => {
		const path = file(GOOD);
		assert.deepEqual(findAccess(path, {}), { kind: "file", path });
		assert.throws(
			() => findAccess("/nonexistent", {}),
			(error) => error instanceof AccessError && error.exitCode === 2,
		);
	});
});

describe("problemOfKubeconfig()", () => {
	for (const [what, content, words] of [
		["no YAML", "{", /Cannot use kubeconfig ".*": /],
		["nothing", "", /expected object/],
		["no clusters", { ...GOOD, clusters: [] }, /"clusters"/],
		[
			"a server that is no URL",
			{ ...GOOD, clusters: [{ name: "c", cluster: { server: "here" } }] },
			/"clusters.0.cluster.server"/,
		],
		["no current context", { ...GOOD, "current-context": "" }, /"current-context"/],
		["a current context that is not there", { ...GOOD, "current-context": "y" }, /current-context "y" is not among/],
		[
			"a context without its cluster",
			{ ...GOOD, clusters: [{ name: "d", cluster: { server: "https://d" } }] },
			/cluster "c" of context "x"/,
		],
	] as const)
		test(`${what} is said`, () => assert.match(problemOfKubeconfig(file(content)) ?? "", words));

	test("a good one has none", () => assert.equal(problemOfKubeconfig(file(GOOD)), undefined));
});
