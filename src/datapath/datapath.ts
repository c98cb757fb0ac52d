// The loaded datapath: what is attached, what is cached, what was counted, and the switches. Closing it leaves everything
// running; destroy() removes it.
import { closeSync, existsSync } from "node:fs";
import type { Ipv4 } from "../net/ipv4.js";
import { macBytes, readMac } from "../net/mac.js";
import { type Attached, Attacher } from "./attach.js";
import { jiffiesNow, jiffiesToMs, msToJiffies, readOffset } from "./clock.js";
import { type FlowList, type FlowQuery, listFlows } from "./flows.js";
import {
	control,
	type Host,
	LESSONS,
	type Lesson,
	MarkMode,
	ONCACHE_CONTRACT,
	type Pod,
	REASONS,
	type Reason,
	TUNNEL_DF_INHERIT,
	TUNNEL_TOS_INHERIT,
	TUNNEL_TTL_INHERIT,
	TUNNELS_MAX,
	type Tunnel,
	tunnel as tunnelLayout,
	VETH_SHAPED,
	veth as vethLayout,
} from "./layout.js";
import { BpfMap, MappedArray, openPin, PerCpuMap } from "./map.js";
import { load, MAPS, type MapName } from "./object.js";
import { list, mapsDir, pinnedHooks, removeTree } from "./pins.js";
import { SlotCache } from "./slots.js";
import type {
	CachedHost,
	CachedPod,
	DatapathOptions,
	HookDirection,
	ProgramName,
	TunnelEntry,
	VethEntry,
} from "./types.js";

/** Between two samples of one direction of a flow. */
const RETRY_MS = 50;
/** Between two questions about a flow that the fallback declined. */
const BACKOFF_MS = 100;
const BACKOFF_SLOTS = 16384;
const PENDING_ENTRIES = 65536;
/** Longer than any packet is under way inside the host after the fallback decided about it. */
const GUARD_MS = 25;
/** A retired slot is used again, and a mark of dscp mode forgotten, after so long. */
const REST_MS = 1000;
const NEVER_CHANGED = -1;

export interface DirectionCounts {
	fast: number;
	fallback: Partial<Record<Reason, number>>;
}

export interface Counters {
	packets: { egress: DirectionCounts; ingress: DirectionCounts };
	bytes: { egress: DirectionCounts; ingress: DirectionCounts };
}

export class Datapath {
	readonly bpffs: string;
	/** Whether an earlier agent's caches were taken over. */
	readonly reused: boolean;
	readonly #programs: Partial<Record<ProgramName, number>>;
	readonly #attacher: Attacher;
	readonly #filterCache: BpfMap;
	readonly #egressCache: SlotCache<Host>;
	readonly #ingressCache: SlotCache<Pod>;
	readonly #veths: BpfMap;
	readonly #control: MappedArray;
	readonly #counters: PerCpuMap;
	readonly #lessons: PerCpuMap;
	readonly #others: number[];

	private constructor(
		bpffs: string,
		maps: Record<MapName, number>,
		programs: Partial<Record<ProgramName, number>>,
		reused: boolean,
	) {
		this.bpffs = bpffs;
		this.reused = reused;
		this.#programs = programs;
		this.#attacher = new Attacher(bpffs);
		this.#filterCache = new BpfMap("filter_cache", maps.filter_cache);
		this.#egressCache = SlotCache.egress(maps.egress_cache);
		this.#ingressCache = SlotCache.ingress(maps.ingress_cache);
		this.#veths = new BpfMap("veths", maps.veths);
		this.#control = new MappedArray("control", maps.control);
		this.#counters = new PerCpuMap("counters", maps.counters);
		this.#lessons = new PerCpuMap("lessons", maps.lessons);
		this.#others = [maps.backoffs, maps.pending];
	}

