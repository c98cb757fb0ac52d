// One virtual machine: this machine's files and tools under another kernel, until one command has ended.
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout } from "node:timers/promises";
import type { Kernel } from "./kernel.js";

const MEMORY_MB = 2048;
const POLL_MS = 250;
const CONSOLE_LINES = 30;
/** `tsc=reliable`: 6.1 with two emulated CPUs would otherwise fall back to a slow clock. */
const COMMAND_LINE = "console=ttyS0 panic=-1 tsc=reliable";

/** The folder that the machine and this process share. In the machine it is /run/vm. */
export interface Share {
	dir: string;
	/** Where the machine sees it. */
	inside: string;
	remove(): void;
}

export function makeShare(): Share {
	const dir = mkdtempSync(join(tmpdir(), "oncache-vm-"));
	return { dir, inside: "/run/vm", remove: () => rmSync(dir, { recursive: true, force: true }) };
}

export interface RunOptions {
	kernel: Kernel;
	share: Share;
	/** For sh; no terminal unless `interactive`. */
	command: string;
	cpus: number;
	/** The serial console is this terminal. */
	interactive?: boolean;
	/** The machine is ended when nothing appeared in the share for so long. */
	silenceMs?: number;
	signal: AbortSignal;
	/** Called a few times per second. */
	look?(): void;
}

/** @returns the command's exit code @throws Error with the end of the console when the machine died before */
export async function runInside(options: RunOptions): Promise<number> {
	const { share, signal, kernel, silenceMs = Number.POSITIVE_INFINITY } = options;
	writeFileSync(join(share.dir, "command"), options.command);
	const child = start(options);
	const kill = (): boolean => child.kill("SIGKILL");
	process.once("exit", kill);
	signal.addEventListener("abort", kill);
	const gone = once(child, "exit");
	let silent = false;
	try {
		while (child.exitCode === null && child.signalCode === null) {
			await Promise.race([gone, setTimeout(POLL_MS)]);
			options.look?.();
			silent = Date.now() - lastSign(share) > silenceMs;
			if (silent) kill();
		}
	} finally {
		process.off("exit", kill);
		signal.removeEventListener("abort", kill);
	}
	signal.throwIfAborted();
	const code = join(share.dir, "code");
	if (existsSync(code)) return Number(readFileSync(code, "utf8"));
	const why = silent ? `said nothing for ${silenceMs / 1000} s` : "ended before its command did";
	throw new Error(`The virtual machine with ${kernel.release} ${why}. End of its console:\n${consoleOf(share)}`);
}

function start({ kernel, share, cpus, interactive }: RunOptions): ChildProcess {
	const shares = [
		{ id: "root", path: "/", more: ",readonly=on,multidevs=remap" },
		{ id: "modules", path: join(kernel.dir, "lib/modules", kernel.release), more: ",readonly=on" },
		{ id: "out", path: share.dir, more: "" },
	];
	const argv = [
		...["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"],
		...["-M", "q35", "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", `${cpus}`, "-m", `${MEMORY_MB}`],
		...["-kernel", join(kernel.dir, "vmlinuz"), "-initrd", join(kernel.dir, "initramfs")],
		...["-append", `${COMMAND_LINE} ${interactive ? "quiet" : ""}`],
		...["-serial", interactive ? "mon:stdio" : `file:${consolePath(share)}`, "-device", "virtio-rng-pci"],
		...shares.flatMap(({ id, path, more }) => [
			...["-fsdev", `local,id=${id},path=${path},security_model=none${more}`],
			...["-device", `virtio-9p-pci,fsdev=${id},mount_tag=${id}`],
		]),
	];
	// Should this process be killed, the machine goes with it.
	return spawn("setpriv", ["--pdeathsig", "KILL", "qemu-system-x86_64", ...argv], {
		stdio: [interactive ? "inherit" : "ignore", interactive ? "inherit" : "ignore", "inherit"],
	});
}

const consolePath = (share: Share): string => join(share.dir, "console");

function consoleOf(share: Share): string {
	const lines = existsSync(consolePath(share)) ? readFileSync(consolePath(share), "utf8").trim().split(/\r?\n/) : [];
	return lines
		.slice(-CONSOLE_LINES)
		.map((line) => `  ${line}`)
		.join("\n");
}

function lastSign(share: Share): number {
	const times = ["command", "console", "output", "events"].map((name) => {
		const path = join(share.dir, name);
		return existsSync(path) ? statSync(path).mtimeMs : 0;
	});
	return Math.max(...times);
}
