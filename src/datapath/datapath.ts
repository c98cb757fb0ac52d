// The loaded datapath: what is attached, what is cached, what was counted, and the switches. Closing it leaves everything
// running; destroy() removes it.

import { closeSync, existsSync } from "node:fs";
import { isDeepStrictEqual } from "node:util";
import { loadConntrack } from "../kernel/conntrack.js";
import { IPV6_BYTES, type Ip, readIp, writeIp } from "../net/ip.js";
import { type MacAddress, macBytes, readMac } from "../net/mac.js";
import { type Attached, Attacher } from "./attach.js";
import { jiffiesNow, jiffiesToMs, msToJiffies, readOffset } from "./clock.js";
import {
	encodeKey,
	type FilterCaches,
	FLOW_LAYOUTS,
	type FlowChunk,
	type FlowKeys,
	type FlowList,
	type FlowQuery,
	type FlowTuple,
	familyOf,
	listFlows,
	scanFlows,
} from "./flows.js";
import {
	control,
	counts as countsLayout,
	type Host,
	LESSONS,
	type Lesson,
	MarkMode,
	ONCACHE_CONTRACT,
	OPTED_OUT_MAX,
	type Pod,
	REASONS,
	type Reason,
	SENDERS,
	TUNNEL_BRIDGED,
	TUNNEL_DF_INHERIT,
	TUNNEL_FLOW_BASED,
	TUNNEL_IPV6,
	TUNNEL_LABEL_INHERIT,
	TUNNEL_PORT,
	TUNNEL_TOS_INHERIT,
	TUNNEL_TTL_INHERIT,
	TUNNEL_UNTRACKED,
	TUNNELS_MAX,
	type Tunnel,
	tunnel as tunnelLayout,
	VETH_SHAPED,
	VETH_UNTRACKED,
	veth as vethLayout,
} from "./layout.js";
import { BpfMap, MappedArray, openPin, PerCpuMap } from "./map.js";
import { type LoadedObject, load, MAPS, type MapName, pinMaps } from "./object.js";
import { list, mapsDir, pinnedHooks, removeTree } from "./pins.js";
import { SlotCache } from "./slots.js";
import type {
	CachedHost,
	CachedPod,
	DatapathOptions,
	HookDirection,
	ProgramName,
	SocketFilterName,
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
const NO_MAC = "00:00:00:00:00:00" as MacAddress;
/**
 * First word of the tunnel header: VXLAN's flags, only "VNI present" (RFC 7348, section 5); Geneve's version 0, no options, no
 * flags, Ethernet inside (RFC 8926, section 3.4).
 */
const FIRST_WORD = { vxlan: 0x08000000, geneve: 0x00006558 };
/** Of the inner Ethernet header in a host's template, which has it there whatever the outer header is: after Ethernet, IPv4, UDP and VXLAN (struct outer of parse.h). */
const INNER_ETHERNET = 14 + 20 + 8 + 8;

export interface DirectionCounts {
	fast: number;
	fallback: Partial<Record<Reason, number>>;
}

export interface Counters {
	packets: { egress: DirectionCounts; ingress: DirectionCounts };
	bytes: { egress: DirectionCounts; ingress: DirectionCounts };
}

/** The first half of opening: what needs more rights than the second. */
export function loadDatapath({ sizes, ...options }: DatapathOptions): LoadedObject {
	if (options.markMode === "metadata") loadConntrack(); // its kfunc is found only then
	return load({
		mapsDir: mapsDir(options.bpffs),
		contract: ONCACHE_CONTRACT,
		settings: {
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
			filterEntries: sizes.filter,
			filter6Entries: sizes.filter6 ?? sizes.filter,
			window: msToJiffies(100),
			loadsInOrder: process.arch === "x64" ? 1 : 0,
		},
		maxEntries: {
			filter_cache: sizes.filter,
			filter_cache6: sizes.filter6 ?? sizes.filter,
			egress_cache: sizes.egress,
			ingress_cache: sizes.ingress,
			backoffs: BACKOFF_SLOTS,
			pending: options.markMode === "dscp" ? PENDING_ENTRIES : 1,
		},
	});
}

export class Datapath {
	readonly bpffs: string;
	/** Whether an earlier agent's caches were taken over. */
	readonly reused: boolean;
	readonly #programs: Partial<LoadedObject["programs"]>;
	readonly #attacher: Attacher;
	readonly #filters: FilterCaches;
	readonly #egressCache: SlotCache<Host>;
	readonly #ingressCache: SlotCache<Pod>;
	readonly #veths: BpfMap;
	readonly #senders: BpfMap;
	readonly #optedOut: BpfMap;
	readonly #control: MappedArray;
	readonly #counters: PerCpuMap;
	readonly #maps: Record<MapName, number>;

	private constructor(
		bpffs: string,
		maps: Record<MapName, number>,
		programs: Partial<LoadedObject["programs"]>,
		reused: boolean,
	) {
		this.bpffs = bpffs;
		this.reused = reused;
		this.#programs = programs;
		this.#attacher = new Attacher(bpffs);
		this.#filters = {
			ipv4: new BpfMap("filter_cache", maps.filter_cache),
			ipv6: new BpfMap("filter_cache6", maps.filter_cache6),
		};
		this.#egressCache = SlotCache.egress(maps.egress_cache);
		this.#ingressCache = SlotCache.ingress(maps.ingress_cache);
		this.#veths = new BpfMap("veths", maps.veths);
		this.#senders = new BpfMap("senders", maps.senders);
		this.#optedOut = new BpfMap("opted_out", maps.opted_out);
		this.#control = new MappedArray("control", maps.control);
		this.#counters = new PerCpuMap("counters", maps.counters);
		this.#maps = maps;
	}

	/** Loads the programs and takes over or creates the maps. Nothing is attached yet; what an earlier agent attached runs on. */
	static open(options: DatapathOptions, object = loadDatapath(options)): Datapath {
		const datapath = new Datapath(options.bpffs, object.maps, object.programs, object.reused);
		if (!object.reused) datapath.#initialise(object.savedTcpBeLiberal ?? NEVER_CHANGED);
		const { view } = datapath.#control;
		view.setBigUint64(control.offset.maxStaleness, msToJiffies(options.maxStalenessMs), true);
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

	/** Of a loaded program; the datapath keeps it. */
	programFd(name: ProgramName | SocketFilterName): number {
		const fd = this.#programs[name];
		if (fd === undefined) throw new Error(`Cannot use program "${name}": this datapath was opened from its pins only`);
		return fd;
	}

	/** File descriptors of all maps, by name. */
	get mapFds(): Readonly<Record<MapName, number>> {
		return this.#maps;
	}

	/** For tests and measurements. */
	get maps(): {
		filter: BpfMap;
		filter6: BpfMap;
		egress: SlotCache<Host>;
		ingress: SlotCache<Pod>;
		control: MappedArray;
	} {
		return {
			filter: this.#filters.ipv4,
			filter6: this.#filters.ipv6,
			egress: this.#egressCache,
			ingress: this.#ingressCache,
			control: this.#control,
		};
	}

	attachments(): Attached[] {
		return this.#attacher.attachments();
	}

	attach(ifindex: number, direction: HookDirection, program: ProgramName, kind: DatapathOptions["attach"]): void {
		this.#attacher.attach({ ifindex, direction }, { name: program, fd: this.programFd(program) }, kind);
	}

	/** @returns whether there was something of ours */
	detach(ifindex: number, direction: HookDirection): boolean {
		return this.#attacher.detach({ ifindex, direction });
	}

	/** Replaces the list of tunnel devices. @throws RangeError when there are more than TUNNELS_MAX */
	setTunnels(tunnels: readonly TunnelEntry[]): void {
		if (tunnels.length > TUNNELS_MAX)
			throw new RangeError(`Cannot accelerate ${tunnels.length} tunnel devices: at most ${TUNNELS_MAX}`);
		if (isDeepStrictEqual(tunnels, this.tunnels())) return;
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
		const wanted = new Set(veths.map(({ ifindex }) => ifindex));
		for (const { ifindex } of this.veths()) {
			if (wanted.has(ifindex)) continue;
			key.writeUInt32LE(ifindex);
			this.#veths.delete(key);
		}
		const value = Buffer.alloc(vethLayout.size);
		for (const entry of veths) {
			key.writeUInt32LE(entry.ifindex);
			vethLayout.write(new DataView(value.buffer, value.byteOffset), 0, {
				flags: (entry.shaped ? VETH_SHAPED : 0) | (entry.untracked ? VETH_UNTRACKED : 0),
				mtu: entry.mtu,
				router: entry.router ?? NO_MAC,
				zone: entry.zones.ipv4,
				zone6: entry.zones.ipv6,
			});
			this.#veths.set(key, value);
		}
	}

	/** As if this pod had sent a packet from that address. For tests, whose packets come out of nowhere. */
	noteSender(ifindex: number, mac: MacAddress): void {
		const key = Buffer.alloc(4);
		const value = Buffer.alloc(8);
		key.writeUInt32LE(ifindex % SENDERS);
		value.set(macBytes(mac));
		value.writeUInt16LE(Math.floor(ifindex / SENDERS), 6);
		this.#senders.set(key, value);
	}

	veths(): VethEntry[] {
		const found: VethEntry[] = [];
		for (const { keys, values, count } of this.#veths.chunks())
			for (let i = 0; i < count; i++) {
				const { flags, mtu, router, zone, zone6 } = vethLayout.read(values, i * vethLayout.size);
				found.push({
					ifindex: keys.getUint32(i * 4, true),
					shaped: (flags & VETH_SHAPED) !== 0,
					mtu,
					router: router === NO_MAC ? undefined : router,
					untracked: (flags & VETH_UNTRACKED) !== 0,
					zones: { ipv4: zone, ipv6: zone6 },
				});
			}
		return found;
	}

	/** Pods whose flows are not learned, at either end. */
	optedOut(): Set<Ip> {
		const found = new Set<Ip>();
		for (const { keys, count } of this.#optedOut.chunks())
			for (let i = 0; i < count; i++) found.add(readIp(keys, i * IPV6_BYTES));
		return found;
	}

	/**
	 * Replaces the set of addresses that are not learned. What is cached of the new ones is the caller's to evict, and comes
	 * second: a lesson that has not seen the address is void by the eviction. @returns which are new
	 * @throws RangeError when there are more than OPTED_OUT_MAX; nothing is changed then
	 */
	setOptedOut(ips: ReadonlySet<Ip>): Set<Ip> {
		if (ips.size > OPTED_OUT_MAX)
			throw new RangeError(`Cannot leave ${ips.size} pod addresses to the overlay: at most ${OPTED_OUT_MAX}`);
		const before = this.optedOut();
		const key = Buffer.alloc(IPV6_BYTES);
		const encode = (ip: Ip): Buffer => {
			writeIp(new DataView(key.buffer, key.byteOffset), 0, ip);
			return key;
		};
		const { view } = this.#control;
		for (const ip of before) if (!ips.has(ip)) this.#optedOut.delete(encode(ip));
		const added = new Set([...ips].filter((ip) => !before.has(ip)));
		// While it is 0 no lesson looks: first it says that there are some.
		view.setUint32(control.offset.optingOut, ips.size === 0 ? 0 : 1, true);
		for (const ip of added) this.#optedOut.set(encode(ip), Buffer.alloc(4));
		return added;
	}

	/** The ingress cache. */
	pods(): CachedPod[] {
		return Array.from(this.#ingressCache.live(), ({ index, entry }) => ({
			slot: index,
			generation: entry.slot.generation,
			ip: entry.ip,
			veth: entry.veth,
			mac: readMac(entry.macs, 0),
			gatewayMac: readMac(entry.macs, 6),
		}));
	}

	/** The egress cache. */
	hosts(): CachedHost[] {
		return Array.from(this.#egressCache.live(), ({ index, entry }) => {
			const template = new Uint8Array(BigUint64Array.from(entry.template).buffer);
			return {
				slot: index,
				generation: entry.slot.generation,
				remote: entry.remoteIp,
				local: entry.localIp,
				vni: entry.vni,
				tunnel: entry.tunnel,
				uplink: entry.uplink,
				mtu: entry.mtu,
				nextHopMac: readMac(template, 0),
				uplinkMac: readMac(template, 6),
				peerMac: readMac(template, INNER_ETHERNET),
				tunnelMac: readMac(template, INNER_ETHERNET + 6),
				bridged: (entry.tunnelFlags & TUNNEL_BRIDGED) !== 0,
			};
		});
	}

	/** Voids every flow; O(1). */
	flushAll(): void {
		this.#guard();
		const { words } = this.#control;
		const index = control.offset.epoch / 4;
		if ((Atomics.add(words, index, 1) + 1) >>> 0 === 0) Atomics.add(words, index, 1);
	}

	/** Voids every flow of a local pod. @returns entries evicted */
	flushPod(ip: Ip): number {
		return this.retirePods((pod) => pod.ip === ip);
	}

	/** Voids every flow to a remote host, by its outer address. @returns entries evicted */
	flushHost(ip: Ip): number {
		return this.retireHosts((host) => host.remoteIp === ip);
	}

	flushVeth(ifindex: number): number {
		return this.retirePods((pod) => pod.veth === ifindex);
	}

	flushTunnel(ifindex: number): number {
		return this.retireHosts((host) => host.tunnel === ifindex);
	}

	/** O(slots) of the ingress cache. @returns entries evicted */
	retirePods(matches: (pod: Pod, slot: number) => boolean): number {
		return this.#ingressCache.retire(matches, this.#guard());
	}

	/** O(slots) of the egress cache. @returns entries evicted */
	retireHosts(matches: (host: Host, slot: number) => boolean): number {
		return this.#egressCache.retire(matches, this.#guard());
	}

	/** Evicts one flow, whichever end is the pod of this host. @returns entries evicted */
	flushFlow(tuple: FlowTuple): number {
		this.#guard();
		const { proto, localIp, localPort, remoteIp, remotePort } = tuple;
		const swapped = { proto, localIp: remoteIp, localPort: remotePort, remoteIp: localIp, remotePort: localPort };
		return [tuple, swapped].filter((each) => this.#forget(each)).length;
	}

	/** As filter_cache_forget() of maps.h: what is entered under another key too goes with it. @returns whether it was there */
	#forget(tuple: FlowTuple): boolean {
		const family = familyOf(tuple.localIp);
		const filter = this.#filters[family];
		const key = encodeKey(tuple);
		const value = filter.get(key);
		if (value === undefined) return false;
		const { other } = FLOW_LAYOUTS[family].flow.read(new DataView(value.buffer, value.byteOffset));
		if (other.proto !== 0) filter.delete(encodeKey(other));
		return filter.delete(key);
	}

	/** Evicts flows by their keys. @returns entries evicted */
	evictFlows(keys: FlowKeys): number {
		this.#guard();
		return this.#filters.ipv4.deleteAll(keys.bytes("ipv4")) + this.#filters.ipv6.deleteAll(keys.bytes("ipv6"));
	}

	/** Goes through the filter caches in chunks, letting others run in between. O(flows). */
	async scanFlows(visit: (chunk: FlowChunk) => void): Promise<void> {
		await scanFlows(this.#filters, visit);
	}

	/** What flows of the current epoch carry. */
	get epoch(): number {
		return this.#control.view.getUint32(control.offset.epoch, true);
	}

	/** Whether one direction of a flow would be used now, as far as epoch and age tell. */
	freshness(): (chunk: FlowChunk, i: number, direction: "egress" | "ingress") => boolean {
		const { epoch } = this;
		const now = Number(this.now & 0xffffffffn);
		const bound = Number(this.#control.view.getBigUint64(control.offset.maxStaleness, true));
		return (chunk, i, direction) =>
			chunk.epoch(i, direction) === epoch && (now - chunk.confirmedAt(i, direction)) >>> 0 <= bound;
	}

	/** Pins maps again whose pin somebody has removed. @returns their names */
	repairPins(): MapName[] {
		const lost = MAPS.filter((name) => !existsSync(`${mapsDir(this.bpffs)}/${name}`));
		if (lost.length > 0) pinMaps(mapsDir(this.bpffs), this.#maps, lost);
		return lost;
	}

	/** Flows that went with their connection tracking entry, since the maps were made. */
	get forgotten(): number {
		return Number(this.#control.view.getBigUint64(control.offset.forgotten, true));
	}

	/**
	 * Nothing is learned for `ms` from now, by the programs' own clock: whoever pauses learning may die, and it ends all
	 * the same. What was set before does not count any more; the guard of an eviction does.
	 */
	holdLearning(ms: number): void {
		this.#learnAfter(this.now + msToJiffies(Math.max(ms, GUARD_MS)));
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
		const sums = this.#counters.sums();
		const read = (direction: number, field: 0 | 1): DirectionCounts => {
			const counts = REASONS.map((_, reason) => sums[(direction * REASONS.length + reason) * 2 + field] ?? 0);
			return { fast: counts[0] ?? 0, fallback: named(REASONS, counts, "fast") as Partial<Record<Reason, number>> };
		};
		return {
			packets: { egress: read(0, 0), ingress: read(1, 0) },
			bytes: { egress: read(0, 1), ingress: read(1, 1) },
		};
	}

	lessons(): { egress: Partial<Record<Lesson, number>>; ingress: Partial<Record<Lesson, number>> } {
		const sums = this.#counters.sums();
		const first = countsLayout.offset.lessons / 8;
		const read = (direction: number): Partial<Record<Lesson, number>> =>
			named(
				LESSONS,
				LESSONS.map((_, lesson) => sums[first + lesson * 2 + direction] ?? 0),
			);
		return { egress: read(0), ingress: read(1) };
	}

	get capacities(): { filter: number; egress: number; ingress: number } {
		return {
			filter: this.#filters.ipv4.info.maxEntries + this.#filters.ipv6.info.maxEntries,
			egress: this.#egressCache.info.maxEntries,
			ingress: this.#ingressCache.info.maxEntries,
		};
	}

	/** Entries of the egress and ingress cache; O(capacity). */
	get cached(): { egress: number; ingress: number } {
		return { egress: this.#egressCache.count(), ingress: this.#ingressCache.count() };
	}

	/** Flows of the filter caches, void ones too. O(flows), in chunks that let others run in between. */
	async flows(query: FlowQuery): Promise<FlowList> {
		return listFlows(
			{
				filters: this.#filters,
				egress: this.#egressCache,
				ingress: this.#ingressCache,
				epoch: this.epoch,
				now: this.now,
				maxStaleness: this.#control.view.getBigUint64(control.offset.maxStaleness, true),
			},
			query,
		);
	}

	/** Lets go of everything; links, programs and maps stay. */
	close(): void {
		const wrapped = [
			this.#filters.ipv4,
			this.#filters.ipv6,
			this.#egressCache,
			this.#ingressCache,
			this.#veths,
			this.#senders,
			this.#optedOut,
			this.#control,
			this.#counters,
		];
		for (const map of wrapped) map.close();
		const closed = new Set(wrapped.map(({ fd }) => fd));
		for (const fd of [...Object.values(this.#maps), ...Object.values(this.#programs)])
			if (!closed.has(fd)) closeSync(fd);
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
			optingOut: 0,
			tunnels: [],
			forgotten: 0n,
			evictions: 0,
		});
	}

	/** In jiffies, as the programs reckon. */
	get now(): bigint {
		return jiffiesNow(this.#control.view.getBigInt64(control.offset.jiffiesOffset, true));
	}

	/** Comes before every eviction: the packets under way were decided about before, so for a while nothing is learned. */
	#guard(): bigint {
		const now = this.now;
		const until = now + msToJiffies(GUARD_MS);
		const held = this.#control.view.getBigUint64(control.offset.learnAfter, true);
		const isHeld = held > until;
		this.#learnAfter(isHeld ? held : until);
		return now;
	}

	#learnAfter(jiffies: bigint): void {
		this.#control.view.setBigUint64(control.offset.learnAfter, jiffies, true);
		// Second: a lesson that has not seen the first then sees at its end that this is another number.
		Atomics.add(this.#control.words, control.offset.evictions / 4, 1);
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
		header: FIRST_WORD[entry.kind],
		zone: entry.flowBased?.zones.ipv4 ?? 0,
		zone6: entry.flowBased?.zones.ipv6 ?? 0,
		gateway: entry.flowBased?.gateway ?? 0,
		flags:
			(entry.flowBased ? TUNNEL_FLOW_BASED : 0) |
			(entry.ipv6 ? TUNNEL_IPV6 : 0) |
			(entry.labelInherit ? TUNNEL_LABEL_INHERIT : 0) |
			(entry.bridging === "none" ? 0 : TUNNEL_PORT) |
			(entry.bridging === "untracked" ? TUNNEL_UNTRACKED : 0) |
			(entry.tosInherit ? TUNNEL_TOS_INHERIT : 0) |
			(entry.ttlInherit ? TUNNEL_TTL_INHERIT : 0) |
			(entry.dfInherit ? TUNNEL_DF_INHERIT : 0),
	};
}

function decodeTunnel(entry: Tunnel): TunnelEntry {
	return {
		kind: entry.header === FIRST_WORD.geneve ? "geneve" : "vxlan",
		bridging:
			(entry.flags & TUNNEL_PORT) === 0 ? "none" : (entry.flags & TUNNEL_UNTRACKED) === 0 ? "tracked" : "untracked",
		ifindex: entry.ifindex,
		uplink: entry.uplink,
		vni: entry.vni,
		port: entry.port,
		mtu: entry.mtu,
		mac: entry.mac,
		flowBased:
			(entry.flags & TUNNEL_FLOW_BASED) === 0
				? undefined
				: { zones: { ipv4: entry.zone, ipv6: entry.zone6 }, gateway: entry.gateway },
		ipv6: (entry.flags & TUNNEL_IPV6) !== 0,
		labelInherit: (entry.flags & TUNNEL_LABEL_INHERIT) !== 0,
		tosInherit: (entry.flags & TUNNEL_TOS_INHERIT) !== 0,
		ttlInherit: (entry.flags & TUNNEL_TTL_INHERIT) !== 0,
		dfInherit: (entry.flags & TUNNEL_DF_INHERIT) !== 0,
	};
}
