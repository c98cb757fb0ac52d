// Very many short connections, and what connection tracking in both hosts makes of them: with ONCache it must be what it is
// with the plain overlay, because the packets that open and close a connection never take the fast path.
import type { ChildProcess } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { nginxConfig, parseAb } from "../../src/bench/connect.js";
import { openWorlds, type World, type Worlds } from "../../src/bench/worlds.js";
import { inNetns, run } from "../../src/lab/command.js";
import { background, end, eventually, inside } from "../e2e/world.js";
import type { Proof, ProofOptions, ProofResult } from "./proof.js";

const NAME = "p-conn";
const NAMES = ["overlay", "oncache"] as const;
const BATCHES = 5;
const AT_ONCE = 32;
const HTTP_PORT = 8000;
/** Connections of a few minutes share so many tuples: nf_conntrack_max, which is the machine's, is not reached. */
const CLIENT_PORTS = "10000 59999";
const TOLERANCE = 0.03;
/** Of each batch ab has opened some connections more than it needed. */
const SLACK = BATCHES * AT_ONCE;
const SAMPLE_MS = 250;
const UDP_PORTS = 32;
const UDP_SOCKETS_MAX = 320;
const UDP_TIMEOUT_S = 3;
const OUTER_PORT = 8472;
/** Nobody's load outlives a proof that was killed by more than this. */
const BOUND_S = 900;

/** Entries by TCP state; UDP of pods as "udp", of the tunnel itself as "tunnel". */
type Tally = Record<string, number>;

export const connections: Proof = {
	name: "connections",
	claim: "connection tracking is what it is without ONCache, however many connections come and go",
	unit: "connections",
	small: 3000,
	full: 1_000_000,
	run: async (options) => {
		const dir = mkdtempSync(join(tmpdir(), "oncache-connections-"));
		let worlds: Worlds | undefined;
		try {
			worlds = await openWorlds({ name: NAME, worlds: NAMES, ...options });
			return await compare(worlds, dir, options);
		} finally {
			await worlds?.close();
			rmSync(dir, { recursive: true });
		}
	},
};

async function compare(worlds: Worlds, dir: string, options: ProofOptions): Promise<ProofResult> {
	const seen = { overlay: new Seen(), oncache: new Seen() };
	await shortConnections(worlds, dir, seen, options);
	const settled = { overlay: seen.overlay.settled, oncache: seen.oncache.settled };
	const failures = [
		...worlds.oncache.hosts.flatMap((_, at) =>
			differences(`host ${at + 1} at the end`, settled.overlay[at] ?? {}, settled.oncache[at] ?? {}),
		),
		...seen.oncache.failuresBeside(seen.overlay),
	];
	const udp = await udpFlows(worlds, options, failures);
	const connectionsPerSecond = (name: (typeof NAMES)[number]): number =>
		Math.round(options.amount / seen[name].seconds);
	return {
		figures: {
			"connections a second": `overlay ${connectionsPerSecond("overlay")}, ONCache ${connectionsPerSecond("oncache")}`,
			"most entries in a host, during": `overlay ${seen.overlay.most}, ONCache ${seen.oncache.most}`,
			"most in ESTABLISHED, during": `overlay ${seen.overlay.established}, ONCache ${seen.oncache.established}`,
			...Object.fromEntries(
				NAMES.flatMap((name) =>
					settled[name].map((tally, at) => [`${name}, host ${at + 1}, all closed`, describe(tally)]),
				),
			),
			...udp,
		},
		failures,
	};
}

/** Batch by batch in turn, so that entries are of the same age in both. */
async function shortConnections(
	worlds: Worlds,
	dir: string,
	seen: Record<(typeof NAMES)[number], Seen>,
	{ amount, signal, progress }: ProofOptions,
): Promise<void> {
	const servers: ChildProcess[] = [];
	try {
		for (const name of NAMES) {
			const { client } = worlds[name];
			await inside(client, "sysctl", "-qw", `net.ipv4.ip_local_port_range=${CLIENT_PORTS}`);
			servers.push(await serve(worlds[name], dir, name));
		}
		for (let batch = 0; batch < BATCHES; batch++)
			for (const name of NAMES) {
				progress(`batch ${batch + 1} of ${BATCHES}, ${name}`);
				await seen[name].watch(worlds[name], Math.ceil(amount / BATCHES), signal);
				// At once: entries of the tunnel's packets are gone after 30 s.
				if (batch === BATCHES - 1) seen[name].settled = await settle(worlds[name]);
			}
	} finally {
		await Promise.all(servers.map(end));
	}
}

async function serve({ server }: World, dir: string, name: string): Promise<ChildProcess> {
	const home = mkdtempSync(join(dir, `${name}-`));
	const file = join(home, "nginx.conf");
	writeFileSync(file, nginxConfig(home, server.ip, HTTP_PORT));
	const nginx = ["timeout", "--foreground", String(BOUND_S), "nginx", "-p", home, "-e", "stderr", "-c", file];
	const child = await background(server, nginx);
	await eventually("nginx listens", async () => (await inside(server, "ss", "-Hltn")).includes(`:${HTTP_PORT}`));
	return child;
}

/** What was seen of a world while connections came and went. */
class Seen {
	seconds = 0;
	most = 0;
	established = 0;
	/** By host, when all connections were closed. */
	settled: Tally[] = [];

