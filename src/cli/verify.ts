// oncache verify: is what is cached what the kernel would decide now?
import { Command } from "commander";
import { verify } from "../agent/access.js";
import { table } from "./output.js";
import { type PlaceOptions, printJson, withPlace } from "./place.js";

const SHOWN = 100;

export function verifyCommand(): Command {
	return withPlace(new Command("verify"))
		.description(
			"compare every cached entry with the kernel's routes, neighbours, forwarding entries, devices and conntrack",
		)
		.option("--json", "machine-readable, all differences")
		.addHelpText(
			"after",
			`
Reads only; safe on a busy host, with and without a running agent. An entry differs when it does so twice within 200 ms.
Exit code 0: no difference; 1: differences.

Examples:
  oncache verify
  oncache verify --json`,
		)
		.action(async (options: PlaceOptions) => {
			const result = await verify(options);
			const { checked, differences } = result;
			if (options.json) printJson(result);
			else {
				console.log(
					`Checked ${checked.hosts} hosts, ${checked.pods} pods, ${checked.flows} flows: ${differences.length} differences`,
				);
				if (differences.length > 0)
					console.log(
						table(differences.slice(0, SHOWN), [
							{ title: "cache", text: ({ cache }) => cache },
							{ title: "entry", text: ({ entry }) => entry },
							{ title: "difference", text: ({ why }) => why },
						]),
					);
				if (differences.length > SHOWN) console.log(`and ${differences.length - SHOWN} more (--json)`);
			}
			if (differences.length > 0) process.exitCode = 1;
		});
}
