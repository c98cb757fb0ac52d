// oncache uninstall: detach, and nothing is left outside the kernel either.
import { Command } from "commander";
import { uninstall } from "../agent/access.js";
import { type PlaceOptions, printJson, withPlace } from "./place.js";

export function uninstallCommand(): Command {
	return withPlace(new Command("uninstall"))
		.description("end the agent and remove every trace of ONCache from this host")
		.option("--json", "machine-readable")
		.addHelpText(
			"after",
			`
Does what "oncache detach" does, waits until the agent has ended, and removes its socket, lock file and empty directories.
The configuration file stays. Safe to repeat.

Examples:
  oncache uninstall`,
		)
		.action(async (options: PlaceOptions) => {
			const { removed } = await uninstall(options);
			if (options.json) printJson({ removed });
			else if (removed.length === 0) console.log("There was nothing to remove");
			else for (const what of removed) console.log(`Removed: ${what}`);
		});
}
