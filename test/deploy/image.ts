// Builds the agent's image from deploy/Dockerfile, without an engine: Debian's buildah. What was built from the same files is
// taken from the cache folder; of others, the layers that are the same.
import { createHash } from "node:crypto";
import {
	existsSync,
	mkdirSync,
	mkdtempSync,
	readdirSync,
	readFileSync,
	renameSync,
	rmSync,
	statfsSync,
	statSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { basename, join, relative } from "node:path";
import { fileURLToPath } from "node:url";
import { run } from "../../src/lab/command.js";
import { DEBIAN, makeBaseImages, NODE } from "./base.js";
import { CACHE } from "./cache.js";

/** Runs one of its commands. @returns what it says */
export type Buildah = (...args: string[]) => Promise<string>;

const ROOT = fileURLToPath(new URL("../../..", import.meta.url));
/** With the base images, as they are made now. */
const STORAGE = join(CACHE, `storage-${hashOf([fileURLToPath(new URL("./base.js", import.meta.url))])}`);
const OVERLAYFS_MAGIC = 0x794c7630;
/** Some gigabytes. */
const LAYERS_LIMIT = 60;
const ARCHIVES_LIMIT = 4;

/** @returns a Docker archive with the image under `name` */
export async function buildImage(name: string): Promise<string> {
	const archive = join(CACHE, `image-${hashOfContent(name)}.tar`);
	if (existsSync(archive)) return archive;
	mkdirSync(CACHE, { recursive: true });
	tidy();
	// The kernel allows no overlayfs upon another.
	const driver = statfsSync(CACHE).type === OVERLAYFS_MAGIC ? "vfs" : "overlay";
	const runroot = mkdtempSync(join(tmpdir(), "oncache-buildah-"));
	const buildah: Buildah = async (...args) => {
		const place = ["--root", STORAGE, "--runroot", runroot, "--storage-driver", driver];
		return (await run(["buildah", ...place, ...args])).stdout;
	};
	try {
		const known = await buildah("images", "--format", "{{.Name}}:{{.Tag}}");
		if (![DEBIAN, NODE].every((base) => known.split("\n").includes(base))) await makeBaseImages(buildah);
		await buildah(
			...["bud", "--isolation", "chroot", "--pull-never", "--layers", "--ignorefile", join(ROOT, ".dockerignore")],
			...["--file", join(ROOT, "deploy/Dockerfile"), "--tag", name, ROOT],
		);
		const unfinished = `${archive}.${process.pid}`;
		await buildah("push", "--quiet", name, `docker-archive:${unfinished}:${name}`);
		renameSync(unfinished, archive);
	} finally {
		rmSync(runroot, { recursive: true, force: true });
	}
	return archive;
}

/** Leaves the newest archives, since another run may be about to read one, and layers of now that are not too many. */
function tidy(): void {
	const paths = readdirSync(CACHE).map((name) => join(CACHE, name));
	const archives = paths.filter((path) => basename(path).startsWith("image-"));
	const byAge = archives.sort((one, other) => statSync(other).mtimeMs - statSync(one).mtimeMs);
	const storages = paths.filter((path) => basename(path).startsWith("storage-"));
	for (const path of [
		...byAge.slice(ARCHIVES_LIMIT - 1),
		...storages.filter((path) => path !== STORAGE || layersIn(path) > LAYERS_LIMIT),
	])
		rmSync(path, { recursive: true });
}

function layersIn(storage: string): number {
	const folders = ["overlay", "vfs"].map((driver) => join(storage, driver)).filter((folder) => existsSync(folder));
	return folders.reduce((count, folder) => count + readdirSync(folder).length, 0);
}

/** Of what .dockerignore lets in, and what makes the image of it. */
function hashOfContent(name: string): string {
	const list = (folder: string) =>
		readdirSync(join(ROOT, folder), { recursive: true, encoding: "utf8" }).map((path) => join(folder, path));
	const files = [
		...["deploy/Dockerfile", ".dockerignore", "LICENSE", "package.json", "package-lock.json", "tsconfig.json"],
		...["bin/oncache", "bin/package.json", "bpf/Makefile", "scripts/bundle.mjs"],
		...list("src").filter((path) => /(?<!\.test)\.ts$/.test(path)),
		...list("bpf").filter((path) => /\.[ch]$/.test(path)),
	].map((file) => join(ROOT, file));
	return hashOf([fileURLToPath(import.meta.url), ...files.sort()], name + basename(STORAGE));
}

function hashOf(files: readonly string[], more = ""): string {
	const hash = createHash("sha256").update(more);
	for (const file of files) hash.update(`\0${relative(ROOT, file)}\0`).update(readFileSync(file));
	return hash.digest("hex").slice(0, 32);
}
