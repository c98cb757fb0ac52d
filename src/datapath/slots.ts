// The egress and ingress caches: arrays of slots, read and retired in shared memory while the programs use them.
import { type Host, host, type Pod, pod, SlotState, slot as slotLayout } from "./layout.js";
import { MappedArray } from "./map.js";

interface Layout<T> {
	read: (view: DataView, at?: number) => T;
}

export class SlotCache<T extends Host | Pod> extends MappedArray {
	readonly #layout: Layout<T>;

	private constructor(name: string, fd: number, layout: Layout<T>) {
		super(name, fd);
		this.#layout = layout;
	}

	static egress(fd: number): SlotCache<Host> {
		return new SlotCache("egress_cache", fd, host);
	}

	static ingress(fd: number): SlotCache<Pod> {
		return new SlotCache("ingress_cache", fd, pod);
	}

	/** Live slots. O(capacity). */
	*live(): Generator<{ index: number; entry: T }> {
		for (let index = 0; index < this.info.maxEntries; index++)
			if (this.#state(index) === SlotState.LIVE)
				yield { index, entry: this.#layout.read(this.view, this.offset(index)) };
	}

	count(): number {
		let count = 0;
		for (let index = 0; index < this.info.maxEntries; index++) if (this.#state(index) === SlotState.LIVE) count++;
		return count;
	}

	/** The entry a flow refers to; undefined when it was retired since. `ref` as in the contract. */
	resolve(ref: bigint): T | undefined {
		const index = Number(ref & 0xffffffffn);
		if (index >= this.info.maxEntries) return undefined;
		const entry = this.#layout.read(this.view, this.offset(index));
		return BigInt(entry.slot.generation) === ref >> 32n ? entry : undefined;
	}

	/** Ends every live entry that matches: all flows that refer to it are void at once. `now` in jiffies. @returns how many */
	retire(matches: (entry: T, slot: number) => boolean, now: bigint): number {
		let retired = 0;
		for (const { index, entry } of this.live()) {
			if (!matches(entry, index)) continue;
			const at = this.offset(index);
			Atomics.add(this.words, (at + slotLayout.offset.generation) / 4, 1);
			this.view.setBigUint64(at + slotLayout.offset.retiredAt, now, true);
			Atomics.compareExchange(this.words, (at + slotLayout.offset.state) / 4, SlotState.LIVE, SlotState.RETIRED);
			retired++;
		}
		return retired;
	}

	#state(index: number): number {
		return Atomics.load(this.words, (this.offset(index) + slotLayout.offset.state) / 4);
	}
}
