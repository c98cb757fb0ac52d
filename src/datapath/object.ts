// Loads the eBPF object: its settings, its maps (taken over from an earlier agent when they fit), its pins.
import { closeSync, existsSync, mkdirSync, rmSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { Btf } from "./btf.js";
import { control, type Settings, settings as settingsLayout } from "./layout.js";
import { check, checkPointer, copyBtf, libbpf, loadObject, openObject, type Pointer } from "./libbpf.js";
import { mapInfo, openPin } from "./map.js";
import type { ProgramName, SocketFilterName } from "./types.js";

const OBJECT = fileURLToPath(new URL("../../../bpf/oncache.bpf.o", import.meta.url));
export const PROGRAMS: readonly ProgramName[] = ["egress", "egress_init", "ingress", "ingress_init"];
const SOCKET_FILTERS: readonly SocketFilterName[] = ["forget"];
export const MAPS = [
	"filter_cache",
	"filter_cache6",
	"egress_cache",
	"ingress_cache",
	"veths",
	"senders",
	"control",
	"counters",
	"backoffs",
	"pending",
	"opted_out",
	"carried",
] as const;
export type MapName = (typeof MAPS)[number];

export interface LoadOptions {
	/** Directory for map pins, on a bpffs. */
	mapsDir: string;
	settings: Settings;
	/** Of the maps whose size is chosen at run time. */
	maxEntries: Partial<Record<MapName, number>>;
	contract: number;
}

export interface LoadedObject {
	/** File descriptors, to be closed by the caller; the kernel objects live on while pinned or attached. */
	programs: Record<ProgramName | SocketFilterName, number>;
	maps: Record<MapName, number>;
	/** False: the caches are new and empty. */
	reused: boolean;
	/** control.saved_tcp_be_liberal of maps that did not fit any more. */
	savedTcpBeLiberal: number | undefined;
}

/** @throws BpfError with the verifier's last words */
export function load(options: LoadOptions): LoadedObject {
	const object = openObject(OBJECT, "oncache");
	try {
		const maps = findMaps(object);
		for (const [name, entries] of Object.entries(options.maxEntries))
			check(libbpf.mapSetMaxEntries(maps[name as MapName], entries), `Cannot size map "${name}" to ${entries} entries`);
		configure(object, options.settings);
		mkdirSync(options.mapsDir, { recursive: true, mode: 0o700 });
		const { reused, savedTcpBeLiberal } = takeOver(maps, options);
		loadObject(object, OBJECT);
		const descriptors = Object.fromEntries(MAPS.map((name) => [name, duplicate(libbpf.mapFd(maps[name]))]));
		if (!reused) pinMaps(options.mapsDir, descriptors as Record<MapName, number>, MAPS);
		const programs = Object.fromEntries(
			[...PROGRAMS, ...SOCKET_FILTERS].map((name) => {
				const program = checkPointer(libbpf.findProgram(object, name), `Cannot find program "${name}"`);
				return [name, duplicate(libbpf.programFd(program))];
			}),
		);
		return {
			programs: programs as LoadedObject["programs"],
			maps: descriptors as Record<MapName, number>,
			reused,
			savedTcpBeLiberal,
		};
	} finally {
		libbpf.objectClose(object);
	}
}

export function pinMaps(dir: string, maps: Record<MapName, number>, names: readonly MapName[]): void {
	mkdirSync(dir, { recursive: true, mode: 0o700 });
	for (const name of names) check(libbpf.objPin(maps[name], `${dir}/${name}`), `Cannot pin map "${dir}/${name}"`);
}

function findMaps(object: Pointer): Record<MapName, Pointer> {
	const entries = MAPS.map((name) => [name, checkPointer(libbpf.findMap(object, name), `Cannot find map "${name}"`)]);
	return Object.fromEntries(entries) as Record<MapName, Pointer>;
}

/** Writes `settings` into the object's read-only data, before the verifier sees it. */
function configure(object: Pointer, settings: Settings): void {
	const btf = new Btf(copyBtf(checkPointer(libbpf.objectBtf(object), "Cannot read the object's BTF")));
	const section = btf.types.find((type) => type.kind === "datasec" && type.name === ".rodata");
	if (section?.kind !== "datasec") throw new Error("Cannot configure the object: no .rodata");
	const variable = section.variables.find(({ type }) => {
		const found = btf.get(type);
		return found.kind === "var" && found.name === "settings";
	});
	if (variable?.size !== settingsLayout.size)
		throw new Error("Cannot configure the object: its settings differ from this program's; run npm run build");
	const data = Buffer.alloc(section.size);
	settingsLayout.write(new DataView(data.buffer, data.byteOffset), variable.offset, settings);
	for (let map = libbpf.nextMap(object, null); map !== null; map = libbpf.nextMap(object, map))
		if (String(libbpf.mapName(map)).endsWith(".rodata")) {
			check(libbpf.mapSetInitialValue(map, data, data.length), "Cannot configure the object");
			return;
		}
}

/**
 * Pinned maps are taken over all together or not at all: flows refer to slots of the other caches. One that does not
 * fit (size, layout, contract) means a cold start with new maps.
 */
function takeOver(
	maps: Record<MapName, Pointer>,
	options: LoadOptions,
): { reused: boolean; savedTcpBeLiberal: number | undefined } {
	const pins = MAPS.map((name) => ({
		name,
		path: `${options.mapsDir}/${name}`,
		fd: openPin(`${options.mapsDir}/${name}`),
	}));
	try {
		const old = pins.find(({ name }) => name === "control")?.fd;
		const state = old === undefined ? undefined : readControl(old);
		const fits =
			state?.contract === options.contract && pins.every(({ name, fd }) => fd !== undefined && isSame(fd, maps[name]));
		if (fits) {
			for (const { name, fd } of pins) check(libbpf.mapReuseFd(maps[name], fd ?? -1), `Cannot take over map "${name}"`);
			return { reused: true, savedTcpBeLiberal: undefined };
		}
		for (const { path } of pins) if (existsSync(path)) rmSync(path);
		return { reused: false, savedTcpBeLiberal: state?.savedTcpBeLiberal };
	} finally {
		for (const { fd } of pins) if (fd !== undefined) closeSync(fd);
	}
}

function readControl(fd: number): { contract: number; savedTcpBeLiberal: number } | undefined {
	const value = Buffer.alloc(mapInfo(fd).valueSize);
	if (value.length !== control.size) return undefined;
	check(libbpf.lookup(fd, Buffer.alloc(4), value), 'Cannot read map "control"');
	return control.read(new DataView(value.buffer, value.byteOffset));
}

function isSame(fd: number, map: Pointer): boolean {
	const info = mapInfo(fd);
	return (
		info.type === libbpf.mapType(map) &&
		info.keySize === libbpf.mapKeySize(map) &&
		info.valueSize === libbpf.mapValueSize(map) &&
		info.maxEntries === libbpf.mapMaxEntries(map) &&
		info.flags === libbpf.mapFlags(map)
	);
}

/** A descriptor of our own: libbpf closes its with the object. */
function duplicate(fd: number): number {
	return check(libbpf.duplicate(fd, F_DUPFD_CLOEXEC, 0), "Cannot duplicate a BPF file descriptor");
}

const F_DUPFD_CLOEXEC = 1030;
