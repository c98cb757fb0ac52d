// What the kernel itself spends on a map.
import { readFileSync } from "node:fs";

/** Of a BPF map, as the kernel reckons it: "memlock" of its descriptor. */
export function mapMemoryBytes(fd: number): number {
	const [, bytes] = /^memlock:\s*(\d+)$/m.exec(readFileSync(`/proc/self/fdinfo/${fd}`, "utf8")) ?? [];
	return Number(bytes ?? 0);
}
