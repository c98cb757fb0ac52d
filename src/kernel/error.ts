// A system call that failed: what was tried on what, and the kernel's answer.
import { constants } from "node:os";
import { getSystemErrorMap } from "node:util";

export class KernelError extends Error {
	override readonly name = "KernelError";
	/** Symbolic errno, such as "ENOBUFS". */
	readonly code: string;
	/** Positive. */
	readonly errno: number;

	/** @param detail the kernel's own words, or what to do */
	constructor(action: string, errno: number, detail?: string) {
		const code = codeOf(errno);
		const words = detail ?? getSystemErrorMap().get(-errno)?.[1];
		super(words === undefined ? `${action}: ${code}` : `${action}: ${words} (${code})`);
		this.code = code;
		this.errno = errno;
	}
}

function codeOf(errno: number): string {
	const name = Object.entries(constants.errno).find(([, value]) => value === errno)?.[0];
	return name ?? getSystemErrorMap().get(-errno)?.[0] ?? `errno ${errno}`;
}
