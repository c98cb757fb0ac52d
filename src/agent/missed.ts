// Calls of the CNI plugin that no agent heard of: the plugin appends a line for each, with the reason, to a file beside the
// agent's socket. In /run, so that a boot forgets them.
import { readFileSync } from "node:fs";
import { missedFile } from "./api.js";

export function readMissed(socket: string): { missed: number; lastMissed: string | null } {
	let text: string;
	try {
		text = readFileSync(missedFile(socket), "utf8");
	} catch {
		return { missed: 0, lastMissed: null }; // none was missed
	}
	const lines = text.split("\n").slice(0, -1);
	return { missed: lines.length, lastMissed: lines.findLast((line) => line !== "") ?? null };
}
