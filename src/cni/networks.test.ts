// Network configurations as CNIs leave them on a node, in a directory of the test's own.
import assert from "node:assert/strict";
import {
	chmodSync,
	existsSync,
	mkdirSync,
	mkdtempSync,
	readdirSync,
	readFileSync,
	rmSync,
	statSync,
	symlinkSync,
	writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, test } from "node:test";
import type { Entry } from "./conflist.js";
import { followNetworks } from "./follow.js";
import { addPlugin, type Change, NoNetworkError, readNetworks, removePlugin } from "./networks.js";

const ENTRY: Entry = { type: "oncache-cni", last: true };
const LIST = '{\n  "name": "cbr0",\n  "cniVersion": "0.3.1",\n  "plugins": [\n    { "type": "flannel" }\n  ]\n}\n';
const CONF = '{ "name": "mynet", "cniVersion": "0.4.0", "type": "bridge", "ipam": { "type": "host-local" } }\n';
let dir: string;

beforeEach(() => {
	dir = mkdtempSync(join(tmpdir(), "oncache-test-"));
});
afterEach(() => rmSync(dir, { recursive: true }));

const put = (name: string, content: string, mode = 0o644): void => {
	writeFileSync(join(dir, name), content);
	chmodSync(join(dir, name), mode);
};
const get = (name: string): string => readFileSync(join(dir, name), "utf8");
const types = (): string[] => readNetworks(dir).active?.list.types ?? [];
/** Everything in the directory. */
const contents = (): Record<string, string> =>
	Object.fromEntries(
		readdirSync(dir)
			.sort()
			.map((name) => [name, `${statSync(join(dir, name)).mode} ${get(name)}`]),
	);

describe("the active network", () => {
	test("is the first valid file in the order of names; invalid ones before it are named", () => {
		put("05-broken.conflist", "{");
		put("06-list.conf", LIST); // a list under the wrong name
		put("10-flannel.conflist", LIST);
		put("20-other.conflist", LIST);
		put("00-note.txt", "x");
		mkdirSync(join(dir, "01-directory.conflist"));
		const { active, invalid } = readNetworks(dir);
		assert.equal(active?.path, join(dir, "10-flannel.conflist"));
		assert.deepEqual(
			invalid.map(({ why }) => why).map((why) => why.split(":")[0]),
			["it is not JSON", 'it has no "type"'],
		);
	});
});

describe("adding and removing", () => {
	test("a list keeps mode and every other byte, and has them back", () => {
		put("10-flannel.conflist", LIST, 0o600);
		const before = contents();
		assert.deepEqual(addPlugin(dir, ENTRY), { file: join(dir, "10-flannel.conflist"), what: "added" });
		assert.equal(statSync(join(dir, "10-flannel.conflist")).mode & 0o777, 0o600);
		assert.deepEqual(types(), ["flannel", "oncache-cni"]);
		assert.equal(addPlugin(dir, ENTRY).what, "unchanged");
		assert.equal(removePlugin(dir).length, 1);
		assert.deepEqual(contents(), before);
		assert.deepEqual(removePlugin(dir), []);
	});

	test("a configuration of one plugin becomes a list that comes first, and is itself again afterwards", () => {
		put("10-net.conf", CONF, 0o640);
		put("20-other.conflist", LIST);
		const before = contents();
		assert.equal(addPlugin(dir, ENTRY).what, "added");
		assert.deepEqual(types(), ["bridge", "oncache-cni"]);
		assert.equal(readNetworks(dir).active?.path, join(dir, "10-net-oncache.conflist"));
		assert.equal(addPlugin(dir, ENTRY).what, "unchanged");
		removePlugin(dir);
		assert.deepEqual(contents(), before);
	});

	test("a configuration of one plugin that the CNI writes anew is the one that counts", () => {
		put("10-net.conf", CONF);
		addPlugin(dir, ENTRY);
		const anew = CONF.replace("0.4.0", "1.0.0");
		put("10-net.conf", anew);
		addPlugin(dir, ENTRY);
		assert.match(get("10-net-oncache.conflist"), /"cniVersion": "1\.0\.0"/);
		put("10-net.conf", CONF);
		removePlugin(dir);
		assert.deepEqual(Object.keys(contents()), ["10-net.conf"]);
		assert.equal(get("10-net.conf"), CONF);
	});

	test("what the CNI has changed meanwhile stays changed", () => {
		put("10-flannel.conflist", LIST);
		addPlugin(dir, ENTRY);
		put("10-flannel.conflist", get("10-flannel.conflist").replace("0.3.1", "1.0.0"));
		removePlugin(dir);
		assert.equal(get("10-flannel.conflist"), LIST.replace("0.3.1", "1.0.0"));
	});

	test("a symbolic link stays one", () => {
		mkdirSync(join(dir, "real"));
		put("real/list", LIST);
		symlinkSync("real/list", join(dir, "10-flannel.conflist"));
		addPlugin(dir, ENTRY);
		assert.match(get("real/list"), /oncache-cni/);
		removePlugin(dir);
		assert.equal(get("real/list"), LIST);
	});

	test("another socket replaces the entry", () => {
		put("10-flannel.conflist", LIST);
		addPlugin(dir, ENTRY);
		assert.equal(addPlugin(dir, { ...ENTRY, socket: "/run/x.sock" }).what, "added");
		assert.deepEqual(readNetworks(dir).active?.list.own, [{ ...ENTRY, socket: "/run/x.sock" }]);
	});

	test("nothing to add to, or a version that the plugin would refuse: nothing is changed", () => {
		assert.throws(() => addPlugin(dir, ENTRY), NoNetworkError);
		assert.throws(() => addPlugin(join(dir, "none"), ENTRY), NoNetworkError);
		const list = LIST.replace("0.3.1", "2.0.0");
		put("10-new.conflist", list);
		assert.throws(() => addPlugin(dir, ENTRY), /CNI version 2\.0\.0/);
		assert.deepEqual([Object.keys(contents()), get("10-new.conflist")], [["10-new.conflist"], list]);
	});
});

