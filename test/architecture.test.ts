// The module map of ARCHITECTURE.md, checked: who may import whom, and who may reach outside the process.
import assert from "node:assert/strict";
import { existsSync, readdirSync, readFileSync, statSync } from "node:fs";
import { posix } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";

/** Top down: an arrow only points to a line further below, so there are no cycles between folders. */
const ARROWS: Record<string, string[]> = {
	"main.ts": ["cli"],
	cli: ["cni", "agent", "bench", "kube", "lab", "net"],
	cni: ["agent"],
	bench: ["lab", "agent", "datapath", "kernel", "net"],
	lab: ["agent", "kernel", "net"],
	agent: ["kube", "datapath", "kernel", "ovs", "net"],
	kube: ["net"],
	datapath: ["kernel", "net"],
	kernel: ["net"],
	ovs: ["net"],
	net: [],
};

/** Packages that reach outside JavaScript, and the places that may use them. */
const RIMS: Record<string, RegExp> = {
	koffi: /^src\/(datapath|kernel)\//,
	"node:child_process": /^src\/(lab|bench)\/|^src\/kernel\/(nft|ruleset)\.ts$|^src\/ovs\/tool\.ts$/,
	commander: /^src\/(cli\/|main\.ts$)/,
	"@kubernetes/client-node": /^src\/kube\//,
};

const root = fileURLToPath(new URL("../..", import.meta.url));

function filesIn(folder: string, name: RegExp): string[] {
	return readdirSync(root + folder, { recursive: true, encoding: "utf8" })
		.map((path) => `${folder}/${path}`)
		.filter((path) => name.test(path) && statSync(root + path).isFile())
		.sort();
}

const sources = filesIn("src", /(?<!\.test)\.ts$/).map((path) => ({ path, text: readFileSync(root + path, "utf8") }));
const imports = sources.flatMap(({ path, text }) =>
	[...text.matchAll(/(import type [^;]*)?\bfrom "([^"]+)"|\bimport\("([^"]+)"\)|^import "([^"]+)"/gm)].map((match) => {
		const specifier = match[2] ?? match[3] ?? match[4] ?? "";
		const isOurs = specifier.startsWith(".");
		const target = isOurs ? posix.join(posix.dirname(path), specifier) : specifier;
		return { path, target, isOurs, isTypeOnly: match[1] !== undefined };
	}),
);

/** src/cli/status.ts -> cli, src/main.ts -> main.ts */
function folderOf(path: string): string {
	return path.split("/")[1] ?? path;
}

/** What others may know of the agent: its API's types. */
const API = "src/agent/api.js";
const API_USERS = ["kube"];

test("every import follows the arrows between folders", () => {
	const wrong = imports.filter(({ path, target, isOurs, isTypeOnly }) => {
		const [from, to] = [folderOf(path), folderOf(target)];
		if (target === API && API_USERS.includes(from)) return !isTypeOnly;
		return isOurs && from !== to && !ARROWS[from]?.includes(to);
	});
	assert.deepEqual(
		wrong.map(({ path, target }) => `${path} imports ${target}`),
		[],
	);
});

test("no arrow points upwards", () => {
	const order = Object.keys(ARROWS);
	const upwards = order.filter((from) => ARROWS[from]?.some((to) => order.indexOf(to) <= order.indexOf(from)));
	assert.deepEqual(upwards, []);
});

test("only the rim reaches outside: the FFI, child processes, the command line", () => {
	const wrong = imports.filter(({ path, target }) => RIMS[target]?.test(path) === false);
	assert.deepEqual(
		wrong.map(({ path, target }) => `${path} imports ${target}`),
		[],
	);
});

test("the CNI plugin has of the agent only what it says and how it is asked", () => {
	const wrong = imports.filter(
		({ path, target, isOurs }) =>
			folderOf(path) === "cni" && isOurs && folderOf(target) === "agent" && !/\/(api|client)\.js$/.test(target),
	);
	assert.deepEqual(
		wrong.map(({ path, target }) => `${path} imports ${target}`),
		[],
	);
});

test("src/agent/api.ts imports types only", () => {
	const api = sources.find(({ path }) => path === "src/agent/api.ts")?.text ?? "";
	assert.deepEqual(api.match(/^import (?!type ).*|\bimport\(.*/gm), null);
	assert.match(api, /^import type /m);
});

test("no file names a place on a developer's machine", () => {
	const folders = ["src", "test", "bpf", "scripts", "bin", "docs", ".ci"].filter((folder) => existsSync(root + folder));
	const everything = [
		...folders.flatMap((folder) => filesIn(folder, /(?<!\.[od])$/)),
		...readdirSync(root).filter((name) => /\.(md|json)$/.test(name)),
	];
	const wrong = everything.flatMap((path) =>
		readFileSync(root + path, "utf8")
			.split("\n")
			.map((line, at) => `${path}:${at + 1}: ${line.trim()}`)
			.filter((line) => /(?<![\w.*}])\/(work|home|root|Users)\//.test(line)),
	);
	assert.deepEqual(wrong, []);
});
