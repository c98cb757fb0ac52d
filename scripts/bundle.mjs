// Makes the CNI plugin one file that runs anywhere with Node alone: bin/oncache-cni. CommonJS, which starts faster.
import { chmodSync, renameSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

const root = fileURLToPath(new URL("..", import.meta.url));
const outfile = join(root, "bin/oncache-cni");
const unfinished = `${outfile}.new`;

await build({
	absWorkingDir: root,
	entryPoints: ["src/cni/main.ts"],
	outfile: unfinished,
	bundle: true,
	platform: "node",
	target: "node20",
	format: "cjs",
	banner: { js: "#!/usr/bin/env node" },
	legalComments: "none",
	logLevel: "warning",
});
chmodSync(unfinished, 0o755);
// Somebody may be executing the old one.
renameSync(unfinished, outfile);
