// The file system that BPF objects are pinned in.
import { existsSync, mkdirSync, statfsSync } from "node:fs";
import { dirname, resolve } from "node:path";
import { mount } from "./libc.js";

const BPF_FS_MAGIC = 0xcafe4a11;
const STANDARD = "/sys/fs/bpf";

/** Creates `dir` (0700) on a bpffs; the one at /sys/fs/bpf is mounted when it is needed and missing. */
export function ensureBpffs(dir: string): void {
	const target = resolve(dir);
	if (isBelow(target, STANDARD) && existsSync(STANDARD) && !isBpffs(STANDARD)) mount("bpf", STANDARD, "bpf");
	if (!isBpffs(nearestExisting(target)))
		throw new Error(
			`Cannot pin BPF objects in "${dir}": it is not on a bpffs; name a directory below ${STANDARD}, or mount one first: mount -t bpf bpf DIR`,
		);
	try {
		mkdirSync(target, { recursive: true, mode: 0o700 });
	} catch (error) {
		const { code, message } = error as NodeJS.ErrnoException;
		const hint = code === "EPERM" ? "; a bpffs allows no dots in names" : "";
		throw new Error(`Cannot create "${dir}": ${message}${hint}`, { cause: error });
	}
}

export function isBpffs(path: string): boolean {
	return statfsSync(path).type === BPF_FS_MAGIC;
}

function isBelow(path: string, ancestor: string): boolean {
	return path === ancestor || path.startsWith(`${ancestor}/`);
}

function nearestExisting(path: string): string {
	return existsSync(path) ? path : nearestExisting(dirname(path));
}
