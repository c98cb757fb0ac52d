// oncache doctor: what is in the way, and what to do about it.
import { Command } from "commander";
import { DEFAULT_MARK } from "../agent/api.js";
import { examine } from "../agent/doctor.js";
import { UsageError } from "./errors.js";
import { painter } from "./output.js";
import { type PlaceOptions, printJson, withPlace } from "./place.js";

export function doctorCommand(): Command {
	return withPlace(new Command("doctor"))
		.description("try what the kernel can do and look for conflicts")
		.option("--mark <bit>", "the agent's bit of skb->mark", `0x${DEFAULT_MARK.toString(16)}`)
		.option("--json", "machine-readable")
		.addHelpText(
			"after",
			"\nExit code 1 when there is a problem.\n\nExamples:\n  oncache doctor\n  oncache doctor --json",
		)
		.action(({ mark, ...options }: PlaceOptions & { mark: string }) => {
			const bit = Number(mark);
			if (!Number.isInteger(bit) || bit <= 0 || (bit & (bit - 1)) !== 0)
				throw new UsageError(`Mark "${mark}" is not allowed: use a single bit such as 0x1000`);
			const findings = examine({ bpffs: options.bpffs, mark: bit });
			const paint = painter(process.stdout);
			const colour = { ok: "green", warning: "yellow", problem: "red" } as const;
			if (options.json) printJson(findings);
			else
				for (const { level, what, found, todo } of findings)
					console.log(`${paint(colour[level], level.padEnd(8))} ${what}: ${found}${todo ? `\n         ${todo}` : ""}`);
			if (findings.some(({ level }) => level === "problem")) process.exitCode = 1;
		});
}
