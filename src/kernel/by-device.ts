// A map with two keys, a device and something on it, without making a text of them: there may be thousands, read again and again.

export class ByDevice<Key, Value> {
	readonly #devices = new Map<number, Map<Key, Value>>();

	/** @param device ifindex */
	get(device: number, key: Key): Value | undefined {
		return this.#devices.get(device)?.get(key);
	}

	set(device: number, key: Key, value: Value): void {
		const known = this.#devices.get(device);
		if (known) known.set(key, value);
		else this.#devices.set(device, new Map([[key, value]]));
	}

	delete(device: number, key: Key): void {
		this.#devices.get(device)?.delete(key);
	}

	/** Of one device. */
	values(device: number): Iterable<Value> {
		return this.#devices.get(device)?.values() ?? [];
	}

	clear(): void {
		this.#devices.clear();
	}
}
