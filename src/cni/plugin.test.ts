// The plugin's one file as a runtime executes it, against the agent's real server; behind that, a double.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { chownSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer, type Server } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { buffer } from "node:stream/consumers";
import { after, before, describe, test } from "node:test";
import { fileURLToPath } from "node:url";
import { type CniAnswer, missedFile } from "../agent/api.js";
import { readMissed } from "../agent/missed.js";
import { type Handlers, serve } from "../agent/server.js";
import { VERSIONS } from "./version.js";

const PLUGIN = fileURLToPath(new URL("../../../bin/oncache-cni", import.meta.url));
const dir = mkdtempSync(join(tmpdir(), "oncache-test-"));
const socket = join(dir, "agent.sock");
const hangingSocket = join(dir, "hanging.sock");
const stop = new AbortController();
let hanging: Server;
/** What the agent has heard. */
const heard: unknown[] = [];
let answer: () => Promise<CniAnswer>;
let isReady = true;

const ATTACHED: CniAnswer = { veth: "veth1", attached: true, why: null };

before(async () => {
	const hear = (what: string) => (request: unknown) => {
		heard.push([what, request]);
		return answer();
	};
	const double = {
		ready: () => isReady,
		cni: {
			add: hear("add"),
			check: hear("check"),
			del: hear("del"),
			gc: async (request: unknown) => {
				heard.push(["gc", request]);
				return { removed: 0 };
			},
		},
	} as unknown as Handlers;
	await serve({ socket, handlers: double, signal: stop.signal });
	hanging = createServer(() => {}).listen(hangingSocket);
});
after(() => {
	stop.abort();
	hanging.close();
	rmSync(dir, { recursive: true });
});

const PREV_RESULT = {
	cniVersion: "1.0.0",
	interfaces: [{ name: "cni0" }, { name: "veth1" }, { name: "eth0", sandbox: "/proc/self/ns/net" }],
	ips: [{ address: "10.1.0.5/16", interface: 2 }],
};
const CONFIG = { cniVersion: "1.0.0", name: "net", type: "oncache-cni", socket, prevResult: PREV_RESULT };
const ENVIRONMENT = {
	CNI_COMMAND: "ADD",
	CNI_CONTAINERID: "abc-1.2_3",
	CNI_NETNS: "/proc/self/ns/net",
	CNI_IFNAME: "eth0",
	CNI_PATH: "/opt/cni/bin",
};

interface Ended {
	code: number | null;
	/** Standard output. */
	result: Record<string, unknown> | undefined;
	stderr: string;
}

/** A member that is undefined is left out. */
async function call(environment: Record<string, string | undefined>, config: unknown): Promise<Ended> {
	heard.length = 0;
	const env = Object.fromEntries(
		Object.entries({ ...ENVIRONMENT, ...environment }).filter(([, value]) => value !== undefined),
	);
	const child = spawn(PLUGIN, { env: { PATH: process.env.PATH, ...env }, stdio: "pipe" });
	child.stdin.on("error", () => {}); // it may end without reading
	child.stdin.end(typeof config === "string" ? config : JSON.stringify(config));
	const ended = new Promise<number | null>((resolve) => child.once("close", resolve));
	const [stdout, stderr] = await Promise.all([buffer(child.stdout), buffer(child.stderr)]);
	const result = stdout.length > 0 ? (JSON.parse(String(stdout)) as Record<string, unknown>) : undefined;
	return { code: await ended, result, stderr: String(stderr) };
}

