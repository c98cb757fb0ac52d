// A BPF operation that failed: what was tried on which object, and the kernel's answer.
import { getSystemErrorMap } from "node:util";

export class BpfError extends Error {
	override readonly name = "BpfError";
	/** Symbolic errno, such as "EACCES". */
	readonly code: string;

	/** @param errno positive @param detail the verifier's or libbpf's own words, or what to do */
	constructor(action: string, errno: number, detail?: string) {
		const [code, words] = getSystemErrorMap().get(-errno) ?? [`errno ${errno}`, "unknown error"];
		super(`${action}: ${words} (${code})${detail ? `\n${detail}` : ""}`);
		this.code = code;
	}
}
