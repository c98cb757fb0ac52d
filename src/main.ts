// argv -> command -> exit code: 0 ok, 1 failed, 2 usage, 128 + n ended by signal n.
import { constants } from "node:os";
import { CommanderError } from "commander";
import { isMeantForUser } from "./cli/errors.js";
import { buildProgram } from "./cli/program.js";

const args = process.argv.slice(2);
const ending = new AbortController();
let endedBy: "SIGINT" | "SIGTERM" | "SIGPIPE" | undefined;

// A second signal finds no handler and kills.
process.once("SIGINT", () => end("SIGINT"));
process.once("SIGTERM", () => end("SIGTERM"));
// The reader went away, as in `oncache flows | head`: whatever runs cleans up and ends.
for (const stream of [process.stdout, process.stderr])
	stream.on("error", (error: NodeJS.ErrnoException) => {
		if (error.code !== "EPIPE") throw error;
		end("SIGPIPE");
	});

process.exit(await run());

function end(signal: NonNullable<typeof endedBy>): void {
	endedBy ??= signal;
	ending.abort();
}

async function run(): Promise<number> {
	try {
		const program = await buildProgram(args, { signal: ending.signal });
		await program.parseAsync(args, { from: "user" });
		return Number(process.exitCode ?? 0);
	} catch (error) {
		return exitCodeOf(error);
	}
}

function exitCodeOf(error: unknown): number {
	// Commander has printed its message already.
	if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : 2;
	if (endedBy !== undefined && error instanceof Error && error.name === "AbortError")
		return 128 + constants.signals[endedBy];
	const isVerbose = args.includes("--verbose") || Boolean(process.env.ONCACHE_DEBUG);
	const message = error instanceof Error ? error.message : String(error);
	const hint = isMeantForUser(error) || isVerbose ? "" : " (--verbose shows where)";
	process.stderr.write(`oncache: ${message}${hint}\n`);
	if (isVerbose && error instanceof Error) process.stderr.write(`${error.stack}\n`);
	return isMeantForUser(error) ? error.exitCode : 1;
}
