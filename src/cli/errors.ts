// How a command ends badly: exit code 1 or 2 with a message that is complete as it stands.

/** The command line is wrong: exit code 2. */
export class UsageError extends Error {
	override name = "UsageError";
	readonly exitCode = 2;
}

/** The command could not do its work: exit code 1. */
export class Failure extends Error {
	override name = "Failure";
	readonly exitCode = 1;
}

/** Errors made for the user carry their exit code, wherever they were thrown; the rest is a defect of ours. */
export function isMeantForUser(error: unknown): error is Error & { exitCode: number } {
	return error instanceof Error && typeof (error as { exitCode?: unknown }).exitCode === "number";
}
