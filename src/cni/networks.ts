// A node's directory of network configurations: which one its runtime uses, and the plugin in it. Runtimes take the first valid
// file in the order of names (containerd, CRI-O); what they find invalid they pass over.
import { existsSync, readdirSync, readFileSync, realpathSync, renameSync, rmSync, type Stats, statSync } from "node:fs";
import { join } from "node:path";
import { type Conflist, type Entry, listFromConf, readConflist, withoutPlugin, withPlugin } from "./conflist.js";
import { ChangedError, replaceFile } from "./replace-file.js";

/** Of a list that was made of a configuration of one plugin; it comes before that one. */
const MADE = "-oncache.conflist";
/** Such a configuration meanwhile. */
const SAVED = ".without-oncache";
/** The CNI may be writing at the same moment. */
const ATTEMPTS = 10;

interface File {
	/** Symbolic links resolved. */
	path: string;
	text: string;
	stats: Stats;
	/** Undefined: a configuration of one plugin, of which `text` is a list already. */
	isList: boolean;
	list: Conflist;
}

export interface Networks {
	/** The one that the runtime uses. */
	active: File | undefined;
	/** What comes before it and is not valid, with the reason. */
	invalid: { path: string; why: string }[];
}

export interface Change {
	file: string;
	what: "added" | "removed" | "unchanged";
}

/** The plugin cannot be added, in one sentence that says what to do. */
export class NoNetworkError extends Error {
	override name = "NoNetworkError";
	readonly exitCode = 1;
}

export function readNetworks(confDir: string): Networks {
	const invalid: Networks["invalid"] = [];
	for (const name of configurations(confDir)) {
		const file = readFile(join(confDir, name));
		if (typeof file !== "string") return { active: file, invalid };
		invalid.push({ path: join(confDir, name), why: file });
	}
	return { active: undefined, invalid };
}

/** Adds the plugin to the list that the runtime uses, as its last. Safe to repeat. @throws {NoNetworkError} */
export function addPlugin(confDir: string, entry: Entry): Change {
	return again(() => {
		renewMade(confDir);
		const { active, invalid } = readNetworks(confDir);
		if (!active) throw new NoNetworkError(whyNone(confDir, invalid));
		const { path, text, stats, isList, list } = active;
		if (list.unknownVersions.length > 0)
			throw new NoNetworkError(
				`"${path}" may be executed as CNI version ${list.unknownVersions.join(", ")}, which this plugin does not know and would refuse: it was not added`,
			);
		const wanted = withPlugin(text, entry);
		if (isList && wanted === text) return { file: path, what: "unchanged" };
		if (isList) {
			replaceFile(path, wanted, { like: stats, expected: stats });
			return { file: path, what: "added" };
		}
		const made = path.replace(/\.[^.]*$/, MADE);
		replaceFile(made, wanted, { like: stats });
		renameSync(path, path + SAVED);
		return { file: made, what: "added" };
	});
}

/** Takes the plugin out of every list, and puts back what lists were made of. Safe to repeat. */
export function removePlugin(confDir: string): Change[] {
	return again(() => {
		const changes: Change[] = [];
		for (const name of existsSync(confDir) ? readdirSync(confDir) : []) {
			if (!name.endsWith(SAVED)) continue;
			const original = join(confDir, name.slice(0, -SAVED.length));
			// Where the CNI has written it anew, that one counts.
			if (existsSync(original)) rmSync(join(confDir, name));
			else renameSync(join(confDir, name), original);
			const made = original.replace(/\.[^.]*$/, MADE);
			rmSync(made, { force: true });
			changes.push({ file: original, what: "removed" });
		}
		for (const name of configurations(confDir)) {
			const file = readFile(join(confDir, name));
			if (typeof file === "string" || !file.isList || file.list.own.length === 0) continue;
			const { path, text, stats } = file;
			replaceFile(path, withoutPlugin(text), { like: stats, expected: stats });
			changes.push({ file: path, what: "removed" });
		}
		return changes;
	});
}

/** The CNI may write its configuration of one plugin anew: the list is made of that one again. */
function renewMade(confDir: string): void {
	for (const name of configurations(confDir)) {
		const made = join(confDir, name.replace(/\.[^.]*$/, MADE));
		if (/\.(conf|json)$/.test(name) && existsSync(made)) rmSync(made);
	}
}

/** In the order in which runtimes read them. */
function configurations(confDir: string): string[] {
	if (!existsSync(confDir)) return [];
	return readdirSync(confDir, { withFileTypes: true })
		.filter((entry) => !entry.isDirectory() && /\.(conf|conflist|json)$/.test(entry.name))
		.map(({ name }) => name)
		.sort();
}

/** @returns why a runtime would not use it, as text */
function readFile(name: string): File | string {
	try {
		const path = realpathSync(name);
		const stats = statSync(path);
		const content = readFileSync(path, "utf8");
		const isList = name.endsWith(".conflist");
		const text = isList ? content : listFromConf(content);
		if (typeof text !== "string") return text.why;
		const list = readConflist(text);
		return typeof list === "string" ? list : { path, text, stats, isList, list };
	} catch (error) {
		return (error as Error).message;
	}
}

function whyNone(confDir: string, invalid: Networks["invalid"]): string {
	const which = invalid.map(({ path, why }) => `; "${path}": ${why}`).join("");
	return `There is no valid network configuration in "${confDir}": install the cluster's network first, name another --conf-dir, or wait for one with --watch${which}`;
}

function again<T>(work: () => T): T {
	for (let attempt = 1; ; attempt++)
		try {
			return work();
		} catch (error) {
			if (!(error instanceof ChangedError) || attempt === ATTEMPTS) throw error;
		}
}
