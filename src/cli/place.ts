// The options by which a command finds one agent, and the values they share.
import { type Command, InvalidArgumentError } from "commander";
import type { Place } from "../agent/access.js";
import { DEFAULT_BPFFS, DEFAULT_SOCKET, type FlowSelector } from "../agent/api.js";
import { parseIp } from "../net/ip.js";

export function withPlace(command: Command): Command {
	return command
		.option("--socket <path>", "the agent's socket", DEFAULT_SOCKET)
		.option("--bpffs <dir>", "the agent's pin directory", DEFAULT_BPFFS);
}

export type PlaceOptions = Place & { json?: boolean };

/** Checks an address and hands it on as text. */
export function ipArgument(text: string): string {
	try {
		parseIp(text);
		return text;
	} catch (error) {
		throw new InvalidArgumentError((error as Error).message);
	}
}

/** "tcp,10.244.1.2:40000,10.244.2.2:80", "udp,[fd00::2]:40000,[fd00::3]:53" */
export function flowArgument(text: string): FlowSelector {
	const [protocol = "", ...ends] = text.split(",");
	const [a, b] = ends.map((end) => {
		const [, ipv4, ipv6, port = ""] = /^(?:([\d.]+)|\[([\da-fA-F:.]+)\]):(\d{1,5})$/.exec(end) ?? [];
		const ip = ipv4 ?? ipv6 ?? "";
		return ip !== "" && Number(port) <= 65_535 ? { ip: ipArgument(ip), port: Number(port) } : undefined;
	});
	if (!isProtocol(protocol) || ends.length !== 2 || !a || !b)
		throw new InvalidArgumentError(
			"Expected PROTOCOL,IP:PORT,IP:PORT such as tcp,10.244.1.2:40000,10.244.2.2:80; IPv6 in brackets.",
		);
	return { protocol, a, b };
}

function isProtocol(text: string): text is FlowSelector["protocol"] {
	return ["tcp", "udp", "icmp"].includes(text);
}

export function countArgument(text: string): number {
	if (!/^\d+$/.test(text)) throw new InvalidArgumentError("Expected a whole number");
	return Number(text);
}

export function printJson(value: unknown): void {
	console.log(JSON.stringify(value, null, "\t"));
}
