// A measurement could not be made; the message is complete as it stands.

export class BenchError extends Error {
	override name = "BenchError";
	readonly exitCode = 1;
}
