// The system's libbpf and the bpf(2) system call. Every failure becomes a BpfError; every pointer is checked for null.
import koffi from "koffi";
import { BpfError } from "./error.js";

/** A pointer that libbpf gave out. */
export type Pointer = bigint;

function loadLibrary(): ReturnType<typeof koffi.load> {
	try {
		return koffi.load("libbpf.so.1");
	} catch (error) {
		throw new Error("Cannot load libbpf.so.1: install it (Debian: apt-get install libbpf1)", { cause: error });
	}
}

const lib = loadLibrary();
const libc = koffi.load(null);

koffi.struct("bpf_object_open_opts", {
	sz: "size_t",
	object_name: "const char *",
	relaxed_maps: "bool",
	pin_root_path: "const char *",
	reserved: "uint32_t",
	kconfig: "const char *",
	btf_custom_path: "const char *",
	kernel_log_buf: "void *",
	kernel_log_size: "size_t",
	kernel_log_level: "uint32_t",
});
koffi.struct("bpf_test_run_opts", {
	sz: "size_t",
	data_in: "const void *",
	data_out: "void *",
	data_size_in: "uint32_t",
	data_size_out: "uint32_t",
	ctx_in: "const void *",
	ctx_out: "void *",
	ctx_size_in: "uint32_t",
	ctx_size_out: "uint32_t",
	retval: "uint32_t",
	repeat: "int",
	duration: "uint32_t",
	flags: "uint32_t",
	cpu: "uint32_t",
	batch_size: "uint32_t",
});
koffi.struct("bpf_tc_hook", { sz: "size_t", ifindex: "int", attach_point: "int", parent: "uint32_t" });
koffi.struct("bpf_tc_opts", {
	sz: "size_t",
	prog_fd: "int",
	flags: "uint32_t",
	prog_id: "uint32_t",
	handle: "uint32_t",
	priority: "uint32_t",
});
const printCallback = koffi.proto("int bpf_print_fn(int level, const char *fmt, void *ap)");

