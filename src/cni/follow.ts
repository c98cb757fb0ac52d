// Keeps the plugin in the node's network configuration: CNIs write theirs anew whenever they start.
import { existsSync, watch } from "node:fs";
import type { Entry } from "./conflist.js";
import { addPlugin, type Change, NoNetworkError, removePlugin } from "./networks.js";
import { isUsable, pluginPath } from "./program.js";

export interface FollowOptions {
	confDir: string;
	binDir: string;
	entry: Entry;
	signal: AbortSignal;
	onChange: (change: Change) => void;
	/** Told once for each reason. */
	onProblem: (why: string) => void;
}

/** A CNI writes in several steps, and may do it again and again. */
const COALESCE_MS = 50;
/** What no event tells: the directory itself came, or is another one. */
const AUDIT_MS = 2000;

/** Until `signal`. */
export function followNetworks({ confDir, binDir, entry, signal, onChange, onProblem }: FollowOptions): void {
	let soon: NodeJS.Timeout | undefined;
	let isWatched = false;
	let told: string | undefined;
	const look = (): void => {
		soon = undefined;
		if (!isWatched) watchDirectory();
		const why = tryToAdd();
		if (why !== undefined && why !== told) onProblem(why);
		told = why;
	};
	const tryToAdd = (): string | undefined => {
		// With a list that names it no pod could start.
		if (!isUsable(binDir)) {
			for (const change of removePlugin(confDir)) onChange(change);
			return `The plugin "${pluginPath(binDir)}" is not there, or is being removed: no list gets it; oncache cni install copies it`;
		}
		try {
			const change = addPlugin(confDir, entry);
			if (change.what !== "unchanged") onChange(change);
			return undefined;
		} catch (error) {
			if (error instanceof NoNetworkError) return error.message;
			return `Cannot add the plugin to "${confDir}": ${(error as Error).message}`;
		}
	};
	const watchDirectory = (): void => {
		if (!existsSync(confDir)) return;
		isWatched = true;
		watch(confDir, { signal }, () => {
			soon ??= setTimeout(look, COALESCE_MS);
		}).on("error", () => {
			isWatched = false;
		});
	};
	if (signal.aborted) return;
	const audit = setInterval(look, AUDIT_MS);
	signal.addEventListener(
		"abort",
		() => {
			clearInterval(audit);
			clearTimeout(soon);
		},
		{ once: true },
	);
	look();
}
