// Hears of the old iptables: its rules are told by nobody, but whoever changes them holds a lock file meanwhile.
import { closeSync, existsSync, readSync } from "node:fs";
import { basename, dirname } from "node:path";
import koffi from "koffi";
import { addInotifyWatch, openInotify } from "./libc.js";
import type { Change } from "./monitor.js";

/** iptables(8), "--wait": of iptables-legacy and ip6tables-legacy, of all network namespaces. */
export const XTABLES_LOCK = "/run/xtables.lock";

/** include/uapi/linux/inotify.h; both of "close" are after the rules hold, since the lock ends with the program. */
const IN_CLOSE_WRITE = 0x8;
const IN_CLOSE_NOWRITE = 0x10;
const IN_CREATE = 0x100;
const IN_MOVED_TO = 0x80;
const IN_DELETE_SELF = 0x400;
const IN_IGNORED = 0x8000;
const IN_Q_OVERFLOW = 0x4000;

/** struct inotify_event: wd, mask, cookie, len; then a name of `len` bytes. */
const EVENT_BYTES = 16;
const READABLE = { readable: true };

export interface XtablesLockOptions {
	signal: AbortSignal;
	onChange: (changes: ReadonlySet<Change>) => void;
}

/**
 * Reports "ruleset" whenever the lock file was closed, until `signal` aborts: something may have changed. One that is not
 * there yet is awaited. Lists of rules take the lock too.
 */
export function watchXtablesLock({ signal, onChange }: XtablesLockOptions): void {
	if (signal.aborted) return;
	const fd = openInotify();
	const bytes = Buffer.alloc(64 << 10);
	/** Of the file, or of its folder while there is none. */
	const watchFile = (): void => {
		if (!existsSync(XTABLES_LOCK)) addInotifyWatch(fd, dirname(XTABLES_LOCK), IN_CREATE | IN_MOVED_TO);
		// Made in between, it is found by the folder's watch or here.
		if (existsSync(XTABLES_LOCK)) addInotifyWatch(fd, XTABLES_LOCK, IN_CLOSE_WRITE | IN_CLOSE_NOWRITE | IN_DELETE_SELF);
	};
	const drain = (): void => {
		if (signal.aborted) return;
		let isClosed = false;
		let isOther = false;
		for (const { mask, name } of events(fd, bytes)) {
			isClosed ||= (mask & (IN_CLOSE_WRITE | IN_CLOSE_NOWRITE | IN_Q_OVERFLOW)) !== 0;
			isOther ||= (mask & (IN_DELETE_SELF | IN_IGNORED)) !== 0 || name === basename(XTABLES_LOCK);
		}
		if (isOther) watchFile();
		// What has just been made may be closed already.
		if (isClosed || isOther) onChange(new Set(["ruleset"]));
	};
	watchFile();
	// Not within koffi's callback, which swallows exceptions.
	const handle = koffi.node.poll(fd, READABLE, () => void setImmediate(drain));
	signal.addEventListener(
		"abort",
		() => {
			handle.close();
			closeSync(fd);
		},
		{ once: true },
	);
}

function* events(fd: number, bytes: Buffer): Generator<{ mask: number; name: string }> {
	let length = 0;
	try {
		length = readSync(fd, bytes);
	} catch (error) {
		if ((error as NodeJS.ErrnoException).code !== "EAGAIN") throw error;
	}
	for (let at = 0; at < length; ) {
		const nameLength = bytes.readUInt32LE(at + 12);
		const name = bytes.toString("utf8", at + EVENT_BYTES, at + EVENT_BYTES + nameLength).replace(/\0+$/, "");
		yield { mask: bytes.readUInt32LE(at + 4), name };
		at += EVENT_BYTES + nameLength;
	}
}
