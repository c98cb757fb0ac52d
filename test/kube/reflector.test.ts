// List and watch against a double of the API server, by the official client as it is: what the server may do in order, and what
// goes wrong on the way.
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, test } from "node:test";
import { eventually, inCluster, synced } from "./cluster.js";
import { namespace, node, OPTED_OUT, pod, policy, writeKubeconfig } from "./objects.js";

const PODS = "/api/v1/pods";

describe("list and watch", () => {
	test("what is there is listed from the cache, what comes is watched from the list's version", () =>
		inCluster({ prepare: (api) => void api.put("pods", pod("default/a", { ip: "10.244.1.2" })) }, async (watched) => {
			const { api, view } = watched;
			await synced(watched);
			assert.deepEqual(view.podAt("10.244.1.2"), { namespace: "default", name: "a" });
			api.put("pods", pod("default/b", { ip: "10.244.1.3" }));
			await eventually("b is known", () => view.podAt("10.244.1.3")?.name === "b");
			api.remove("pods", "a", "default");
			await eventually("a is gone", () => view.podAt("10.244.1.2") === null);
			const { lists, watches } = api.askedFor(PODS);
			assert.deepEqual([lists.length, watches.length], [1, 1]);
			assert.equal(lists[0]?.query.resourceVersion, "0");
			assert.equal(watches[0]?.query.allowWatchBookmarks, "true");
			const seconds = Number(watches[0]?.query.timeoutSeconds);
			assert.ok(seconds >= 300 && seconds <= 600, `timeoutSeconds ${seconds}`);
		}));

	test("a watch that ends goes on from the last bookmark, without a list", () =>
		inCluster({ timing: { watchIdleMs: 60_000 } }, async (watched) => {
			const { api, view } = watched;
			await synced(watched);
			api.put("nodes", node("n7", "192.168.0.7"));
			const version = api.put("namespaces", namespace("later")).metadata.resourceVersion;
			await eventually("a bookmark has told the version", () => api.bookmarkOf("pods") === version);
			api.endWatches();
			await eventually("the watch has begun again", () => api.askedFor(PODS).watches.length === 2);
			assert.equal(api.askedFor(PODS).watches[1]?.query.resourceVersion, version);
			api.put("pods", pod("default/a", { ip: "10.244.1.2" }));
			await eventually("what comes is heard", () => view.podAt("10.244.1.2") !== null);
			assert.equal(api.askedFor(PODS).lists.length, 1);
		}));

	test("what happens between two watches is not missed", () =>
		inCluster({ prepare: (api) => void api.put("pods", pod("default/a", { ip: "10.244.1.2" })) }, async (watched) => {
			const { api, view } = watched;
			await synced(watched);
			api.faults.isRefusing = true;
			api.dropConnections();
			api.put("pods", pod("default/b", { ip: "10.244.1.3" }));
			api.remove("pods", "a", "default");
			await eventually("it is noticed", () => watched.health.get("pods")?.problem !== null);
			api.faults.isRefusing = false;
			await eventually("both are known", () => view.podAt("10.244.1.3") !== null && view.podAt("10.244.1.2") === null);
			assert.equal(api.askedFor(PODS).lists.length, 1, "from the last version on: not listed again");
			await eventually("the problem is over", () => watched.health.get("pods")?.problem === null);
		}));
});

