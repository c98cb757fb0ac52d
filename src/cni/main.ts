// oncache-cni: what a container runtime executes. Environment and standard input -> standard output and exit code.
import { readSync, writeSync } from "node:fs";
import { buffer } from "node:stream/consumers";
import { runPlugin } from "./plugin.js";
import { VERSIONS } from "./version.js";

const log = (line: string): void => write(2, `oncache-cni: ${line}\n`);

if (process.env.CNI_COMMAND === undefined && process.argv.length > 2) {
	write(
		2,
		`oncache-cni: CNI plugin of ONCache, chained after the plugin that makes the interface. Versions ${VERSIONS.join(", ")}.\n` +
			'Container runtimes execute it; "oncache cni install" adds it to a node\'s network configuration.\n',
	);
	process.exit(0);
}

runPlugin({ environment: process.env, read: readInput, log }).then(({ output, exitCode }) => {
	if (output !== undefined) write(1, `${JSON.stringify(output, null, 4)}\n`);
	// At once: a socket that is still open is nobody's concern any more.
	process.exit(exitCode);
});

/** Synchronously as far as it can be: that is a few milliseconds less. */
async function readInput(): Promise<string> {
	const chunks: Buffer[] = [];
	try {
		for (;;) {
			const chunk = Buffer.alloc(64 * 1024);
			const length = readSync(0, chunk);
			if (length === 0) break;
			chunks.push(chunk.subarray(0, length));
		}
	} catch (error) {
		if ((error as NodeJS.ErrnoException).code !== "EAGAIN") throw error;
		chunks.push(await buffer(process.stdin));
	}
	return Buffer.concat(chunks).toString("utf8");
}

/** Before the process ends. The reader of a log may have gone. */
function write(fd: number, content: string): void {
	for (let rest = Buffer.from(content); rest.length > 0; )
		try {
			rest = rest.subarray(writeSync(fd, rest));
		} catch (error) {
			const { code } = error as NodeJS.ErrnoException;
			if (code === "EAGAIN") continue;
			if (fd === 2) return;
			throw error;
		}
}