	async watch(world: World, count: number, signal: AbortSignal): Promise<void> {
		const { client, server, hosts } = world;
		const url = `http://${server.ip}:${HTTP_PORT}/`;
		const ab = [
			"timeout",
			"--foreground",
			String(BOUND_S),
			"ab",
			"-q",
			"-n",
			String(count),
			"-c",
			String(AT_ONCE),
			url,
		];
		const started = performance.now();
		let isOver = false;
		const load = run(inNetns(client.netns, ab), { signal }).finally(() => {
			isOver = true;
		});
		const looking = (async () => {
			for (let number = 0; !isOver; number++) {
				// A whole table is a lot to print.
				await this.#look(netnsOf(hosts), number % 20 === 0);
				await Promise.race([setTimeout(SAMPLE_MS), load.catch(() => {})]);
			}
		})();
		const [{ stdout }] = await Promise.all([load, looking]);
		this.seconds += (performance.now() - started) / 1000;
		parseAb(stdout); // throws when a request failed
		await this.#look(netnsOf(hosts), false);
	}

	async #look(hosts: string[], byState: boolean): Promise<void> {
		for (const netns of hosts) {
			this.most = Math.max(this.most, Number(await inside({ netns }, "conntrack", "-C")));
			if (byState) this.established = Math.max(this.established, (await tally(netns)).ESTABLISHED ?? 0);
		}
	}

	failuresBeside(plain: Seen): string[] {
		return [
			...(isAbout(this.most, plain.most) ? [] : [`up to ${this.most} entries, ${plain.most} without ONCache`]),
			// A table is not printed in one moment: what is open is seen more often, or less.
			...(this.established <= 2 * plain.established + SLACK
				? []
				: [`up to ${this.established} in ESTABLISHED, ${plain.established} without ONCache`]),
		];
	}
}

/** Waits until nothing is being opened or closed. */
const netnsOf = (hosts: World["hosts"]): string[] => hosts.map(({ netns }) => netns);

async function settle({ hosts }: World): Promise<Tally[]> {
	let tallies: Tally[] = [];
	await eventually("no connection is open", async () => {
		tallies = await Promise.all(netnsOf(hosts).map(tally));
		return tallies.every((states) => OPEN.every((state) => states[state] === undefined));
	}).catch(() => {}); // what is left is told by differences()
	return tallies;
}

const OPEN = ["SYN_SENT", "SYN_SENT2", "SYN_RECV", "ESTABLISHED", "FIN_WAIT", "CLOSE_WAIT", "LAST_ACK"];

async function tally(netns: string): Promise<Tally> {
	const lines = (await inside({ netns }, "conntrack", "-L")).split("\n").filter((line) => line !== "");
	const counts: Tally = {};
	for (const line of lines) {
		const [protocol = "", , , state = ""] = line.split(/\s+/);
		const kind =
			protocol === "tcp"
				? state
				: protocol !== "udp"
					? undefined
					: line.includes(`dport=${OUTER_PORT} `)
						? "tunnel"
						: "udp";
		if (kind !== undefined) counts[kind] = (counts[kind] ?? 0) + 1;
	}
	return counts;
}

function isAbout(count: number, other: number): boolean {
	return Math.abs(count - other) <= Math.max(SLACK, TOLERANCE * other);
}

function differences(where: string, plain: Tally, accelerated: Tally): string[] {
	return [...new Set([...Object.keys(plain), ...Object.keys(accelerated)])]
		.map((kind) => ({ kind, was: plain[kind] ?? 0, is: accelerated[kind] ?? 0 }))
		.filter(({ kind, was, is }) => !isAbout(is, was) || (OPEN.includes(kind) && is > was))
		.map(({ kind, was, is }) => `${where}: ${is} entries in ${kind}, ${was} without ONCache`);
}

function describe(tally: Tally): string {
	return Object.entries(tally)
		.sort(([a], [b]) => a.localeCompare(b))
		.map(([kind, count]) => `${kind} ${count}`)
		.join(", ");
}

/** Each flow is a request and an answer; its entries come, and go when their time is over. */
async function udpFlows(
	worlds: Worlds,
	{ amount, signal, progress }: ProofOptions,
	failures: string[],
): Promise<Record<string, string>> {
	const sockets = Math.min(UDP_SOCKETS_MAX, Math.ceil(amount / UDP_PORTS));
	const flows = sockets * UDP_PORTS;
	const counts: string[] = [];
	for (const name of NAMES) {
		progress(`UDP flows, ${name}`);
		const { client, server, hosts } = worlds[name];
		for (const netns of netnsOf(hosts))
			for (const timeout of ["udp_timeout", "udp_timeout_stream"])
				await inside({ netns }, "sysctl", "-qw", `net.netfilter.nf_conntrack_${timeout}=${UDP_TIMEOUT_S}`);
		const program = ["timeout", "--foreground", String(BOUND_S), process.execPath, DATAGRAMS];
		const answering = await background(server, [...program, "answer", server.ip, String(UDP_PORTS)], /listening/);
		try {
			const ask = [...program, "ask", client.ip, server.ip, ...[UDP_PORTS, sockets, 64, 0].map(String)];
			await run(inNetns(client.netns, ask), { signal });
			const seen = await Promise.all(netnsOf(hosts).map(async (netns) => (await tally(netns)).udp ?? 0));
			if (!seen.every((count) => isAbout(count, flows)))
				failures.push(`UDP, ${name}: ${seen.join(" and ")} entries in the hosts for ${flows} flows`);
			counts.push(`${name} ${seen.join(" and ")}`);
			await eventually(`the entries of UDP flows go, ${name}`, async () =>
				(await Promise.all(netnsOf(hosts).map(tally))).every(({ udp }) => udp === undefined),
			).catch((error: Error) => failures.push(error.message));
		} finally {
			await end(answering);
		}
	}
	return { [`UDP, entries in the hosts for ${flows} flows`]: counts.join(", ") };
}

const DATAGRAMS = fileURLToPath(new URL("./datagrams.js", import.meta.url));