describe("410 Gone", () => {
	test("as the answer to a watch: everything is listed again, and what is gone is noticed", () =>
		inCluster({ prepare: (api) => void api.put("pods", pod("default/a", { ip: "10.244.1.2" })) }, async (watched) => {
			const { api, view, consequences } = watched;
			await synced(watched);
			api.faults.isRefusing = true;
			api.dropConnections();
			api.remove("pods", "a", "default");
			api.put("pods", pod("default/b", { ip: "10.244.1.3" }));
			api.compact();
			api.faults.isRefusing = false;
			await eventually(
				"b is known, a is not",
				() => view.podAt("10.244.1.3") !== null && view.podAt("10.244.1.2") === null,
			);
			assert.ok(consequences.includes("gone 10.244.1.2"), consequences.join());
			assert.notEqual(
				api.askedFor(PODS).lists.at(-1)?.query.resourceVersion,
				"0",
				"the cache may be older than what was seen",
			);
		}));

	test("as an event of a watch", () =>
		inCluster({}, async (watched) => {
			const { api, view } = watched;
			await synced(watched);
			api.expireWatches();
			api.compact();
			api.put("pods", pod("default/b", { ip: "10.244.1.3" }));
			await eventually("b is known", () => view.podAt("10.244.1.3") !== null);
			await eventually("listed again", () => api.askedFor(PODS).lists.length === 2);
		}));

	test("in the middle of a list: read again in one piece", () => {
		const names = Array.from({ length: 25 }, (_, i) => `default/p${i}`);
		return inCluster(
			{
				timing: { pageSize: 10 },
				prepare: (api) => {
					for (const [i, name] of names.entries()) api.put("pods", pod(name, { ip: `10.244.1.${i + 2}` }));
				},
			},
			async (watched) => {
				const { api, view } = watched;
				await synced(watched);
				api.faults.continueExpired = true;
				api.expireWatches();
				await eventually("listed again", () => watched.health.get("pods")?.lists === 2);
				const { lists } = api.askedFor(PODS);
				assert.deepEqual(
					lists.slice(1).map(({ query }) => [query.limit, query.continue === undefined]),
					[
						["10", true],
						["10", false],
						[undefined, true],
					],
				);
				assert.equal(view.podAt("10.244.1.26")?.name, "p24");
			},
		);
	});
});

describe("huge lists", () => {
	const COUNT = 10_000;
	const address = (i: number): string => `10.${100 + (i >> 16)}.${(i >> 8) & 255}.${i & 255}`;
	const fill = (api: Parameters<NonNullable<Parameters<typeof inCluster>[0]["prepare"]>>[0]): void => {
		for (let i = 0; i < COUNT; i++) {
			const each = pod(`ns${i % 50}/p${i}`, { node: `n${i % 100}`, ip: address(i) });
			each.metadata.annotations = { filler: "x".repeat(2000) };
			api.put("pods", each);
		}
	};

	test("10 000 pods in one piece, and in pages after the cache was passed by", () =>
		inCluster({ prepare: fill, timing: { listIdleMs: 60_000 } }, async (watched) => {
			const { api, view, health } = watched;
			await synced(watched);
			assert.deepEqual([view.podAt(address(COUNT - 1))?.name, health.get("pods")?.objects], [`p${COUNT - 1}`, COUNT]);
			api.expireWatches();
			await eventually("all are read again", () => health.get("pods")?.lists === 2);
			assert.equal(api.askedFor(PODS).lists.length, 1 + COUNT / 500);
			assert.equal(health.get("pods")?.objects, COUNT);
		}));
});

