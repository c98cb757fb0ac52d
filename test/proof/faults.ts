// System calls of the agent fail, any of them, at any time (strace injects the error): the overlay works on, and either the agent
// ends and says what failed, or it runs and `status` tells the truth.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { setTimeout } from "node:timers/promises";
import type { Status } from "../../src/agent/api.js";
import { ONCACHE } from "../../src/lab/agent.js";
import { inNetns, run } from "../../src/lab/command.js";
import { labDown, labUp } from "../../src/lab/lab.js";
import { DEFAULT_SPEC, type LabHost, type LabPod } from "../../src/lab/topology.js";
import { ping, traces } from "../e2e/world.js";
import { type Proof, type ProofOptions, random } from "./proof.js";

const NAME = "prf-fault";
/** The agent under strace, from its start until it is ready or has ended. */
const START_MS = 15_000;

/** What fails: the calls that reach the kernel's networking and BPF, and those that touch the agent's files. */
const FAULTS: { call: string; errors: string[]; atMost: number; path?: string }[] = [
	{ call: "bpf", errors: ["ENOMEM", "EPERM", "ENOSPC", "EINVAL"], atMost: 140 },
	{ call: "sendto", errors: ["ENOBUFS", "ENOMEM"], atMost: 12 },
	{ call: "recvfrom", errors: ["ENOBUFS", "ENOMEM"], atMost: 25 },
	{ call: "socket", errors: ["EMFILE", "EPERM"], atMost: 8 },
	{ call: "setsockopt", errors: ["EPERM"], atMost: 14 },
	{ call: "bind", errors: ["ENOSPC", "EACCES"], atMost: 6 },
	{ call: "mkdir", errors: ["ENOSPC", "EROFS"], atMost: 4 },
	{ call: "flock", errors: ["ENOLCK"], atMost: 2 },
	{
		call: "openat",
		errors: ["EACCES", "EMFILE"],
		atMost: 1,
		path: "/proc/sys/net/netfilter/nf_conntrack_tcp_be_liberal",
	},
	{ call: "openat", errors: ["ENOSPC"], atMost: 1, path: "/run/oncache" },
];

export const faults: Proof = {
	name: "faults",
	claim: "whatever fails in the agent, the overlay works, and somebody says why",
	unit: "faults",
	small: 5,
	full: 100,
	run: proveFaults,
};

async function proveFaults({ seed, amount, signal, progress }: ProofOptions) {
	const next = random(seed);
	const failures: string[] = [];
	const outcomes: Record<string, number> = {};
	const words: string[] = [];
	await labDown(NAME);
	const lab = await labUp({ ...DEFAULT_SPEC, name: NAME }, { signal });
	const [host, other] = lab.hosts as [LabHost, LabHost];
	const [from, to] = [host.pods[0], other.pods[0]] as [LabPod, LabPod];
	try {
		const clean = await traces(host);
		for (let n = 0; n < amount; n++) {
			signal.throwIfAborted();
			const fault = FAULTS[n % FAULTS.length] as (typeof FAULTS)[number];
			const error = fault.errors[Math.floor(next() * fault.errors.length)];
			const when = 1 + Math.floor(next() * fault.atMost);
			// Once, or from then on.
			const lasting = next() < 0.3 ? "+" : "";
			const what = `${fault.call}${fault.path ? ` of ${fault.path}` : ""}: ${error} at call ${when}${lasting}`;
			progress(`${n + 1} of ${amount}: ${what}`);
			const pinging = ping(from, to, "-i", "0.05", "-c", "60", "-W", "1");
			const outcome = await startWith(host, [
				...["strace", "-D", "-f", "-qqq", "-o", "/dev/null", "-e", "signal=none", "-e", `trace=${fault.call}`],
				...(fault.path ? ["-P", fault.path] : []),
				...["-e", `inject=${fault.call}:error=${error}:when=${when}${lasting}`],
			]);
			outcomes[outcome.kind] = (outcomes[outcome.kind] ?? 0) + 1;
			if (outcome.failure) failures.push(`${what}: ${outcome.failure}`);
			if (outcome.said && words.length < 5) words.push(outcome.said);
			const { sent, received } = await pinging;
			if (received < sent) failures.push(`${what}: ${sent - received} of ${sent} pings were lost`);
			const removed = await run(place(host, "uninstall"), { anyCode: true });
			if (removed.code !== 0) failures.push(`${what}: uninstall: ${removed.stderr}`);
			const left = await traces(host);
			if (JSON.stringify(left) !== JSON.stringify(clean))
				failures.push(`${what}: something was left behind: ${JSON.stringify(left)}`);
			for (const path of [host.bpffs, host.socket])
				if (existsSync(path)) failures.push(`${what}: "${path}" was left behind`);
		}
		return { figures: { faults: amount, ...outcomes, "for example": words.join(" | ") }, failures };
	} finally {
		await labDown(NAME);
	}
}

function place(host: LabHost, command: string, ...rest: string[]): string[] {
	return inNetns(host.netns, [ONCACHE, command, "--socket", host.socket, "--bpffs", host.bpffs, ...rest]);
}

interface Outcome {
	kind: string;
	failure?: string;
	said?: string;
}

async function startWith(host: LabHost, wrapper: readonly string[]): Promise<Outcome> {
	const [file = "", ...args] = inNetns(host.netns, [
		...wrapper,
		...place(host, "agent").slice(inNetns(host.netns, []).length),
	]);
	const child = spawn(file, args, { stdio: ["ignore", "ignore", "pipe"] });
	let said = "";
	child.stderr.setEncoding("utf8").on("data", (text: string) => {
		said += text;
	});
	const ended = once(child, "close") as Promise<[number | null, string | null]>;
	const isReady = new Promise<"ready">((resolve) => {
		child.stderr.on("data", () => /"msg":"ready"/.test(said) && resolve("ready"));
	});
	const limit = new AbortController();
	const first = await Promise.race([
		ended,
		isReady,
		setTimeout(START_MS, "late" as const, { signal: limit.signal }),
	]).catch(() => "late" as const);
	limit.abort();
	if (first === "late") {
		child.kill("SIGKILL");
		await ended;
		return { kind: "stuck", failure: `neither ready nor ended after ${START_MS / 1000} s` };
	}
	if (first !== "ready") {
		const lines = said.split("\n").filter((line) => line.startsWith("oncache: "));
		const last = lines.at(-1);
		return first[0] === 1 && last
			? { kind: "ended, and said why", said: last.slice(0, 160) }
			: { kind: "ended otherwise", failure: `exit code ${first[0]}, signal ${first[1]}: ${said.slice(-300)}` };
	}
	const { code, stdout, stderr } = await run(place(host, "status", "--json"), { anyCode: true });
	child.kill("SIGTERM");
	await ended;
	// An agent that cannot read its own maps any more cannot say more than that.
	if (code !== 0)
		return /^oncache: Cannot .+/.test(stderr)
			? { kind: "ran, and status said what it could not read", said: stderr.trim().slice(0, 160) }
			: { kind: "ran", failure: `status ended with ${code}: ${stderr.slice(-300)}` };
	const { state, why } = JSON.parse(stdout) as Status;
	if (state === "accelerating") return { kind: "ran, and accelerated" };
	return why.length > 0
		? { kind: "ran, and status said why", said: why[0]?.slice(0, 160) ?? "" }
		: { kind: "ran", failure: `state ${state} without a reason` };
}