const raw = {
	objectOpen: lib.func("void *bpf_object__open_file(const char *path, const bpf_object_open_opts *opts)"),
	objectLoad: lib.func("int bpf_object__load(void *obj)"),
	objectClose: lib.func("void bpf_object__close(void *obj)"),
	objectBtf: lib.func("void *bpf_object__btf(void *obj)"),
	findMap: lib.func("void *bpf_object__find_map_by_name(void *obj, const char *name)"),
	nextMap: lib.func("void *bpf_object__next_map(void *obj, void *map)"),
	findProgram: lib.func("void *bpf_object__find_program_by_name(void *obj, const char *name)"),
	programFd: lib.func("int bpf_program__fd(void *prog)"),
	mapName: lib.func("const char *bpf_map__name(void *map)"),
	mapFd: lib.func("int bpf_map__fd(void *map)"),
	mapType: lib.func("uint32_t bpf_map__type(void *map)"),
	mapKeySize: lib.func("uint32_t bpf_map__key_size(void *map)"),
	mapValueSize: lib.func("uint32_t bpf_map__value_size(void *map)"),
	mapMaxEntries: lib.func("uint32_t bpf_map__max_entries(void *map)"),
	mapFlags: lib.func("uint32_t bpf_map__map_flags(void *map)"),
	mapSetMaxEntries: lib.func("int bpf_map__set_max_entries(void *map, uint32_t n)"),
	mapReuseFd: lib.func("int bpf_map__reuse_fd(void *map, int fd)"),
	mapSetInitialValue: lib.func("int bpf_map__set_initial_value(void *map, const void *data, size_t size)"),
	btfRawData: lib.func("void *btf__raw_data(void *btf, _Out_ uint32_t *size)"),
	btfParse: lib.func("void *btf__parse(const char *path, void *ext)"),
	btfFree: lib.func("void btf__free(void *btf)"),
	setPrint: lib.func("void *libbpf_set_print(bpf_print_fn *fn)"),
	possibleCpus: lib.func("int libbpf_num_possible_cpus()"),
	lookup: lib.func("int bpf_map_lookup_elem(int fd, const void *key, void *value)"),
	update: lib.func("int bpf_map_update_elem(int fd, const void *key, const void *value, uint64_t flags)"),
	delete: lib.func("int bpf_map_delete_elem(int fd, const void *key)"),
	nextKey: lib.func("int bpf_map_get_next_key(int fd, const void *key, void *next)"),
	lookupBatch: lib.func(
		"int bpf_map_lookup_batch(int fd, void *in, void *out, void *keys, void *values, void *count, const void *opts)",
	),
	updateBatch: lib.func(
		"int bpf_map_update_batch(int fd, const void *keys, const void *values, void *count, const void *opts)",
	),
	deleteBatch: lib.func("int bpf_map_delete_batch(int fd, const void *keys, void *count, const void *opts)"),
	linkCreate: lib.func("int bpf_link_create(int prog_fd, int target_fd, int attach_type, const void *opts)"),
	linkUpdate: lib.func("int bpf_link_update(int link_fd, int new_prog_fd, const void *opts)"),
	linkDetach: lib.func("int bpf_link_detach(int link_fd)"),
	objPin: lib.func("int bpf_obj_pin(int fd, const char *path)"),
	objGet: lib.func("int bpf_obj_get(const char *path)"),
	objInfo: lib.func("int bpf_obj_get_info_by_fd(int fd, void *info, _Inout_ uint32_t *len)"),
	progById: lib.func("int bpf_prog_get_fd_by_id(uint32_t id)"),
	testRun: lib.func("int bpf_prog_test_run_opts(int fd, _Inout_ bpf_test_run_opts *opts)"),
	tcHookCreate: lib.func("int bpf_tc_hook_create(bpf_tc_hook *hook)"),
	tcHookDestroy: lib.func("int bpf_tc_hook_destroy(bpf_tc_hook *hook)"),
	tcAttach: lib.func("int bpf_tc_attach(const bpf_tc_hook *hook, _Inout_ bpf_tc_opts *opts)"),
	tcDetach: lib.func("int bpf_tc_detach(const bpf_tc_hook *hook, const bpf_tc_opts *opts)"),
	tcQuery: lib.func("int bpf_tc_query(const bpf_tc_hook *hook, _Inout_ bpf_tc_opts *opts)"),
	vsnprintf: libc.func("int vsnprintf(_Out_ void *buf, size_t size, const char *fmt, void *ap)"),
	mmap: libc.func("void *mmap(void *addr, size_t length, int prot, int flags, int fd, int64_t offset)"),
	munmap: libc.func("int munmap(void *addr, size_t length)"),
	clockGetres: libc.func("int clock_getres(int clock, void *resolution)"),
	duplicate: libc.func("int fcntl(int fd, int command, int argument)"),
	syscall: libc.func("int64_t syscall(int64_t n, int64_t cmd, void *attr, int64_t size)"),
};

export { raw as libbpf };

const LOG_BYTES = 1 << 20;
const LOG_TAIL_LINES = 25;
let said: string[] = [];
const printed = Buffer.alloc(4096);
const print = koffi.register((level: number, format: string, args: bigint) => {
	try {
		if (level > 1) return 0; // debug
		raw.vsnprintf(printed, printed.length, format, args);
		said.push(printed.toString("latin1", 0, printed.indexOf(0)).trimEnd());
	} catch {
		// An exception in a callback would surface in the call that is under way.
	}
	return 0;
}, koffi.pointer(printCallback));
raw.setPrint(print);
/** libbpf and the verifier keep writing here during a load. */
const log = koffi.alloc("uint8_t", LOG_BYTES);

/** Negative results become a BpfError, with what libbpf said meanwhile. */
export function check(result: number, action: string, expected: readonly number[] = []): number {
	const words = said.slice(-LOG_TAIL_LINES).join("\n");
	said = [];
	if (result < 0 && !expected.includes(-result)) throw new BpfError(action, -result, words);
	return result;
}

