// oncache flush: evicts, so that the fallback decides again.
import { Command } from "commander";
import { flush } from "../agent/access.js";
import type { FlushRequest, FlushResult } from "../agent/api.js";
import { UsageError } from "./errors.js";
import { flowArgument, ipArgument, type PlaceOptions, printJson, withPlace } from "./place.js";

export function flushCommand(): Command {
	return withPlace(new Command("flush"))
		.description("evict cached decisions")
		.option("--pod <ip>", "all flows of this pod, wherever it lives", ipArgument)
		.option("--host <ip>", "all flows to this remote host (outer address)", ipArgument)
		.option("--flow <flow>", "one flow: PROTOCOL,IP:PORT,IP:PORT", flowArgument)
		.option("--all", "everything")
		.option("--json", "machine-readable")
		.addHelpText(
			"after",
			"\nExamples:\n  oncache flush --all\n  oncache flush --pod 10.244.1.2\n  oncache flush --flow tcp,10.244.1.2:40000,10.244.2.2:80",
		)
		.action(async ({ pod, host, flow, all, ...options }: PlaceOptions & FlushRequest) => {
			const request: FlushRequest = {
				...(pod && { pod }),
				...(host && { host }),
				...(flow && { flow }),
				...(all && { all }),
			};
			if (Object.keys(request).length !== 1)
				throw new UsageError("Say what to flush: one of --pod IP, --host IP, --flow FLOW, --all");
			const result = await flush(options, request);
			if (options.json) printJson(result);
			else console.log(`Flushed: ${describeFlush(result)}`);
		});
}

export function describeFlush({ pods, hosts, flows, all }: FlushResult): string {
	if (all) return "every flow is judged again";
	return `${hosts} cached hosts and ${pods} cached pods with all their flows, and ${flows} single flows`;
}
