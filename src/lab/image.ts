// Makes a container image without registry or engine: one layer with Debian's static busybox, and the archive around it as
// the OCI image specification (image-layout.md, manifest.md, config.md) has it.
import { createHash } from "node:crypto";
import { copyFileSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { arch, tmpdir } from "node:os";
import { join } from "node:path";
import { run } from "./command.js";

export const BUSYBOX = "oncache.test/busybox:1";
const PROGRAM = "/bin/busybox";
const DIRECTORIES = ["bin", "dev", "etc", "proc", "root", "run", "sys", "tmp", "var", "www"];
const ARCHITECTURES: Record<string, string> = { x64: "amd64", arm64: "arm64" };
const MEDIA = "application/vnd.oci.image";

/**
 * Writes {@link BUSYBOX} to `file`, a tar archive that `ctr images import` and `podman load` read. Started without a command it
 * sleeps, so that it serves as the "pause" image too.
 */
export async function writeBusyboxImage(file: string, options: { signal?: AbortSignal | undefined } = {}) {
	const dir = mkdtempSync(join(tmpdir(), "oncache-image-"));
	try {
		const layer = join(dir, "layer.tar");
		await packLayer(join(dir, "rootfs"), layer, options.signal);
		const layout = join(dir, "layout");
		mkdirSync(join(layout, "blobs/sha256"), { recursive: true });
		const add = (content: Buffer | object, mediaType: string) => {
			const bytes = Buffer.isBuffer(content) ? content : Buffer.from(JSON.stringify(content));
			const hex = createHash("sha256").update(bytes).digest("hex");
			writeFileSync(join(layout, "blobs/sha256", hex), bytes);
			return { mediaType: `${MEDIA}.${mediaType}`, digest: `sha256:${hex}`, size: bytes.length };
		};
		const root = add(readFileSync(layer), "layer.v1.tar");
		const config = add(
			{
				architecture: ARCHITECTURES[arch()],
				os: "linux",
				config: { Env: ["PATH=/bin"], Cmd: ["/bin/sleep", "2147483647"] },
				rootfs: { type: "layers", diff_ids: [root.digest] },
			},
			"config.v1+json",
		);
		const manifest = add(
			{ schemaVersion: 2, mediaType: `${MEDIA}.manifest.v1+json`, config, layers: [root] },
			"manifest.v1+json",
		);
		const annotations = { "io.containerd.image.name": BUSYBOX, "org.opencontainers.image.ref.name": BUSYBOX };
		writeFileSync(
			join(layout, "index.json"),
			JSON.stringify({ schemaVersion: 2, manifests: [{ ...manifest, annotations }] }),
		);
		writeFileSync(join(layout, "oci-layout"), JSON.stringify({ imageLayoutVersion: "1.0.0" }));
		await run(["tar", "-C", layout, "-cf", file, "oci-layout", "index.json", "blobs"], options);
	} finally {
		rmSync(dir, { recursive: true, force: true });
	}
}

async function packLayer(rootfs: string, layer: string, signal?: AbortSignal): Promise<void> {
	for (const name of DIRECTORIES) mkdirSync(join(rootfs, name), { recursive: true });
	copyFileSync(PROGRAM, join(rootfs, "bin/busybox"));
	const { stdout } = await run([PROGRAM, "--list"], { signal });
	for (const name of stdout.trim().split("\n"))
		if (name !== "busybox") symlinkSync("busybox", join(rootfs, "bin", name));
	writeFileSync(join(rootfs, "etc/passwd"), "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\n");
	writeFileSync(join(rootfs, "etc/group"), "root:x:0:\nnogroup:x:65534:\n");
	await run(["tar", "-C", rootfs, "--owner=0", "--group=0", "--numeric-owner", "-cf", layer, "."], { signal });
}