describe("what is right", () => {
	before(() => {
		answer = async () => ATTACHED;
	});

	test("ADD tells the agent all it knows, and answers with the previous result", async () => {
		const { code, result, stderr } = await call(
			{ CNI_ARGS: "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=web-0;K8S_POD_UID=1" },
			{ ...CONFIG, last: true, somebodys: { own: "key" } },
		);
		assert.deepEqual([code, stderr, result], [0, "", PREV_RESULT]);
		assert.deepEqual(heard, [
			[
				"add",
				{
					network: "net",
					containerId: "abc-1.2_3",
					ifname: "eth0",
					netns: "/proc/self/ns/net",
					hostDevices: ["cni0", "veth1"],
					addresses: ["10.1.0.5"],
					last: true,
					pod: { namespace: "default", name: "web-0" },
				},
			],
		]);
	});

	test("a configuration without a version is of the oldest", async () => {
		const prevResult = { ip4: { ip: "10.1.0.5/16" }, dns: {} };
		const { result } = await call({}, { ...CONFIG, cniVersion: undefined, prevResult });
		assert.deepEqual(result, { cniVersion: "0.1.0", ...prevResult });
	});

	test("DEL needs neither a namespace nor a previous result, and may be repeated", async () => {
		for (const environment of [{ CNI_NETNS: undefined }, { CNI_NETNS: "" }, { CNI_NETNS: "/run/netns/gone" }]) {
			const { code, result } = await call({ CNI_COMMAND: "DEL", ...environment }, { ...CONFIG, prevResult: undefined });
			assert.deepEqual([code, result], [0, undefined]);
			assert.deepEqual((heard[0] as [string])[0], "del");
		}
	});

	test("CHECK says nothing", async () => {
		const { code, result } = await call({ CNI_COMMAND: "CHECK" }, CONFIG);
		assert.deepEqual([code, result, (heard[0] as [string])[0]], [0, undefined, "check"]);
	});

	test("GC hands on which attachments are valid, whatever the list is called; told of none, it removes none", async () => {
		const environment = {
			...Object.fromEntries(Object.keys(ENVIRONMENT).map((name) => [name, undefined])),
			CNI_COMMAND: "GC",
			CNI_PATH: "/x",
		};
		const valid = [{ containerID: "a", ifname: "eth0" }];
		for (const key of ["cni.dev/valid-attachments", "cni.dev/attachments"]) {
			const { code, result } = await call(environment, { cniVersion: "1.1.0", name: "net", socket, [key]: valid });
			assert.deepEqual([code, result], [0, undefined]);
			assert.deepEqual(heard, [["gc", { network: "net", valid: [{ containerId: "a", ifname: "eth0" }] }]]);
		}
		const { code } = await call(environment, { cniVersion: "1.1.0", name: "net", socket });
		assert.deepEqual([code, heard], [0, []]);
	});

	test("VERSION answers in the version that it is asked in", async () => {
		for (const [input, cniVersion] of [
			['{"cniVersion":"0.2.0"}', "0.2.0"],
			["", "1.1.0"],
			["{}", "1.1.0"],
		] as const) {
			const { code, result } = await call({ CNI_COMMAND: "VERSION" }, input);
			assert.deepEqual([code, result], [0, { cniVersion, supportedVersions: VERSIONS }]);
		}
	});

	test("STATUS is success with an agent and without one; with agentRequired it is 50 until one is ready", async () => {
		const status = (config: object) =>
			call(
				{ CNI_COMMAND: "STATUS", CNI_CONTAINERID: undefined, CNI_IFNAME: undefined },
				{ cniVersion: "1.1.0", name: "net", socket, ...config },
			);
		assert.deepEqual(await status({ agentRequired: true }), { code: 0, result: undefined, stderr: "" });
		assert.equal((await status({ socket: join(dir, "none") })).code, 0);
		const missing = await status({ socket: join(dir, "none"), agentRequired: true });
		assert.deepEqual([missing.code, missing.result?.code, missing.result?.cniVersion], [1, 50, "1.1.0"]);
		isReady = false;
		assert.deepEqual((await status({ agentRequired: true })).result?.code, 50);
		isReady = true;
	});
});