describe("connections", () => {
	test("one that is open but dead is given up, and the next one goes on", () =>
		inCluster({}, async (watched) => {
			const { api, view } = watched;
			await synced(watched);
			api.faults.isFrozen = true;
			api.put("pods", pod("default/a", { ip: "10.244.1.2" }));
			await eventually("it is noticed", () => /dead/.test(watched.health.get("pods")?.problem ?? ""));
			assert.equal(view.podAt("10.244.1.2"), null);
			api.faults.isFrozen = false;
			api.dropConnections(); // those that are waiting for an answer that will not come
			await eventually("a is known", () => view.podAt("10.244.1.2") !== null);
			assert.equal(api.askedFor(PODS).lists.length, 1);
		}));

	for (const [what, faults] of [
		["does not begin", { isFrozen: true }],
		["stops in the middle", { listStalls: true }],
	] as const)
		test(`a list that ${what} is given up`, () =>
			inCluster({ prepare: (api) => api.set(faults) }, async ({ api, view, health }) => {
				const problem = (): string => health.get("pods")?.problem ?? "";
				await eventually("it is noticed", () => /nothing was heard/.test(problem()), problem);
				api.set({ isFrozen: false, listStalls: false });
				api.put("pods", pod("default/a", { ip: "10.244.1.2" }));
				await eventually("a is known", () => view.podAt("10.244.1.2") !== null);
			}));

	test("a slow server is waited for", () =>
		inCluster({ prepare: (api) => api.set({ delayMs: 100 }) }, async (watched) => {
			await synced(watched);
			assert.equal(watched.api.askedFor(PODS).lists.length, 1);
		}));

	test("nobody there: tried again and again, longer each time, and said", () =>
		inCluster({ prepare: (api) => api.set({ isRefusing: true }) }, async (watched) => {
			await eventually(
				"it is said",
				() => watched.health.get("pods")?.problem?.startsWith("Cannot read pods: ") === true,
			);
			assert.equal(watched.health.get("pods")?.synced, false);
			assert.equal(watched.health.get("pods")?.heardAt, null);
			watched.api.faults.isRefusing = false;
			await synced(watched);
		}));

	test("over TLS, with the authority that the kubeconfig names", async (context) => {
		const dir = mkdtempSync(join(tmpdir(), "oncache-tls-"));
		try {
			const made = spawnSync("openssl", ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
				"-days", "2", "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", join(dir, "key"),
				"-out", join(dir, "cert")]); // biome-ignore format: one command
			if (made.error) {
				context.skip(`openssl is missing: ${made.error.message}`);
				return;
			}
			const tls = { key: readFileSync(join(dir, "key"), "utf8"), cert: readFileSync(join(dir, "cert"), "utf8") };
			await inCluster({ tls }, async (watched) => {
				await synced(watched);
				watched.api.put("pods", pod("default/a", { ip: "10.244.1.2" }));
				await eventually("a is known", () => watched.view.podAt("10.244.1.2") !== null);
			});
		} finally {
			rmSync(dir, { recursive: true });
		}
	});
});

describe("rights", () => {
	test("a token that is replaced in the kubeconfig is used for the next attempt", () =>
		inCluster(
			{
				user: { token: "old" },
				prepare: (api) => {
					api.token = "new";
				},
			},
			async (watched) => {
				const problem = (): string => watched.health.get("pods")?.problem ?? "";
				await eventually("it is said", () => /401.*token or certificate/.test(problem()), problem);
				writeKubeconfig(watched.kubeconfig, watched.server, { token: "new" });
				await synced(watched);
				assert.equal(watched.api.asked.at(-1)?.authorization, "Bearer new");
			},
		));

	test("a resource that may not be read is named, and the others are read", () =>
		inCluster({ prepare: (api) => api.set({ forbidden: ["networkpolicies"] }) }, async ({ api, health, view }) => {
			api.put("pods", pod("default/a", { ip: "10.244.1.2" }));
			await eventually("a is known", () => view.podAt("10.244.1.2") !== null);
			await eventually("it is said", () =>
				/403 networkpolicies is forbidden.*get, list and watch networkpolicies/.test(
					health.get("networkpolicies")?.problem ?? "",
				),
			);
			assert.equal(health.get("pods")?.problem, null);
			api.faults.forbidden = [];
			await eventually("it is read", () => health.get("networkpolicies")?.synced === true);
		}));
});