	/** Loads the programs and takes over or creates the maps. Nothing is attached yet; what an earlier agent attached runs on. */
	static open(options: DatapathOptions): Datapath {
		const { sizes } = options;
		const settings = {
			maxStaleness: msToJiffies(options.maxStalenessMs),
			retry: msToJiffies(RETRY_MS),
			backoff: msToJiffies(BACKOFF_MS),
			rest: msToJiffies(REST_MS),
			mark: options.mark,
			markMode: options.markMode === "dscp" ? MarkMode.DSCP : MarkMode.METADATA,
			countFlows: options.countFlows ? 1 : 0,
			egressSlots: sizes.egress,
			ingressSlots: sizes.ingress,
			backoffSlots: BACKOFF_SLOTS,
		};
		const object = load({
			mapsDir: mapsDir(options.bpffs),
			contract: ONCACHE_CONTRACT,
			settings,
			maxEntries: {
				filter_cache: sizes.filter,
				egress_cache: sizes.egress,
				ingress_cache: sizes.ingress,
				backoffs: BACKOFF_SLOTS,
				pending: options.markMode === "dscp" ? PENDING_ENTRIES : 1,
			},
		});
		const datapath = new Datapath(options.bpffs, object.maps, object.programs, object.reused);
		if (!object.reused) datapath.#initialise(object.savedTcpBeLiberal ?? NEVER_CHANGED);
		const { view } = datapath.#control;
		view.setBigUint64(control.offset.maxStaleness, settings.maxStaleness, true);
		view.setBigInt64(control.offset.jiffiesOffset, readOffset(), true);
		return datapath;
	}

	/** The maps that an agent has left or is using, without loading anything. Cannot attach. */
	static openPinned(bpffs: string): Datapath | undefined {
		const opened: [MapName, number][] = [];
		for (const name of MAPS) {
			const fd = existsSync(mapsDir(bpffs)) ? openPin(`${mapsDir(bpffs)}/${name}`) : undefined;
			if (fd === undefined) {
				for (const [, other] of opened) closeSync(other);
				return undefined;
			}
			opened.push([name, fd]);
		}
		return new Datapath(bpffs, Object.fromEntries(opened) as Record<MapName, number>, {}, true);
	}

	/** For tests and measurements. */
	programFd(name: ProgramName): number {
		const fd = this.#programs[name];
		if (fd === undefined) throw new Error(`Cannot use program "${name}": this datapath was opened from its pins only`);
		return fd;
	}

	/** For tests and measurements. */
	get maps(): { filter: BpfMap; egress: SlotCache<Host>; ingress: SlotCache<Pod>; control: MappedArray } {
		return {
			filter: this.#filterCache,
			egress: this.#egressCache,
			ingress: this.#ingressCache,
			control: this.#control,
		};
	}

	attachments(): Attached[] {
		return this.#attacher.attachments();
	}

	attach(ifindex: number, direction: HookDirection, program: ProgramName, kind: DatapathOptions["attach"]): void {
		this.#attacher.attach({ ifindex, direction }, this.programFd(program), kind);
	}

	/** @returns whether there was something of ours */
	detach(ifindex: number, direction: HookDirection): boolean {
		return this.#attacher.detach({ ifindex, direction });
	}

	/** Replaces the list of tunnel devices. @throws RangeError when there are more than TUNNELS_MAX */
	setTunnels(tunnels: readonly TunnelEntry[]): void {
		if (tunnels.length > TUNNELS_MAX)
			throw new RangeError(`Cannot accelerate ${tunnels.length} tunnel devices: at most ${TUNNELS_MAX}`);
		if (JSON.stringify(tunnels) === JSON.stringify(this.tunnels())) return;
		const { view } = this.#control;
		// No program may read a half-written entry: first there is none, then all.
		view.setUint32(control.offset.tunnelCount, 0, true);
		for (const [i, entry] of tunnels.entries())
			tunnelLayout.write(view, control.offset.tunnels + i * tunnelLayout.size, encodeTunnel(entry));
		view.setUint32(control.offset.tunnelCount, tunnels.length, true);
	}

