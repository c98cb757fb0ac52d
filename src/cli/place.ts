// The options by which a command finds one agent, and the values they share.
import { type Command, InvalidArgumentError } from "commander";
import type { Place } from "../agent/access.js";
import { DEFAULT_BPFFS, DEFAULT_SOCKET } from "../agent/api.js";
import { parseIpv4 } from "../net/ipv4.js";

export function withPlace(command: Command): Command {
	return command
		.option("--socket <path>", "the agent's socket", DEFAULT_SOCKET)
		.option("--bpffs <dir>", "the agent's pin directory", DEFAULT_BPFFS);
}

export type PlaceOptions = Place & { json?: boolean };

/** Checks an address and hands it on as text. */
export function ipArgument(text: string): string {
	try {
		parseIpv4(text);
		return text;
	} catch (error) {
		throw new InvalidArgumentError((error as Error).message);
	}
}

export function countArgument(text: string): number {
	if (!/^\d+$/.test(text)) throw new InvalidArgumentError("Expected a whole number");
	return Number(text);
}

export function printJson(value: unknown): void {
	console.log(JSON.stringify(value, null, "\t"));
}
