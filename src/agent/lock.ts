// One agent for one network namespace, whatever their sockets and pin directories: two would attach twice.
import {
	closeSync,
	existsSync,
	fstatSync,
	mkdirSync,
	openSync,
	readFileSync,
	rmSync,
	statSync,
	writeFileSync,
} from "node:fs";
import { tryLock } from "../kernel/libc.js";

export const RUN_DIR = "/run/oncache";

const lockFile = (): string => `${RUN_DIR}/netns-${statSync("/proc/self/ns/net").ino}.lock`;

/**
 * Held until release() or the end of the process.
 * @param socket what another agent's user is told
 * @throws when another agent holds it
 */
export function lockNetns(socket: string): { release(): void } {
	const path = lockFile();
	mkdirSync(RUN_DIR, { recursive: true, mode: 0o755 });
	for (;;) {
		const fd = openSync(path, "a+", 0o600);
		if (!tryLock(fd)) {
			const holder = readFileSync(path, "utf8").trim();
			closeSync(fd);
			throw new Error(
				`Another agent runs in this network namespace (${holder || "it has just started"}): one is enough; stop it first`,
			);
		}
		// It may have been removed by its last holder since it was opened.
		if (existsSync(path) && statSync(path).ino === fstatSync(fd).ino) {
			writeFileSync(path, `process ${process.pid}, socket "${socket}"\n`);
			return {
				release: () => {
					rmSync(path, { force: true });
					closeSync(fd);
				},
			};
		}
		closeSync(fd);
	}
}

/** What a killed agent has left. @returns whether there is none any more; false while an agent holds it */
export function removeLockFile(): boolean {
	if (!existsSync(lockFile())) return true;
	const fd = openSync(lockFile(), "r");
	const isFree = tryLock(fd);
	if (isFree) rmSync(lockFile(), { force: true });
	closeSync(fd);
	return isFree;
}