	tunnels(): TunnelEntry[] {
		const state = control.read(this.#control.view);
		return state.tunnels.slice(0, state.tunnelCount).map(decodeTunnel);
	}

	/** Replaces the set of veths that may be learned. */
	setVeths(veths: readonly VethEntry[]): void {
		const key = Buffer.alloc(4);
		const wanted = new Map(veths.map((entry) => [entry.ifindex, entry]));
		for (const known of this.veths()) {
			if (wanted.has(known.ifindex)) continue;
			key.writeUInt32LE(known.ifindex);
			this.#veths.delete(key);
		}
		const value = Buffer.alloc(vethLayout.size);
		for (const entry of veths) {
			key.writeUInt32LE(entry.ifindex);
			const fields = { flags: entry.shaped ? VETH_SHAPED : 0, mtu: entry.mtu };
			vethLayout.write(new DataView(value.buffer, value.byteOffset), 0, fields);
			this.#veths.set(key, value);
		}
	}

	veths(): VethEntry[] {
		const found: VethEntry[] = [];
		for (const { keys, values, count } of this.#veths.chunks())
			for (let i = 0; i < count; i++) {
				const { flags, mtu } = vethLayout.read(values, i * vethLayout.size);
				found.push({ ifindex: keys.getUint32(i * 4, true), shaped: (flags & VETH_SHAPED) !== 0, mtu });
			}
		return found;
	}

	/** The ingress cache. */
	pods(): CachedPod[] {
		return Array.from(this.#ingressCache.live(), ({ index, entry }) => ({
			slot: index,
			ip: entry.ip,
			veth: entry.veth,
			mac: readMac(entry.macs, 0),
			gatewayMac: readMac(entry.macs, 6),
		}));
	}

