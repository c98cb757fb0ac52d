// Kernels in the cache folder, ready to boot: unpacked, with an index of their modules and an initramfs.
import {
	existsSync,
	mkdirSync,
	mkdtempSync,
	readdirSync,
	readFileSync,
	renameSync,
	rmSync,
	writeFileSync,
} from "node:fs";
import { homedir } from "node:os";
import { join } from "node:path";
import { run } from "../../src/lab/command.js";
import { download } from "./archive.js";
import { makeInitramfs } from "./initramfs.js";
import type { Series } from "./series.js";

export const CACHE = join(process.env.XDG_CACHE_HOME || join(homedir(), ".cache"), "oncache", "kernels");

export interface Kernel {
	/** As `uname -r` says. */
	release: string;
	suite: string;
	/** Of the Debian package. */
	version: string;
	/** Folder of this kernel: vmlinuz, initramfs, lib/modules/RELEASE. */
	dir: string;
}

/** What the cache has of a series. */
export function cached(series: Series): Kernel | undefined {
	const dir = join(CACHE, series.name);
	const note = join(dir, "kernel.json");
	return existsSync(note) ? { ...(JSON.parse(readFileSync(note, "utf8")) as Omit<Kernel, "dir">), dir } : undefined;
}

/** From the cache, else from Debian. @throws GoneError when Debian has none any more */
export async function provide(
	series: Series,
	options: { fetch: boolean; signal: AbortSignal; say(text: string): void },
): Promise<Kernel> {
	let kernel = options.fetch ? undefined : cached(series);
	if (!kernel) {
		mkdirSync(CACHE, { recursive: true });
		const work = mkdtempSync(join(CACHE, ".new-"));
		try {
			options.say("downloading from Debian");
			const { debs, ...found } = await download(series, join(work, "apt"), options.signal);
			options.say(`unpacking ${found.release}`);
			const dir = join(work, "kernel");
			for (const deb of debs) await run(["dpkg-deb", "-x", deb, join(work, "unpacked")], { signal: options.signal });
			arrange(join(work, "unpacked"), dir, found.release);
			await run(["depmod", "-b", dir, found.release], { signal: options.signal });
			writeFileSync(join(dir, "kernel.json"), `${JSON.stringify(found, null, "\t")}\n`);
			rmSync(join(CACHE, series.name), { recursive: true, force: true });
			renameSync(dir, join(CACHE, series.name));
			kernel = { ...found, dir: join(CACHE, series.name) };
		} finally {
			rmSync(work, { recursive: true, force: true });
		}
	}
	await makeInitramfs(kernel, options.signal);
	return kernel;
}

/** One layout for all: older packages have /lib/modules and /boot/vmlinuz-RELEASE, newer ones all in /usr/lib/modules. */
function arrange(unpacked: string, dir: string, release: string): void {
	const modules = ["lib/modules", "usr/lib/modules"].map((path) => join(unpacked, path, release)).find(existsSync);
	if (!modules) throw new Error(`Cannot use the kernel package of ${release}: it has no modules`);
	const boot = join(unpacked, "boot");
	const images = existsSync(boot) ? readdirSync(boot).filter((name) => name.startsWith("vmlinuz")) : [];
	const image = [join(modules, "vmlinuz"), ...images.map((name) => join(boot, name))].find(existsSync);
	if (!image) throw new Error(`Cannot use the kernel package of ${release}: it has no vmlinuz`);
	mkdirSync(join(dir, "lib/modules"), { recursive: true });
	renameSync(image, join(dir, "vmlinuz"));
	renameSync(modules, join(dir, "lib/modules", release));
}