describe("what is wrong has the specification's code", () => {
	const without = (key: string) => ({ ...CONFIG, [key]: undefined });
	const CASES: [string, number, RegExp, Record<string, string | undefined>, unknown][] = [
		["no command", 4, /CNI_COMMAND is not set/, { CNI_COMMAND: undefined }, CONFIG],
		["an unknown command", 4, /CNI_COMMAND is "MODIFY"/, { CNI_COMMAND: "MODIFY" }, CONFIG],
		[
			"several variables missing",
			4,
			/CNI_CONTAINERID, CNI_IFNAME/,
			{ CNI_CONTAINERID: "", CNI_IFNAME: undefined },
			CONFIG,
		],
		["ADD without a namespace", 4, /CNI_NETNS/, { CNI_NETNS: undefined }, CONFIG],
		[
			"GC without a path",
			4,
			/CNI_PATH/,
			{ CNI_COMMAND: "GC", CNI_PATH: undefined },
			{ ...CONFIG, cniVersion: "1.1.0" },
		],
		["a container ID with a slash", 4, /CNI_CONTAINERID is "\.\.\/x"/, { CNI_CONTAINERID: "../x" }, CONFIG],
		["an interface name of 16 bytes", 4, /CNI_IFNAME/, { CNI_IFNAME: "e".repeat(16) }, CONFIG],
		["an interface name with a colon", 4, /CNI_IFNAME/, { CNI_COMMAND: "DEL", CNI_IFNAME: "eth0:1" }, CONFIG],
		["no JSON", 6, /JSON/, {}, '{"cniVersion":'],
		["nothing at all", 6, /JSON/, {}, ""],
		["a list", 6, /not a JSON object/, {}, "[]"],
		["a version that is a number", 6, /not a string/, {}, { ...CONFIG, cniVersion: 1 }],
		["a version from the future", 1, /"2\.0\.0"/, {}, { ...CONFIG, cniVersion: "2.0.0" }],
		[
			"CHECK before it was there",
			1,
			/since CNI version 0\.4\.0/,
			{ CNI_COMMAND: "CHECK" },
			{ ...CONFIG, cniVersion: "0.3.1" },
		],
		["GC before it was there", 1, /since CNI version 1\.1\.0/, { CNI_COMMAND: "GC" }, CONFIG],
		["STATUS before it was there", 1, /since CNI version 1\.1\.0/, { CNI_COMMAND: "STATUS" }, CONFIG],
		["a network without a name", 7, /no name/, {}, without("name")],
		["a network with a path for a name", 7, /"\.\.\/net" is not allowed/, {}, { ...CONFIG, name: "../net" }],
		["ADD without a previous result", 7, /prevResult/, {}, without("prevResult")],
		["CHECK without a previous result", 7, /prevResult/, { CNI_COMMAND: "CHECK" }, without("prevResult")],
		["a previous result that is text", 7, /prevResult/, {}, { ...CONFIG, prevResult: "x" }],
		[
			"GC with something else than a list",
			7,
			/valid-attachments/,
			{ CNI_COMMAND: "GC" },
			{ ...CONFIG, cniVersion: "1.1.0", "cni.dev/valid-attachments": [{ containerID: 1 }] },
		],
		["a socket that is no absolute path", 2, /"socket": "agent\.sock"/, {}, { ...CONFIG, socket: "agent.sock" }],
		["a switch that is text", 2, /"last": "yes"/, {}, { ...CONFIG, last: "yes" }],
		["ADD for a container that is gone", 3, /\/run\/netns\/gone/, { CNI_NETNS: "/run/netns/gone" }, CONFIG],
		[
			"CHECK of a container that is gone",
			3,
			/\/run\/netns\/gone/,
			{ CNI_COMMAND: "CHECK", CNI_NETNS: "/run/netns/gone" },
			CONFIG,
		],
	];
	for (const [what, code, words, environment, config] of CASES)
		test(`${what}: ${code}`, async () => {
			const ended = await call(environment, config);
			assert.deepEqual([ended.code, ended.result?.code], [1, code], JSON.stringify(ended));
			assert.match(`${ended.result?.msg}; ${ended.result?.details}`, words);
			assert.ok(VERSIONS.includes(ended.result?.cniVersion as never));
			assert.deepEqual(heard, []);
		});

	test("standard input that cannot be read: 5", async () => {
		const child = spawn("sh", ["-c", `exec "${PLUGIN}" <"${dir}"`], {
			env: { PATH: process.env.PATH, ...ENVIRONMENT },
		});
		const output = JSON.parse(String(await buffer(child.stdout))) as { code: number };
		assert.equal(output.code, 5);
	});
});

