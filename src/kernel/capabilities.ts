// Capabilities (include/uapi/linux/capability.h): a root process keeps only what it needs.
import { readFileSync } from "node:fs";
import { dropFromBoundingSet, execute } from "./libc.js";

export const CAP_NET_ADMIN = 12;
export const CAP_PERFMON = 38;
export const CAP_BPF = 39;

/** The bounding set of this process. */
export function boundingSet(): number[] {
	const [, hex = "0"] = /^CapBnd:\s*([0-9a-f]+)$/m.exec(readFileSync("/proc/self/status", "utf8")) ?? [];
	const bits = BigInt(`0x${hex}`);
	return Array.from({ length: 64 }, (_, capability) => capability).filter(
		(capability) => (bits >> BigInt(capability)) & 1n,
	);
}

/**
 * Executes this program again, in the same process, without any capability but these, with these options of Node and more
 * environment. Returns when it has no others and has the options. A process cannot take capabilities from its own
 * threads, of which Node has several; a program that is executed begins with one.
 */
export function keepOnly(
	capabilities: readonly number[],
	{ nodeOptions, environment }: { nodeOptions: readonly string[]; environment: NodeJS.ProcessEnv },
): void {
	const others = boundingSet().filter((capability) => !capabilities.includes(capability));
	const missing = nodeOptions.filter((option) => !process.execArgv.includes(option));
	if (others.length === 0 && missing.length === 0) return;
	for (const capability of others) dropFromBoundingSet(capability);
	const args = [process.execPath, ...process.execArgv, ...missing, ...process.argv.slice(1)];
	execute(process.execPath, args, { ...process.env, ...environment });
}
