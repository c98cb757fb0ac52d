// The kernel's tick counter (jiffies), in which the programs reckon, from user space.
import { fileURLToPath } from "node:url";
import { checkPointer, libbpf, loadObject, openObject, tickNs } from "./libbpf.js";
import { runProgram } from "./testrun.js";

const OBJECT = fileURLToPath(new URL("../../../bpf/clock.bpf.o", import.meta.url));
const ETHERNET_BYTES = 14;
const NS_PER_MS = 1_000_000n;

/** Length of a tick, ns. */
const TICK_NS = tickNs();

/** What to add to CLOCK_MONOTONIC in ticks to get jiffies; the same until the next boot. */
export function readOffset(): bigint {
	const object = openObject(OBJECT, "clock");
	try {
		loadObject(object, OBJECT);
		const fd = libbpf.programFd(checkPointer(libbpf.findProgram(object, "clock"), 'Cannot find program "clock"'));
		const { packet } = runProgram(fd, Buffer.alloc(64));
		return packet.readBigUInt64LE(ETHERNET_BYTES) - process.hrtime.bigint() / TICK_NS;
	} finally {
		libbpf.objectClose(object);
	}
}

export function jiffiesNow(offset: bigint): bigint {
	return process.hrtime.bigint() / TICK_NS + offset;
}

/** Rounded down, at least one: what may last so long never lasts longer. */
export function msToJiffies(ms: number): bigint {
	const ticks = (BigInt(Math.floor(ms)) * NS_PER_MS) / TICK_NS - 1n;
	return ticks > 0n ? ticks : 1n;
}

export function jiffiesToMs(jiffies: bigint): number {
	return Number(jiffies * TICK_NS) / Number(NS_PER_MS);
}