export function checkPointer(pointer: Pointer | null, action: string): Pointer {
	const words = said.slice(-LOG_TAIL_LINES).join("\n");
	said = [];
	if (pointer === null) throw new BpfError(action, koffi.errno(), words);
	return pointer;
}

/** Opens an object file; its maps take their names from `name` (at most 8 characters count). */
export function openObject(path: string, name: string): Pointer {
	const options = {
		sz: koffi.sizeof("bpf_object_open_opts"),
		object_name: name,
		kernel_log_buf: log,
		kernel_log_size: LOG_BYTES,
		kernel_log_level: 0,
	};
	koffi.encode(log, "uint8_t", 0);
	return checkPointer(raw.objectOpen(path, options), `Cannot open BPF object "${path}"`);
}

/** @throws BpfError with the last lines of the verifier's log */
export function loadObject(object: Pointer, path: string): void {
	const result: number = raw.objectLoad(object);
	if (result >= 0) return;
	const text = Buffer.from(koffi.view(log, LOG_BYTES));
	const end = text.indexOf(0);
	const verifier = text
		.toString("latin1", 0, end < 0 ? LOG_BYTES : end)
		.trimEnd()
		.split("\n")
		.slice(-LOG_TAIL_LINES);
	said = [...said, ...verifier].filter((line) => line !== "");
	check(result, `Cannot load BPF object "${path}"`);
}

/** A copy of the BTF of an object file. */
export function readBtf(path: string): Buffer {
	const btf = checkPointer(raw.btfParse(path, null), `Cannot read BTF of "${path}"`);
	try {
		return copyBtf(btf);
	} finally {
		raw.btfFree(btf);
	}
}

export function copyBtf(btf: Pointer): Buffer {
	const size: [number] = [0];
	const data = checkPointer(raw.btfRawData(btf, size), "Cannot read BTF");
	return Buffer.from(Buffer.from(koffi.view(data, size[0])));
}

const ONE: [number] = [0];

/** bpf_obj_get_info_by_fd: the first `size` bytes of the kernel's bpf_*_info. */
export function objectInfo(fd: number, size: number, action: string): Buffer {
	const info = Buffer.alloc(size);
	ONE[0] = size;
	check(raw.objInfo(fd, info, ONE), action);
	return info;
}

/** Of a Buffer's bytes; valid while the Buffer is. */
export function addressOf(bytes: Buffer): bigint {
	return koffi.address(bytes);
}

const SYS_BPF = process.arch === "arm64" ? 280 : 321;

/** bpf(2). @returns the result or a negative errno */
export function bpfSyscall(command: number, attributes: Buffer): number {
	const result = Number(raw.syscall(SYS_BPF, command, attributes, attributes.length));
	return result < 0 ? -koffi.errno() : result;
}

const PROT_READ_WRITE = 3;
const MAP_SHARED = 1;

/** Maps a BPF array (BPF_F_MMAPABLE) into this process; `unmap` ends it, and nothing may touch the bytes after. */
export function mapMemory(fd: number, length: number): { bytes: ArrayBuffer; unmap: () => void } {
	const address: Pointer | null = raw.mmap(null, length, PROT_READ_WRITE, MAP_SHARED, fd, 0);
	if (address === null || BigInt.asIntN(64, BigInt(address)) === -1n)
		throw new BpfError("Cannot map a BPF array into memory", koffi.errno());
	return { bytes: koffi.view(address, length), unmap: () => raw.munmap(address, length) };
}

const CLOCK_MONOTONIC_COARSE = 6;

/** Length of the kernel's tick, ns. */
export function tickNs(): bigint {
	const resolution = Buffer.alloc(16);
	if (raw.clockGetres(CLOCK_MONOTONIC_COARSE, resolution) !== 0)
		throw new BpfError("Cannot ask for the length of the kernel's tick", koffi.errno());
	return resolution.readBigInt64LE(0) * 1_000_000_000n + resolution.readBigInt64LE(8);
}
