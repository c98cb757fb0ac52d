// Stands in for the two images of a registry that the Dockerfile builds on, under their names: made of Debian's packages and of
// this machine's Node. Slim as Debian's own, which leave out the documentation too.
import {
	copyFileSync,
	cpSync,
	mkdirSync,
	mkdtempSync,
	realpathSync,
	rmSync,
	symlinkSync,
	writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { run } from "../../src/lab/command.js";
import type { Buildah } from "./image.js";

export const DEBIAN = "docker.io/library/debian:bookworm-slim";
export const NODE = "docker.io/library/node:20-bookworm-slim";

const CERTIFICATES = "etc/ssl/certs/ca-certificates.crt";
const MERGED_USR = "/usr/share/mmdebstrap/hooks/merged-usr";
const LEFT_OUT = ["doc", "info", "locale", "man"].map((what) => `--dpkgopt=path-exclude=/usr/share/${what}/*`);

export async function makeBaseImages(buildah: Buildah): Promise<void> {
	const dir = mkdtempSync(join(tmpdir(), "oncache-base-"));
	try {
		const debian = join(dir, "debian.tar");
		await run([
			...["mmdebstrap", "--quiet", "--mode=root", "--variant=apt", ...LEFT_OUT],
			// Else a package that needs the whole of Perl does at the end what these do at the beginning.
			...["--include=usr-is-merged", `--hook-dir=${MERGED_USR}`],
			...["bookworm", debian],
		]);
		await commit(buildah, "scratch", debian, DEBIAN);
		await commit(buildah, DEBIAN, await nodeAndNpm(join(dir, "node")), NODE);
	} finally {
		rmSync(dir, { recursive: true });
	}
}

async function commit(buildah: Buildah, from: string, content: string, name: string): Promise<void> {
	const container = (await buildah("from", "--pull-never", from)).trim();
	await buildah("add", "--quiet", container, content, "/");
	await buildah("config", "--cmd", "bash", container);
	await buildah("commit", "--quiet", "--rm", container, name);
}

/** Where the official image has them; npm finds its registry, and whom to trust, as on this machine. */
async function nodeAndNpm(dir: string): Promise<string> {
	for (const folder of ["usr/local/bin", "usr/local/etc", "usr/local/lib/node_modules", dirname(CERTIFICATES)])
		mkdirSync(join(dir, folder), { recursive: true });
	copyFileSync(process.execPath, join(dir, "usr/local/bin/node"));
	const { stdout: npm } = await run(["sh", "-c", "command -v npm"]);
	const npmFolder = dirname(dirname(realpathSync(npm.trim())));
	cpSync(npmFolder, join(dir, "usr/local/lib/node_modules/npm"), { recursive: true });
	for (const name of ["npm", "npx"])
		symlinkSync(`../lib/node_modules/npm/bin/${name}-cli.js`, join(dir, "usr/local/bin", name));
	const { stdout: registry } = await run(["npm", "config", "get", "registry"]);
	const settings = [`registry=${registry.trim()}`, `cafile=/${CERTIFICATES}`, "omit-lockfile-registry-resolved=true"];
	writeFileSync(join(dir, "usr/local/etc/npmrc"), `${settings.join("\n")}\n`);
	copyFileSync(`/${CERTIFICATES}`, join(dir, CERTIFICATES));
	return dir;
}