test("following: the plugin comes back into what the CNI writes anew, and into a network that comes later", async () => {
	const stop = new AbortController();
	const problems: string[] = [];
	const changes: Change[] = [];
	let told: () => void = () => {};
	/** Resolves at the next change. */
	const next = (): Promise<void> => new Promise((resolve) => (told = resolve));
	const confDir = join(dir, "net.d");
	put("oncache-cni", "the plugin");
	followNetworks({
		...{ confDir, binDir: dir, entry: ENTRY, signal: stop.signal },
		onChange: (change) => {
			changes.push(change);
			told();
		},
		onProblem: (why) => problems.push(why),
	});
	try {
		assert.match(problems[0] ?? "", /There is no valid network configuration/);
		for (const write of [() => mkdirSync(confDir), () => {}, () => rmSync(join(confDir, "10-flannel.conflist"))]) {
			const changed = next();
			write();
			writeFileSync(join(confDir, "10-flannel.conflist"), LIST);
			await changed;
			assert.match(readFileSync(join(confDir, "10-flannel.conflist"), "utf8"), /oncache-cni/);
		}
		assert.equal(changes.length, 3);
	} finally {
		stop.abort();
	}
});

test("following: a list that names a plugin which is not there, or is being removed, is put right", () => {
	for (const leaving of [false, true]) {
		const stop = new AbortController();
		const changes: Change[] = [];
		put("10-flannel.conflist", LIST);
		addPlugin(dir, ENTRY);
		if (leaving) for (const name of ["oncache-cni", ".oncache-cni.leaving"]) put(name, "");
		followNetworks({
			...{ confDir: dir, binDir: dir, entry: ENTRY, signal: stop.signal },
			onChange: (change) => changes.push(change),
			onProblem: () => {},
		});
		stop.abort();
		assert.deepEqual(changes, [{ file: join(dir, "10-flannel.conflist"), what: "removed" }]);
		assert.equal(get("10-flannel.conflist"), LIST);
	}
});

test("following: without the plugin's file no list gets it", () => {
	const stop = new AbortController();
	const problems: string[] = [];
	put("10-flannel.conflist", LIST);
	followNetworks({
		...{ confDir: dir, binDir: join(dir, "none"), entry: ENTRY, signal: stop.signal },
		onChange: () => assert.fail("it was added"),
		onProblem: (why) => problems.push(why),
	});
	stop.abort();
	assert.match(problems[0] ?? "", /The plugin ".*oncache-cni" is not there/);
	assert.equal(get("10-flannel.conflist"), LIST);
	assert.equal(existsSync(join(dir, ".10-flannel.conflist.oncache-new")), false);
});
