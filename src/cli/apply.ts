// oncache apply: changes something of the network while nothing about it is cached (paper, section 3.4).
import { Command } from "commander";
import { lease } from "../agent/access.js";
import type { FlowSelector, FlushRequest } from "../agent/api.js";
import { runAttached } from "../lab/command.js";
import { describeFlush } from "./flush.js";
import { flowArgument, ipArgument, type PlaceOptions, withPlace } from "./place.js";
import type { CommandContext } from "./program.js";

interface Options extends PlaceOptions {
	pod?: string[];
	host?: string[];
	flow?: FlowSelector[];
	quiet?: boolean;
}

export function applyCommand({ signal }: CommandContext): Command {
	return withPlace(new Command("apply"))
		.description("run a command that changes the network: learning is paused and what it affects evicted meanwhile")
		.argument("<command...>", "the command and its arguments, after --")
		.option("--pod <ip>", "the change is about this pod, wherever it lives (repeatable)", repeatable(ipArgument))
		.option("--host <ip>", "the change is about this remote host, outer address (repeatable)", repeatable(ipArgument))
		.option("--flow <flow>", "the change is about PROTOCOL,IP:PORT,IP:PORT (repeatable)", repeatable(flowArgument))
		.option("--quiet", "say nothing about what was evicted")
		.passThroughOptions()
		.addHelpText(
			"after",
			`
Without --pod, --host and --flow everything is evicted. Learning goes on when the command has ended, however it ended, and
10 seconds after "oncache apply" itself was killed. Traffic takes the overlay meanwhile; no connection breaks.
Ends with the command's exit code (128 + the signal's number when a signal ended it, 127 when it could not be started).

Examples:
  oncache apply -- iptables -I FORWARD -s 10.244.1.2 -j DROP
  oncache apply --pod 10.244.2.7 -- ip route replace 10.244.2.7/32 via 10.244.3.0 dev flannel.1 onlink`,
		)
		.action(async (argv: string[], { pod, host, flow, quiet, ...place }: Options) => {
			const named: FlushRequest[] = [
				...(pod ?? []).map((ip) => ({ pod: ip })),
				...(host ?? []).map((ip) => ({ host: ip })),
				...(flow ?? []).map((each) => ({ flow: each })),
			];
			const held = await lease(place, named.length > 0 ? named : [{ all: true }]);
			if (!quiet)
				for (const line of held?.evicted.map(describeFlush) ?? ["nothing: no ONCache here"])
					process.stderr.write(`oncache: evicted: ${line}\n`);
			try {
				process.exitCode = await runAttached(argv, signal);
			} finally {
				await held?.release();
			}
		});
}

function repeatable<T>(parse: (text: string) => T): (text: string, before: T[] | undefined) => T[] {
	return (text, before) => [...(before ?? []), parse(text)];
}
