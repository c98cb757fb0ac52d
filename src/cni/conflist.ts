// A network configuration list as text: the plugin's entry goes in and out of it, and every other byte stays as it is. Pure.
import { isObject } from "./configuration.js";
import { isVersion, OLDEST } from "./version.js";

export const PLUGIN = "oncache-cni";

/** The plugin's own part of the list, with keys of PluginConfig. */
export interface Entry {
	type: typeof PLUGIN;
	socket?: string;
	last: true;
}

/** Half-open. */
interface Span {
	start: number;
	end: number;
}

export interface Conflist {
	name: string;
	/** "type" of each plugin, in order. */
	types: string[];
	/** Entries of this plugin. */
	own: Record<string, unknown>[];
	/** Versions that it says it may be executed as, and this plugin does not know. */
	unknownVersions: string[];
}

/** What runtimes ask of a list (libcni's NetworkConfFromBytes()). @returns why it is none, as text */
export function readConflist(text: string): Conflist | string {
	const list = parse(text);
	if (typeof list === "string") return list;
	if (typeof list.name !== "string" || list.name === "") return 'it has no "name"';
	if (!Array.isArray(list.plugins) || list.plugins.length === 0) return 'it has no "plugins"';
	const plugins = list.plugins.filter((each) => isObject(each) && typeof each.type === "string" && each.type !== "");
	if (plugins.length < list.plugins.length) return 'one of its "plugins" has no "type"';
	return {
		name: list.name,
		types: plugins.map(({ type }) => type),
		own: plugins.filter(({ type }) => type === PLUGIN),
		unknownVersions: unknownVersions(list),
	};
}

/** A configuration of one plugin, as a list of one: what runtimes make of it themselves (ConfListFromConf()). */
export function listFromConf(text: string): string | { why: string } {
	const conf = parse(text);
	if (typeof conf === "string") return { why: conf };
	if (typeof conf.type !== "string" || conf.type === "") return { why: 'it has no "type"' };
	if (typeof conf.name !== "string" || conf.name === "") return { why: 'it has no "name"' };
	const plugin = text.trim().replaceAll("\n", "\n    ");
	const version = JSON.stringify(conf.cniVersion ?? OLDEST);
	return `{\n  "cniVersion": ${version},\n  "name": ${JSON.stringify(conf.name)},\n  "plugins": [\n    ${plugin}\n  ]\n}\n`;
}

/** `text` is a list. The entry comes last; an earlier one goes. */
export function withPlugin(text: string, entry: Entry): string {
	const without = withoutPlugin(text);
	const last = elementsOf(without).at(-1) as Span;
	const line = without.lastIndexOf("\n", last.start) + 1;
	const indent = /^[ \t]*$/.test(without.slice(line, last.start)) ? `\n${without.slice(line, last.start)}` : " ";
	return `${without.slice(0, last.end)},${indent}${JSON.stringify(entry)}${without.slice(last.end)}`;
}

/** With the comma and the space before it: what withPlugin() has put there. A list of nothing else is left alone. */
export function withoutPlugin(text: string): string {
	const elements = elementsOf(text);
	const isOwn = ({ start, end }: Span): boolean =>
		(JSON.parse(text.slice(start, end)) as { type: unknown }).type === PLUGIN;
	const at = elements.findLastIndex(isOwn);
	if (at < 0 || elements.length === 1) return text;
	const { start, end } = elements[at] as Span;
	const before = elements[at - 1];
	const after = elements[at + 1];
	return withoutPlugin(
		before ? text.slice(0, before.end) + text.slice(end) : text.slice(0, start) + text.slice((after as Span).start),
	);
}

function parse(text: string): Record<string, unknown> | string {
	try {
		const content: unknown = JSON.parse(text);
		return isObject(content) ? content : "it is not a JSON object";
	} catch (error) {
		return `it is not JSON: ${(error as Error).message}`;
	}
}

function unknownVersions({ cniVersion, cniVersions }: Record<string, unknown>): string[] {
	const named = [cniVersion ?? OLDEST, ...(Array.isArray(cniVersions) ? cniVersions : [])];
	return named.filter((each) => each !== "" && !isVersion(String(each))).map(String);
}

const TOKEN = /"(?:[^"\\]|\\.)*"|[{}[\],:]|[^\s{}[\],:"]+/g;

/** Where the elements of the list's "plugins" stand. `text` is valid JSON; of a key that repeats, the last one counts. */
function elementsOf(text: string): Span[] {
	let elements: Span[] = [];
	let depth = 0;
	let key = "";
	let isInside = false;
	let open: Span | undefined;
	for (const { 0: token, index } of text.matchAll(TOKEN)) {
		const end = index + token.length;
		if (token === "]" || token === "}") depth--;
		if (isInside && depth === 1) {
			// "]" of the plugins
			isInside = false;
			if (open) elements.push(open);
			open = undefined;
		} else if (isInside && depth === 2 && token === ",") {
			if (open) elements.push(open);
			open = undefined;
		} else if (isInside) open = { start: open?.start ?? index, end };
		if (depth === 1 && token.startsWith('"')) key = JSON.parse(token) as string;
		if (token === "[" && depth === 1 && key === "plugins") {
			isInside = true;
			elements = [];
		}
		if (token === "[" || token === "{") depth++;
	}
	return elements;
}
