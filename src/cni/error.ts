// What a plugin answers when it fails: a code that runtimes know, and words (CNI specification, section 5, "Error").

/** Codes below 100 are the specification's. */
export const CniCode = {
	incompatibleVersion: 1,
	unsupportedField: 2,
	unknownContainer: 3,
	invalidEnvironment: 4,
	ioFailure: 5,
	decodingFailure: 6,
	invalidConfig: 7,
	tryAgainLater: 11,
	/** STATUS: ADD cannot be served. */
	notAvailable: 50,
	/** A defect of the plugin itself; the number that the reference library uses. */
	internal: 999,
} as const;

export class CniError extends Error {
	override name = "CniError";
	readonly code: number;
	readonly details: string | undefined;

	constructor(code: number, message: string, details?: string) {
		super(message);
		this.code = code;
		this.details = details;
	}
}

/** The error structure, as it goes to standard output. */
export function errorResult(error: unknown, cniVersion: string): object {
	const known = error instanceof CniError ? error : undefined;
	const message = error instanceof Error ? error.message : String(error);
	return {
		cniVersion,
		code: known?.code ?? CniCode.internal,
		msg: message,
		...(known?.details !== undefined && { details: known.details }),
	};
}