	/** The egress cache. */
	hosts(): CachedHost[] {
		return Array.from(this.#egressCache.live(), ({ index, entry }) => ({
			slot: index,
			remote: entry.remoteIp,
			local: entry.localIp,
			vni: entry.vni,
			tunnel: entry.tunnel,
			uplink: entry.uplink,
			mtu: entry.mtu,
		}));
	}

	/** Voids every flow; O(1). */
	flushAll(): void {
		this.#guard();
		const { words } = this.#control;
		const index = control.offset.epoch / 4;
		if ((Atomics.add(words, index, 1) + 1) >>> 0 === 0) Atomics.add(words, index, 1);
	}

	/** Voids every flow of a local pod. @returns entries evicted */
	flushPod(ip: Ipv4): number {
		return this.#ingressCache.retire((pod) => pod.ip === ip, this.#guard());
	}

	/** Voids every flow to a remote host, by its outer address. @returns entries evicted */
	flushHost(ip: Ipv4): number {
		return this.#egressCache.retire((host) => host.remoteIp === ip, this.#guard());
	}

	flushVeth(ifindex: number): number {
		return this.#ingressCache.retire((pod) => pod.veth === ifindex, this.#guard());
	}

	flushTunnel(ifindex: number): number {
		return this.#egressCache.retire((host) => host.tunnel === ifindex, this.#guard());
	}

	get learning(): boolean {
		return this.#control.view.getUint32(control.offset.learning, true) !== 0;
	}

	set learning(on: boolean) {
		this.#control.view.setUint32(control.offset.learning, on ? 1 : 0, true);
	}

	get using(): boolean {
		return this.#control.view.getUint32(control.offset.using, true) !== 0;
	}

	set using(on: boolean) {
		this.#control.view.setUint32(control.offset.using, on ? 1 : 0, true);
	}

	get maxStalenessMs(): number {
		return Math.round(jiffiesToMs(this.#control.view.getBigUint64(control.offset.maxStaleness, true) + 1n));
	}

	/** The sysctl's value before the agent changed it; undefined when it did not. */
	get savedTcpBeLiberal(): number | undefined {
		const value = this.#control.view.getInt32(control.offset.savedTcpBeLiberal, true);
		return value === NEVER_CHANGED ? undefined : value;
	}

	set savedTcpBeLiberal(value: number | undefined) {
		this.#control.view.setInt32(control.offset.savedTcpBeLiberal, value ?? NEVER_CHANGED, true);
	}

	counters(): Counters {
		const read = (direction: number, field: 0 | 1): DirectionCounts => {
			const sums = REASONS.map((_, reason) => this.#counters.sum(direction * REASONS.length + reason)[field] ?? 0);
			return { fast: sums[0] ?? 0, fallback: named(REASONS, sums, "fast") as Partial<Record<Reason, number>> };
		};
		return {
			packets: { egress: read(0, 0), ingress: read(1, 0) },
			bytes: { egress: read(0, 1), ingress: read(1, 1) },
		};
	}

	lessons(): { egress: Partial<Record<Lesson, number>>; ingress: Partial<Record<Lesson, number>> } {
		const read = (direction: number): Partial<Record<Lesson, number>> =>
			named(
				LESSONS,
				LESSONS.map((_, lesson) => this.#lessons.sum(direction * LESSONS.length + lesson)[0] ?? 0),
			);
		return { egress: read(0), ingress: read(1) };
	}

	get capacities(): { filter: number; egress: number; ingress: number } {
		return {
			filter: this.#filterCache.info.maxEntries,
			egress: this.#egressCache.info.maxEntries,
			ingress: this.#ingressCache.info.maxEntries,
		};
	}

	/** Entries of the egress and ingress cache; O(capacity). */
	get cached(): { egress: number; ingress: number } {
		return { egress: this.#egressCache.count(), ingress: this.#ingressCache.count() };
	}

	/** Flows of the filter cache, void ones too. O(flows), in chunks that let others run in between. */
	async flows(query: FlowQuery): Promise<FlowList> {
		return listFlows(
			{
				filter: this.#filterCache,
				egress: this.#egressCache,
				ingress: this.#ingressCache,
				epoch: this.#control.view.getUint32(control.offset.epoch, true),
				now: this.now,
				maxStaleness: this.#control.view.getBigUint64(control.offset.maxStaleness, true),
			},
			query,
		);
	}

	/** Lets go of everything; links, programs and maps stay. */
	close(): void {
		for (const map of [
			this.#filterCache,
			this.#egressCache,
			this.#ingressCache,
			this.#veths,
			this.#control,
			this.#counters,
			this.#lessons,
		])
			map.close();
		for (const fd of [...this.#others, ...Object.values(this.#programs)]) closeSync(fd);
	}

	#initialise(savedTcpBeLiberal: number): void {
		control.write(this.#control.view, 0, {
			maxStaleness: 0n,
			jiffiesOffset: 0n,
			learnAfter: 0n,
			contract: ONCACHE_CONTRACT,
			epoch: 1,
			learning: 1,
			using: 1,
			tunnelCount: 0,
			savedTcpBeLiberal,
			tunnels: [],
		});
	}

	/** In jiffies, as the programs reckon. */
	get now(): bigint {
		return jiffiesNow(this.#control.view.getBigInt64(control.offset.jiffiesOffset, true));
	}

	/** Nothing is learned for a while: the packets under way were decided about before. */
	#guard(): bigint {
		const now = this.now;
		this.#control.view.setBigUint64(control.offset.learnAfter, now + msToJiffies(GUARD_MS), true);
		return now;
	}
}

/**
 * Detaches and unpins everything below `bpffs`, also what is half gone or was left by another version.
 * @returns what was removed, one line each
 */
export function destroy(bpffs: string): string[] {
	const removed: string[] = [];
	const attacher = new Attacher(bpffs);
	for (const hook of [...pinnedHooks(bpffs, "links"), ...pinnedHooks(bpffs, "filters")])
		if (attacher.detach(hook)) removed.push(`program at the ${hook.direction} of interface ${hook.ifindex}`);
	removed.push(...list(mapsDir(bpffs)).map((name) => `map ${name}`));
	removeTree(bpffs);
	return removed;
}

function named<T extends string>(
	names: readonly T[],
	counts: readonly number[],
	without?: string,
): Partial<Record<T, number>> {
	const entries = names.map((name, i) => [name, counts[i] ?? 0] as const);
	return Object.fromEntries(entries.filter(([name, count]) => count > 0 && name !== without)) as Partial<
		Record<T, number>
	>;
}

function encodeTunnel(entry: TunnelEntry): Tunnel {
	return {
		ifindex: entry.ifindex,
		uplink: entry.uplink,
		vni: entry.vni,
		port: entry.port,
		mtu: entry.mtu,
		mac: readMac(macBytes(entry.mac)),
		flags:
			(entry.tosInherit ? TUNNEL_TOS_INHERIT : 0) |
			(entry.ttlInherit ? TUNNEL_TTL_INHERIT : 0) |
			(entry.dfInherit ? TUNNEL_DF_INHERIT : 0),
	};
}

function decodeTunnel(entry: Tunnel): TunnelEntry {
	return {
		ifindex: entry.ifindex,
		uplink: entry.uplink,
		vni: entry.vni,
		port: entry.port,
		mtu: entry.mtu,
		mac: entry.mac,
		tosInherit: (entry.flags & TUNNEL_TOS_INHERIT) !== 0,
		ttlInherit: (entry.flags & TUNNEL_TTL_INHERIT) !== 0,
		dfInherit: (entry.flags & TUNNEL_DF_INHERIT) !== 0,
	};
}
