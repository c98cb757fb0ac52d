// A list as the API server sends it, taken apart while it arrives: ten thousand pods are never in memory at once. Pure.

const [QUOTE, BACKSLASH, COMMA] = [0x22, 0x5c, 0x2c];
const [OPEN_BRACE, CLOSE_BRACE, OPEN_BRACKET, CLOSE_BRACKET] = [0x7b, 0x7d, 0x5b, 0x5d];
/** Depth of the members of the list object, and of the elements of its "items". */
const [IN_LIST, IN_ITEMS] = [1, 2];
/** Far more than etcd takes (1.5 MiB). */
const LONGEST_BYTES = 16 << 20;

/** Give it bytes with push(), in pieces of any size; each element of "items" is handed on, and envelope() is the rest. */
export class Items {
	readonly #onItem: (item: unknown) => void;
	readonly #envelope: Buffer[] = [];
	readonly #pieces: Buffer[] = [];
	#length = 0;
	#depth = 0;
	#inString = false;
	#escaped = false;
	#inItems = false;

	constructor(onItem: (item: unknown) => void) {
		this.#onItem = onItem;
	}

	push(bytes: Buffer): void {
		let from = 0;
		for (let at = 0; at < bytes.length; at++) {
			const byte = bytes[at];
			if (this.#inString) {
				if (this.#escaped) this.#escaped = false;
				else if (byte === BACKSLASH) this.#escaped = true;
				else if (byte === QUOTE) this.#inString = false;
				continue;
			}
			if (byte === QUOTE) this.#inString = true;
			else if (byte === OPEN_BRACE || byte === OPEN_BRACKET) {
				this.#depth++;
				if (byte === OPEN_BRACKET && this.#depth === IN_ITEMS && !this.#inItems) {
					this.#keep(bytes.subarray(from, at + 1));
					from = at + 1;
					if (this.#endsWithItems()) {
						this.#envelope.push(this.#take());
						this.#inItems = true;
					}
				}
			} else if (byte === CLOSE_BRACE || byte === CLOSE_BRACKET) {
				this.#depth--;
				if (!this.#inItems) continue;
				if (this.#depth === IN_ITEMS) {
					this.#keep(bytes.subarray(from, at + 1));
					from = at + 1;
					this.#onItem(JSON.parse(this.#take().toString("utf8")));
				} else if (this.#depth === IN_LIST) {
					this.#inItems = false;
					from = at;
				}
			} else if (byte === COMMA && this.#inItems && this.#depth === IN_ITEMS) from = at + 1;
		}
		this.#keep(bytes.subarray(from));
	}

	/** The list without its elements. @throws SyntaxError when what was pushed was no JSON, or not all of it */
	envelope(): unknown {
		return JSON.parse(Buffer.concat([...this.#envelope, this.#take()]).toString("utf8"));
	}

	#keep(piece: Buffer): void {
		this.#length += piece.length;
		if (this.#length > LONGEST_BYTES)
			throw new SyntaxError(`An element of a list is longer than ${LONGEST_BYTES} bytes`);
		if (piece.length > 0) this.#pieces.push(piece);
	}

	#take(): Buffer {
		const all = Buffer.concat(this.#pieces.splice(0));
		this.#length = 0;
		return all;
	}

	#endsWithItems(): boolean {
		return /"items"\s*:\s*\[$/.test(Buffer.concat(this.#pieces).subarray(-64).toString("latin1"));
	}
}
