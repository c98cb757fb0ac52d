// The plugin's file among a node's CNI plugins, and the Node that executes it there.
import { existsSync, readdirSync, readFileSync, rmSync, statSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { PLUGIN } from "./conflist.js";
import { type Staged, stageFile } from "./replace-file.js";

/** libcni's. */
export const DEFAULT_CACHE_DIR = "/var/lib/cni";

const BUNDLE = fileURLToPath(new URL(`../../../bin/${PLUGIN}`, import.meta.url));
const NODE = "oncache-node";
const MODE = 0o755;
/** Of a "#!" line (BINPRM_BUF_SIZE). */
const INTERPRETER_MAX = 250;

export interface Program {
	binDir: string;
	/** Path of the Node that is to execute it, as the node's runtime sees it. */
	node: string;
}

export const pluginPath = (binDir: string): string => join(binDir, PLUGIN);
export const nodePath = (binDir: string): string => join(binDir, NODE);

/** To be tried before it takes the place of a plugin that works. @returns undefined where it is there already */
export function stagePlugin({ binDir, node }: Program): Staged | undefined {
	if (/\s/.test(node) || node.length > INTERPRETER_MAX)
		throw new RangeError(
			`A script cannot be executed by "${node}": it has spaces, or more than ${INTERPRETER_MAX} characters`,
		);
	const wanted = readFileSync(BUNDLE, "utf8").replace(/^#!.*/, `#!${node}`);
	return stageExecutable(pluginPath(binDir), Buffer.from(wanted));
}

/** For nodes without a Node of their own: the one that runs this. @returns undefined where it is there already */
export function stageNode(binDir: string): Staged | undefined {
	return stageExecutable(nodePath(binDir), readFileSync(process.execPath));
}

function stageExecutable(path: string, content: Buffer): Staged | undefined {
	const known = statSync(path, { throwIfNoEntry: false });
	const isThere = known?.size === content.length && (known.mode & 0o777) === MODE && readFileSync(path).equals(content);
	if (isThere) return undefined;
	return stageFile(path, content, {
		like: { mode: MODE, uid: process.geteuid?.() ?? 0, gid: process.getegid?.() ?? 0 },
	});
}

/** While it is there, nobody adds the plugin to a list: it is being removed, or stays only for pods that run. */
export const leavingMark = (binDir: string): string => join(binDir, `.${PLUGIN}.leaving`);

/** Whether a list may name it. */
export function isUsable(binDir: string): boolean {
	return existsSync(pluginPath(binDir)) && !existsSync(leavingMark(binDir));
}

/** @returns what was removed */
export function removeProgram(binDir: string): string[] {
	const files = [pluginPath(binDir), nodePath(binDir)].filter((path) => existsSync(path));
	for (const path of files) rmSync(path);
	return files;
}

/** "current", or what is there instead. */
export function programState(binDir: string): "current" | "outdated" | "absent" {
	const path = pluginPath(binDir);
	if (!existsSync(path)) return "absent";
	const body = (file: string): string => readFileSync(file, "utf8").replace(/^#!.*\n/, "");
	return body(path) === body(BUNDLE) ? "current" : "outdated";
}

/**
 * Pods that were attached by a list with the plugin. CRI-O and podman execute that list, as libcni has cached it, when they
 * remove them: without the plugin they could not.
 */
export function cachedAttachments(cacheDir: string): string[] {
	const results = join(cacheDir, "results");
	if (!existsSync(results)) return [];
	return readdirSync(results).filter((name) => {
		try {
			const { config } = JSON.parse(readFileSync(join(results, name), "utf8")) as { config?: string };
			return Buffer.from(config ?? "", "base64").includes(`"${PLUGIN}"`);
		} catch {
			return false; // older forms hold no configuration
		}
	});
}
