// BPF maps from user space. Keys and values are bytes; layout.ts says what they mean.
import { closeSync } from "node:fs";
import { BpfError } from "./error.js";
import { check, libbpf, mapMemory, objectInfo } from "./libbpf.js";

const ENOENT = 2;
const ENOSPC = 28;
/** Entries per system call: keys and values of so many stay in a CPU's cache. */
const BATCH = 1024;

export interface MapInfo {
	type: number;
	keySize: number;
	valueSize: number;
	maxEntries: number;
	flags: number;
}

/** BPF_OBJ_GET_INFO_BY_FD of a map. */
export function mapInfo(fd: number): MapInfo {
	const info = objectInfo(fd, 24, "Cannot ask about a BPF map");
	return {
		type: info.readUInt32LE(0),
		keySize: info.readUInt32LE(8),
		valueSize: info.readUInt32LE(12),
		maxEntries: info.readUInt32LE(16),
		flags: info.readUInt32LE(20),
	};
}

/** Opens a pin. @returns undefined when there is none */
export function openPin(path: string): number | undefined {
	const fd = check(libbpf.objGet(path), `Cannot open pin "${path}"`, [ENOENT]);
	return fd < 0 ? undefined : fd;
}

/** A hash or array map by its file descriptor; closing it leaves the map itself alone. */
export class BpfMap {
	readonly name: string;
	readonly fd: number;
	readonly info: MapInfo;

	constructor(name: string, fd: number) {
		this.name = name;
		this.fd = fd;
		this.info = mapInfo(fd);
	}

	/** The value, or undefined. */
	get(key: Uint8Array): Buffer | undefined {
		const value = Buffer.alloc(this.info.valueSize);
		const result = check(libbpf.lookup(this.fd, key, value), `Cannot read map "${this.name}"`, [ENOENT]);
		return result < 0 ? undefined : value;
	}

	set(key: Uint8Array, value: Uint8Array): void {
		check(libbpf.update(this.fd, key, value, 0), `Cannot write map "${this.name}"`);
	}

	/** False when there was none. */
	delete(key: Uint8Array): boolean {
		return check(libbpf.delete(this.fd, key), `Cannot delete from map "${this.name}"`, [ENOENT]) >= 0;
	}

	/** Deletes keys that lie one behind another; those that are gone already are no error. @returns how many there were */
	deleteAll(keys: Uint8Array): number {
		const { keySize } = this.info;
		const done = Buffer.alloc(4);
		let deleted = 0;
		// The kernel stops at a key that it does not have: that one is left out, and the rest tried again.
		for (let at = 0; at < keys.length; at += keySize) {
			done.writeUInt32LE((keys.length - at) / keySize);
			check(libbpf.deleteBatch(this.fd, keys.subarray(at), done, null), `Cannot delete from map "${this.name}"`, [
				ENOENT,
			]);
			deleted += done.readUInt32LE(0);
			at += done.readUInt32LE(0) * keySize;
		}
		return deleted;
	}

	/** Writes `count` entries that lie one behind another. */
	setBatch(keys: Uint8Array, values: Uint8Array, count: number): void {
		const done = Buffer.alloc(4);
		done.writeUInt32LE(count);
		check(libbpf.updateBatch(this.fd, keys, values, done, null), `Cannot write map "${this.name}"`);
	}

	/**
	 * All entries of a hash map, some thousand per chunk. An entry that is added or removed meanwhile may or may not
	 * be among them. The views are valid until the next chunk.
	 */
	*chunks(): Generator<{ keys: DataView; values: DataView; count: number }> {
		const { keySize, valueSize } = this.info;
		let size = BATCH;
		let keys = Buffer.alloc(size * keySize);
		let values = Buffer.alloc(size * valueSize);
		let cursor: Buffer | null = null;
		const count = Buffer.alloc(4);
		for (;;) {
			const next = Buffer.alloc(Math.max(keySize, 4));
			count.writeUInt32LE(size);
			const result = check(
				libbpf.lookupBatch(this.fd, cursor, next, keys, values, count, null),
				`Cannot list map "${this.name}"`,
				[ENOENT, ENOSPC],
			);
			if (result === -ENOSPC) {
				// One bucket holds more than a chunk.
				size *= 2;
				if (size > this.info.maxEntries * 2) throw new BpfError(`Cannot list map "${this.name}"`, ENOSPC);
				keys = Buffer.alloc(size * keySize);
				values = Buffer.alloc(size * valueSize);
				continue;
			}
			const found = count.readUInt32LE(0);
			if (found > 0)
				yield {
					keys: new DataView(keys.buffer, keys.byteOffset, found * keySize),
					values: new DataView(values.buffer, values.byteOffset, found * valueSize),
					count: found,
				};
			if (result === -ENOENT) return;
			cursor = next;
		}
	}

	close(): void {
		closeSync(this.fd);
	}
}

/** A per-CPU array with one entry, of u64 fields. */
export class PerCpuMap extends BpfMap {
	readonly #values = Buffer.alloc(Math.ceil(this.info.valueSize / 8) * 8 * libbpf.possibleCpus());

	/** The fields, each summed over the CPUs. */
	sums(): number[] {
		check(libbpf.lookup(this.fd, Buffer.alloc(4), this.#values), `Cannot read map "${this.name}"`);
		const fields = this.info.valueSize / 8;
		const sums = new Array<number>(fields).fill(0);
		for (let at = 0; at < this.#values.length; at += 8) {
			const field = (at / 8) % fields;
			sums[field] = (sums[field] ?? 0) + Number(this.#values.readBigUInt64LE(at));
		}
		return sums;
	}
}

/** An array map (BPF_F_MMAPABLE) in this process's memory: what is written there, the programs see at once. */
export class MappedArray extends BpfMap {
	readonly #memory = mapMemory(this.fd, Math.ceil((this.info.maxEntries * this.stride) / 4096) * 4096);
	readonly view = new DataView(this.#memory.bytes);
	readonly words = new Int32Array(this.#memory.bytes);

	/** Bytes from one entry to the next. */
	get stride(): number {
		return Math.ceil(this.info.valueSize / 8) * 8;
	}

	/** Of entry `index`. */
	offset(index: number): number {
		return index * this.stride;
	}

	override close(): void {
		this.#memory.unmap();
		super.close();
	}
}
