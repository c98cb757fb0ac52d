// The first file system of a virtual machine: busybox, the modules that lead to the host's files, and a script.
import { execFileSync } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import { basename, join } from "node:path";
import { run } from "../../src/lab/command.js";
import { INIT, START } from "./init.js";
import type { Kernel } from "./kernel.js";

const BUSYBOX = "/bin/busybox";
const MODULES = ["virtio_pci", "9pnet_virtio", "9p", "overlay", "virtio_rng"];
const UNPACK: Record<string, string[]> = { ".xz": ["xz", "-dc"], ".zst": ["zstd", "-dcq"], ".gz": ["gzip", "-dc"] };
const FILE = 0o100755;
const FOLDER = 0o040755;

/** Writes `initramfs` into the kernel's folder. Not compressed: it is read once, by an emulated CPU. */
export async function makeInitramfs(kernel: Kernel, signal: AbortSignal): Promise<void> {
	const modules = await modulePaths(kernel, signal);
	const entries: [string, number, Buffer][] = [
		...["bin", "modules"].map((name): [string, number, Buffer] => [name, FOLDER, Buffer.alloc(0)]),
		["bin/busybox", FILE, readFileSync(BUSYBOX)],
		["init", FILE, Buffer.from(INIT)],
		["start", FILE, Buffer.from(START)],
	];
	const names: string[] = [];
	for (const path of modules) {
		const [, name = "", packed = ""] = /([^/]+\.ko)(\.\w+)?$/.exec(path) ?? [];
		entries.push([`modules/${name}`, FILE, unpacked(path, packed)]);
		names.push(name);
	}
	entries.push(["modules/order", FILE, Buffer.from(`${names.join("\n")}\n`)]);
	writeFileSync(join(kernel.dir, "initramfs"), archive(entries));
}

/** In the order in which they have to be loaded. */
async function modulePaths({ dir, release }: Kernel, signal: AbortSignal): Promise<string[]> {
	const paths = new Set<string>();
	for (const name of MODULES) {
		const { stdout } = await run(["modprobe", "--show-depends", "-d", dir, "-S", release, name], { signal });
		for (const [, path = ""] of stdout.matchAll(/^insmod (\S+)/gm)) paths.add(path);
	}
	return [...paths];
}

function unpacked(path: string, packed: string): Buffer {
	const tool = UNPACK[packed];
	if (packed === "") return readFileSync(path);
	if (!tool) throw new Error(`Cannot unpack the kernel module ${basename(path)}: unknown compression "${packed}"`);
	const [file = "", ...args] = tool;
	return execFileSync(file, [...args, path], { maxBuffer: 1 << 26 });
}

/** The "newc" form of cpio: Documentation/driver-api/early-userspace/buffer-format.rst. */
function archive(entries: readonly (readonly [name: string, mode: number, content: Buffer])[]): Buffer {
	const padded = (...parts: Buffer[]): Buffer => {
		const bytes = Buffer.concat(parts);
		return Buffer.concat([bytes, Buffer.alloc(-bytes.length & 3)]);
	};
	const one = (name: string, mode: number, content: Buffer, inode: number): Buffer => {
		const fields = [inode, mode, 0, 0, 1, 0, content.length, 0, 0, 0, 0, name.length + 1, 0];
		const header = `070701${fields.map((value) => value.toString(16).padStart(8, "0")).join("")}${name}\0`;
		return Buffer.concat([padded(Buffer.from(header)), padded(content)]);
	};
	return Buffer.concat([
		...entries.map(([name, mode, content], at) => one(name, mode, content, at + 1)),
		one("TRAILER!!!", 0, Buffer.alloc(0), 0),
	]);
}
