// The chosen tests under one kernel, and what they came to.
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { GoneError } from "./archive.js";
import type { Arguments } from "./arguments.js";
import { type Kernel, provide } from "./kernel.js";
import { makeShare, runInside } from "./machine.js";
import { record } from "./record.js";
import { describe, type FileResult, readReport } from "./report.js";
import type { Series } from "./series.js";

/** Emulation is 8 to 13 times slower, starting a process 35 times, and the machine may have other work. */
const PATIENCE = 30;
const FILE_LIMIT_MS = 5_400_000;

export interface Trial {
	/** What was booted. */
	kernel: Omit<Kernel, "dir"> | undefined;
	/** Why there was no machine, or why it ended early. */
	problem: string | undefined;
	/** The problem is nobody's fault: Debian has this series no more. */
	gone: boolean;
	files: Record<string, FileResult>;
}

export interface TrialOptions extends Arguments {
	root: string;
	signal: AbortSignal;
	/** A line for good, and one that the next replaces. */
	say(text: string): void;
	update(text: string): void;
}

/** @throws only when interrupted */
export async function tryKernel(series: Series, options: TrialOptions): Promise<Trial> {
	const { cpus, signal, root, say } = options;
	const tests = options.tests.filter(({ kernels }) => kernels?.includes(series.name) ?? true);
	const trial: Trial = { kernel: undefined, problem: undefined, gone: false, files: {} };
	const share = makeShare();
	const started = performance.now();
	const said = new Set<string>();
	const look = (): void => {
		const report = readReport(join(share.dir, "events"));
		trial.files = report.files;
		for (const [file, one] of Object.entries(report.files)) {
			if (file === report.running || said.has(file)) continue;
			said.add(file);
			say(describe(series.name, file, one));
		}
		const seconds = Math.round((performance.now() - started) / 1000);
		const at = Object.keys(report.files).length;
		options.update(`${series.name}: ${seconds} s, ${report.running ?? "booting"} (${at} of ${tests.length})`);
	};
	try {
		const fetching = { fetch: options.fetch, signal, say: (text: string) => say(`${series.name}: ${text}`) };
		const kernel = await provide(series, fetching);
		const { dir: _, ...known } = kernel;
		trial.kernel = known;
		writeFileSync(join(share.dir, "tests"), JSON.stringify(tests));
		const command = commandFor(share.inside, options);
		const code = await runInside({ kernel, share, look, cpus, signal, command, silenceMs: FILE_LIMIT_MS + 60_000 });
		look();
		if (options.record) record(root, join(share.dir, "recorded.json"));
		if (said.size < tests.length) trial.problem = `Only ${said.size} of ${tests.length} files ran (exit code ${code})`;
	} catch (error) {
		signal.throwIfAborted();
		trial.gone = error instanceof GoneError;
		trial.problem = (error as Error).message;
	} finally {
		share.remove();
	}
	return trial;
}

function commandFor(inside: string, { root, record }: TrialOptions): string {
	const environment = [
		...["HOME=/root", "PATH=$PATH", "LANG=C.UTF-8", `ONCACHE_PATIENCE=${PATIENCE}`],
		...(record ? [`ONCACHE_RECORD=${inside}/recorded.json`] : []),
	].join(" ");
	const node = `exec env -i ${environment} '${process.execPath}' dist/test/vm/inside.js`;
	return `cd '${root}' && ${node} ${inside}/events ${FILE_LIMIT_MS} ${inside}/tests </dev/null >${inside}/output 2>&1\n`;
}