describe("garbage", () => {
	for (const body of [
		"",
		"<html>proxy</html>",
		'{"items":[{"metadata":{}}],"metadata":{"resourceVersion":"1"}}',
		'{"items":[',
		"[]",
		"null",
	])
		test(`a list that is ${JSON.stringify(body)} is refused, and read when it is one`, () =>
			inCluster({ prepare: (api) => api.set({ listBody: body }) }, async ({ api, view, health }) => {
				await eventually("it is said", () => health.get("pods")?.problem !== null && health.get("pods") !== undefined);
				assert.equal(health.get("pods")?.synced, false);
				api.faults.listBody = undefined;
				api.put("pods", pod("default/a", { ip: "10.244.1.2" }));
				await eventually("a is known", () => view.podAt("10.244.1.2") !== null);
			}));

	for (const line of [
		'{"type":"ADDED","object":{"metadata":{}}}',
		'{"type":"STRANGE","object":{"metadata":{"resourceVersion":"5"}}}',
		'{"type":"MODIFIED"}',
		"[]",
	])
		test(`an event that is ${line}: everything is listed again`, () =>
			inCluster({}, async (watched) => {
				const { api, view } = watched;
				await synced(watched);
				api.say("pods", line);
				await eventually("listed again", () => api.askedFor(PODS).lists.length === 2);
				api.put("pods", pod("default/a", { ip: "10.244.1.2" }));
				await eventually("a is known", () => view.podAt("10.244.1.2") !== null);
			}));

	test("a line that is no JSON, which the client passes over: the watch goes on", () =>
		inCluster({}, async (watched) => {
			await synced(watched);
			watched.api.say("pods", "<html>");
			watched.api.put("pods", pod("default/a", { ip: "10.244.1.2" }));
			await eventually("a is known", () => watched.view.podAt("10.244.1.2") !== null);
		}));

	test("what was missed all the same is found by listing again after a time", () =>
		inCluster({ timing: { relistMs: 1 } }, async (watched) => {
			await synced(watched);
			watched.api.endWatches();
			await eventually("listed again", () => watched.api.askedFor(PODS).lists.length >= 2);
		}));
});

describe('kubernetesPods: "node"', () => {
	test("asks for this node's pods, for those with the label, and for those of namespaces that are opted out", () =>
		inCluster(
			{
				scope: "node",
				prepare: (api) => {
					api.put("namespaces", namespace("quiet"));
					api.put("pods", pod("default/here", { ip: "10.244.1.2" }));
					api.put("pods", pod("default/there", { node: "n2", ip: "10.244.2.2" }));
					api.put("pods", pod("default/labelled", { node: "n2", ip: "10.244.2.3", labels: OPTED_OUT }));
					api.put("pods", pod("quiet/there", { node: "n2", ip: "10.244.2.4" }));
				},
			},
			async (watched) => {
				const { api, view, consequences } = watched;
				await synced(watched, 5);
				const known = (): string[] =>
					["1.2", "2.2", "2.3", "2.4"].filter((end) => view.podAt(`10.244.${end}`) !== null);
				assert.deepEqual(known(), ["1.2", "2.3"]);
				await eventually("the labelled one is opted out", () => consequences.at(-1) === "opted out 10.244.2.3");
				api.put("namespaces", namespace("quiet", { annotations: OPTED_OUT }));
				await eventually("so are the namespace's", () => consequences.at(-1) === "opted out 10.244.2.3 10.244.2.4");
				assert.deepEqual(known(), ["1.2", "2.3", "2.4"]);
				api.put("namespaces", namespace("quiet"));
				await eventually(
					"and not any more",
					() => view.optedOut().total === 1,
					() => consequences,
				);
				await eventually("nor asked for", () => !watched.health.has("pods of namespace quiet"));
				api.put("pods", pod("default/labelled", { node: "n2", ip: "10.244.2.3" }));
				await eventually("without the label it is nobody's", () => view.podAt("10.244.2.3") === null);
			},
		));

	test("policies are heard of", () =>
		inCluster({ scope: "node" }, async (watched) => {
			await synced(watched, 5);
			watched.api.put("networkpolicies", policy("default/deny"));
			await eventually("it is", () => watched.consequences.includes("policy default/deny came"));
		}));
});
