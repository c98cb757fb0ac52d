// Counts calls that no agent heard of, for the agent that comes (agent/missed.ts reads them).
import { appendFileSync, mkdirSync, statSync } from "node:fs";
import { dirname } from "node:path";
import { missedFile } from "../agent/api.js";

/** From here on only the number is kept: a byte for each. */
const WORDS_MAX_BYTES = 64 * 1024;

/** Appends are atomic: any number of plugins may do it at once. */
export function noteMissed(socket: string, words: string): void {
	const file = missedFile(socket);
	mkdirSync(dirname(file), { recursive: true, mode: 0o755 });
	const isLong = (statSync(file, { throwIfNoEntry: false })?.size ?? 0) > WORDS_MAX_BYTES;
	appendFileSync(file, isLong ? "\n" : `${new Date().toISOString()} ${words.replaceAll("\n", " ")}\n`, { mode: 0o644 });
}
