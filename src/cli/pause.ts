// oncache pause and resume: the two switches, learning and using.
import { Command } from "commander";
import { setSwitches } from "../agent/access.js";
import { type PlaceOptions, printJson, withPlace } from "./place.js";

export function pauseCommand(): Command {
	return switches("pause", "stop learning and using the cache");
}

export function resumeCommand(): Command {
	return switches("resume", "go on learning and using the cache");
}

function switches(what: "pause" | "resume", description: string): Command {
	return withPlace(new Command(what))
		.description(description)
		.option("--learning", "only learning: what is cached stays in use until it is stale")
		.option("--using", "only using: every packet takes the fallback")
		.option("--json", "machine-readable")
		.addHelpText("after", `\nExamples:\n  oncache ${what}\n  oncache ${what} --learning`)
		.action(async ({ learning, using, ...options }: PlaceOptions & { learning?: boolean; using?: boolean }) => {
			const now = await setSwitches(options, what, { ...(learning && { learning }), ...(using && { using }) });
			if (options.json) printJson(now);
			else console.log(`Learning is ${now.learning ? "on" : "off"}, using is ${now.using ? "on" : "off"}`);
		});
}
