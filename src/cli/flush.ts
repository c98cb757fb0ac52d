// oncache flush: evicts, so that the fallback decides again.
import { Command } from "commander";
import { flush } from "../agent/access.js";
import type { FlushRequest } from "../agent/api.js";
import { UsageError } from "./errors.js";
import { ipArgument, type PlaceOptions, printJson, withPlace } from "./place.js";

export function flushCommand(): Command {
	return withPlace(new Command("flush"))
		.description("evict cached decisions")
		.option("--pod <ip>", "all flows of this local pod", ipArgument)
		.option("--host <ip>", "all flows to this remote host (outer address)", ipArgument)
		.option("--all", "everything")
		.option("--json", "machine-readable")
		.addHelpText("after", "\nExamples:\n  oncache flush --all\n  oncache flush --pod 10.244.1.2")
		.action(async ({ pod, host, all, ...options }: PlaceOptions & FlushRequest) => {
			const request: FlushRequest = { ...(pod && { pod }), ...(host && { host }), ...(all && { all }) };
			if (Object.keys(request).length !== 1)
				throw new UsageError("Say what to flush: one of --pod IP, --host IP, --all");
			const result = await flush(options, request);
			if (options.json) printJson(result);
			else if (all) console.log("Flushed: every flow is judged again");
			else
				console.log(
					`Flushed: ${result.pods + result.hosts} cached ${pod ? "pod" : "host"} entries and all their flows`,
				);
		});
}
