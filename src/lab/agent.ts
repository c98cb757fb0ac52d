// Real agents on the lab's hosts, one process each, as a service manager would run them.
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { closeSync, existsSync, mkdirSync, openSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { request } from "node:http";
import { dirname } from "node:path";
import { setTimeout } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { inNetns } from "./command.js";
import { patiently } from "./patience.js";
import type { LabHost } from "./topology.js";

export const ONCACHE = fileURLToPath(new URL("../../../bin/oncache", import.meta.url));
const READY_LIMIT_MS = patiently(15_000);
const END_LIMIT_MS = patiently(15_000);
/** Asking costs the CPU that an agent needs to become ready. */
const POLL_MS = patiently(20);

export interface LabAgent {
	pid: number;
	/** Until /readyz answered. */
	readyMs: number;
	/** SIGTERM; what it attached keeps running. @throws Error when it had to be killed */
	stop(): Promise<void>;
	/** SIGKILL. */
	kill(): Promise<void>;
}

/** Starts `oncache agent` on a host, by `wrapper` if there is one, and waits until it is ready. */
export async function startAgent(
	host: LabHost,
	options: {
		args?: readonly string[];
		wrapper?: readonly string[];
		/** Another build's bin/oncache. */
		program?: string | undefined;
		/** To become ready: attaching to many pods takes the kernel its time. */
		limitMs?: number;
		signal?: AbortSignal | undefined;
	} = {},
): Promise<LabAgent> {
	mkdirSync(dirname(host.socket), { recursive: true, mode: 0o700 });
	const log = host.socket.replace(/\.sock$/, ".log");
	const [file = "", ...args] = inNetns(host.netns, [
		...(options.wrapper ?? []),
		options.program ?? ONCACHE,
		"agent",
		"--socket",
		host.socket,
		"--bpffs",
		host.bpffs,
		...(host.switchDir === undefined ? [] : ["--ovs-run-dir", host.switchDir]),
		...(options.args ?? []),
	]);
	const fd = openSync(log, "a");
	const started = performance.now();
	const child = spawn(file, args, { stdio: ["ignore", "ignore", fd] });
	closeSync(fd);
	const pid = child.pid;
	if (pid === undefined) throw new Error(`Cannot start an agent on ${host.name}: ${file} did not start`);
	writeFileSync(pidFile(host), `${pid}\n`);
	try {
		await becomesReady(child, host, log, options.limitMs ?? READY_LIMIT_MS, options.signal);
	} catch (error) {
		await end(child, host, "SIGKILL");
		throw error;
	}
	return {
		pid,
		readyMs: performance.now() - started,
		stop: () => end(child, host, "SIGTERM"),
		kill: () => end(child, host, "SIGKILL"),
	};
}

const pidFile = (host: LabHost): string => host.socket.replace(/\.sock$/, ".pid");

async function becomesReady(
	child: ChildProcess,
	host: LabHost,
	log: string,
	limitMs: number,
	signal?: AbortSignal,
): Promise<void> {
	const deadline = performance.now() + limitMs;
	while (!(await isReady(host.socket))) {
		signal?.throwIfAborted();
		const why =
			child.exitCode !== null || child.signalCode !== null
				? `it ended with ${child.exitCode ?? child.signalCode}`
				: performance.now() > deadline
					? `it was not ready after ${limitMs / 1000} s`
					: undefined;
		if (why) {
			const words = readFileSync(log, "utf8").trim().split("\n").slice(-5).join("\n");
			throw new Error(`Cannot start an agent on ${host.name}: ${why}\n${words}`);
		}
		await setTimeout(POLL_MS);
	}
}

async function isReady(socketPath: string): Promise<boolean> {
	if (!existsSync(socketPath)) return false;
	return new Promise((resolve) => {
		const asked = request({ socketPath, path: "/readyz", timeout: patiently(1000) }, (response) => {
			response.resume();
			resolve(response.statusCode === 200);
		});
		asked.on("error", () => resolve(false));
		asked.end();
	});
}

async function end(child: ChildProcess, host: LabHost, how: NodeJS.Signals): Promise<void> {
	let isStuck = false;
	if (child.exitCode === null && child.signalCode === null) {
		const exited = once(child, "exit");
		child.kill(how);
		const timer = globalThis.setTimeout(() => {
			isStuck = true;
			child.kill("SIGKILL");
		}, END_LIMIT_MS);
		await exited;
		clearTimeout(timer);
	}
	rmSync(pidFile(host), { force: true });
	if (isStuck)
		throw new Error(`The agent on ${host.name} did not end ${END_LIMIT_MS / 1000} s after ${how}: it was killed`);
}

/** Agents that an earlier process started and did not stop; others with the same number are left alone. */
export async function stopRecordedAgents(dir: string): Promise<void> {
	const files = existsSync(dir) ? readdirSync(dir).filter((file) => file.endsWith(".pid")) : [];
	for (const file of files) {
		const pid = Number(readFileSync(`${dir}/${file}`, "utf8"));
		const socket = `${dir}/${file.replace(/\.pid$/, ".sock")}`;
		if (isAgent(pid, socket)) process.kill(pid, "SIGTERM");
		while (isAgent(pid, socket)) await setTimeout(POLL_MS);
	}
}

function isAgent(pid: number, socket: string): boolean {
	const path = `/proc/${pid}/cmdline`;
	try {
		return readFileSync(path, "utf8").split("\0").includes(socket);
	} catch {
		return false; // no such process
	}
}
