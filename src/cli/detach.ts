// oncache detach: nothing of ONCache is left in this network namespace.
import { Command } from "commander";
import { detach } from "../agent/access.js";
import { type PlaceOptions, printJson, withPlace } from "./place.js";

export function detachCommand(): Command {
	return withPlace(new Command("detach"))
		.description("remove everything that is ONCache's")
		.option("--json", "machine-readable")
		.addHelpText(
			"after",
			`
Removes programs, links, filters, maps, pins and the nftables rule, and restores the sysctl. A running agent does it and
ends. The overlay carries all traffic on; no connection breaks. Safe to repeat.

Examples:
  oncache detach`,
		)
		.action(async (options: PlaceOptions) => {
			const { removed } = await detach(options);
			if (options.json) printJson({ removed });
			else if (removed.length === 0) console.log("There was nothing to remove");
			else for (const what of removed) console.log(`Removed: ${what}`);
		});
}
