// Replaces a file at once: who reads it finds the old one or the new one, whole, even after a power failure.
import {
	closeSync,
	fchownSync,
	fsyncSync,
	openSync,
	renameSync,
	rmSync,
	type Stats,
	statSync,
	writeFileSync,
} from "node:fs";
import { basename, dirname, join } from "node:path";

/** Somebody else has changed it since it was read. */
export class ChangedError extends Error {
	override name = "ChangedError";
}

export interface Replacement {
	/** Mode, owner and group of the new file. */
	like: Pick<Stats, "mode" | "uid" | "gid">;
	/** The file as it was when it was read, if it must be that one still. */
	expected?: Stats;
}

/** The new file beside the old one, complete; nobody takes it for anything yet. */
export interface Staged {
	path: string;
	/** @throws {ChangedError} */
	commit(): void;
	discard(): void;
}

export function stageFile(path: string, content: string | Uint8Array, { like, expected }: Replacement): Staged {
	// No runtime takes this name for a network configuration or a plugin.
	const unfinished = join(dirname(path), `.${basename(path)}.oncache-new`);
	const discard = (): void => rmSync(unfinished, { force: true });
	discard();
	const fd = openSync(unfinished, "wx", like.mode & 0o7777);
	try {
		fchownSync(fd, like.uid, like.gid);
		writeFileSync(fd, content);
		fsyncSync(fd);
	} finally {
		closeSync(fd);
	}
	const commit = (): void => {
		if (expected && !isSame(expected, statSync(path, { throwIfNoEntry: false }))) {
			discard();
			throw new ChangedError(`"${path}" has just been changed by somebody else`);
		}
		renameSync(unfinished, path);
		const directory = openSync(dirname(path), "r");
		fsyncSync(directory);
		closeSync(directory);
	};
	return { path: unfinished, commit, discard };
}

/** @throws {ChangedError}, and what the file system says */
export function replaceFile(path: string, content: string | Uint8Array, replacement: Replacement): void {
	stageFile(path, content, replacement).commit();
}

function isSame(before: Stats, now: Stats | undefined): boolean {
	return now !== undefined && now.ino === before.ino && now.size === before.size && now.mtimeMs === before.mtimeMs;
}
