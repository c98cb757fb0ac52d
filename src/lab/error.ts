// A lab that this machine's kernel cannot make; the message says what it lacks.

export class UnsupportedLabError extends Error {
	override readonly name = "UnsupportedLabError";
}
