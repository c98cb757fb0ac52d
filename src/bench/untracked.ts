// Flows that connection tracking never sees, so that nothing is ever learned from them: NOTRACK for a range of ports.
import { inNetns, run } from "../lab/command.js";

/** Of servers whose flows are to miss for ever; below the ephemeral ports, so no other flow is meant. */
export const UNTRACKED_PORTS = { first: 30000, last: 30999 };

/** Applies to what a host forwards until it is closed; safe to close twice. */
export async function openUntracked(
	hosts: readonly string[],
	signal: AbortSignal,
): Promise<{ close(): Promise<void> }> {
	const close = async (): Promise<void> => {
		for (const netns of hosts) for (const rule of RULES) await run(iptables(netns, "-D", rule), { anyCode: true });
	};
	try {
		for (const netns of hosts) for (const rule of RULES) await run(iptables(netns, "-I", rule), { signal });
	} catch (error) {
		await close();
		throw error;
	}
	return { close };
}

const RANGE = `${UNTRACKED_PORTS.first}:${UNTRACKED_PORTS.last}`;
/** Packets to and from the servers. */
const RULES = ["tcp", "udp"].flatMap((protocol) =>
	["--dport", "--sport"].map((side) => ["-p", protocol, side, RANGE, "-j", "CT", "--notrack"]),
);

function iptables(netns: string, action: "-I" | "-D", rule: readonly string[]): string[] {
	return inNetns(netns, ["iptables", "-w", "-t", "raw", action, "PREROUTING", ...rule]);
}
