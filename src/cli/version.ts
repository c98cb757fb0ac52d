// `oncache version`: of the program and of what it stands on.
import { readFileSync } from "node:fs";
import { release } from "node:os";
import { Command } from "commander";

/** As package.json has it; this file runs as dist/src/cli/version.js. */
export function programVersion(): string {
	const text = readFileSync(new URL("../../../package.json", import.meta.url), "utf8");
	return (JSON.parse(text) as { version: string }).version;
}

export function versionCommand(): Command {
	return new Command("version")
		.description("Print the versions of ONCache, the kernel and Node")
		.option("--json", "print JSON")
		.action(({ json }: { json?: boolean }) => {
			const versions = { oncache: programVersion(), kernel: release(), node: process.versions.node };
			if (json) console.log(JSON.stringify(versions, null, 2));
			else for (const [name, version] of Object.entries(versions)) console.log(`${name.padEnd(8)} ${version}`);
		});
}