describe("what fails of ONCache is logged and counted, and the pod starts", () => {
	const FAILURES: [string, () => string, RegExp][] = [
		["no agent", () => join(dir, "none.sock"), /there is no such socket/],
		["an agent that has ended", () => file("ended.sock"), /not a socket|nobody listens/],
		["an agent that does not answer", () => hangingSocket, /no answer within 1?\d{1,3} ms/],
	];
	const file = (name: string): string => {
		writeFileSync(join(dir, name), "");
		return join(dir, name);
	};
	for (const [what, where, words] of FAILURES)
		test(what, async () => {
			const path = where();
			const before = readMissed(path).missed;
			const [add, del, check] = await Promise.all([
				call({}, { ...CONFIG, socket: path }),
				call({ CNI_COMMAND: "DEL" }, { ...CONFIG, socket: path }),
				call({ CNI_COMMAND: "CHECK" }, { ...CONFIG, socket: path }),
			]);
			assert.deepEqual([add.code, add.result], [0, PREV_RESULT]);
			assert.deepEqual([del.code, del.result, check.code, check.result], [0, undefined, 0, undefined]);
			assert.match(add.stderr, words);
			const { missed, lastMissed } = readMissed(path);
			assert.equal(missed, before + 3);
			assert.match(lastMissed ?? "", /^\S+Z (ADD|DEL|CHECK) abc-1\.2_3\/eth0: /);
		});

	test("an agent that fails, or says no", async () => {
		answer = () => Promise.reject(new Error("Cannot attach: the double says so"));
		const { code, result, stderr } = await call({}, CONFIG);
		assert.deepEqual([code, result], [0, PREV_RESULT]);
		assert.match(stderr, /the double says so/);
	});

	test("an agent that cannot accelerate this pod: nothing is counted as missed", async () => {
		const { missed } = readMissed(socket);
		answer = async () => ({ veth: "veth1", attached: false, why: "The device is down" });
		const { code, result, stderr } = await call({}, CONFIG);
		assert.deepEqual([code, result], [0, PREV_RESULT]);
		assert.equal(stderr, "oncache-cni: ADD abc-1.2_3/eth0: not accelerated: The device is down\n");
		assert.equal(readMissed(socket).missed, missed);
	});

	test("a socket that belongs to somebody else is not used", {
		skip: process.geteuid?.() !== 0 && "it takes root to give a file away",
	}, async () => {
		const other = join(dir, "other.sock");
		const server = createServer(() => assert.fail("it was used")).listen(other);
		await new Promise((resolve) => server.once("listening", resolve));
		chownSync(other, 65534, 65534);
		const { code, result, stderr } = await call({}, { ...CONFIG, socket: other });
		server.close();
		assert.deepEqual([code, result], [0, PREV_RESULT]);
		assert.match(stderr, /belongs to user 65534/);
	});

	test("GC is to be tried again later", async () => {
		const config = {
			cniVersion: "1.1.0",
			name: "net",
			socket: join(dir, "none.sock"),
			"cni.dev/valid-attachments": [],
		};
		const { code, result } = await call({ CNI_COMMAND: "GC" }, config);
		assert.deepEqual([code, result?.code], [1, 11]);
	});

	test("beyond its size the file of missed calls keeps the number only", async () => {
		const path = join(dir, "full.sock");
		writeFileSync(missedFile(path), `${"x".repeat(70_000)}\n`);
		await call({}, { ...CONFIG, socket: path });
		assert.equal(readMissed(path).missed, 2);
		assert.equal(readFileSync(missedFile(path)).length, 70_002);
	});
});
