// The worlds that are compared: the host network, a plain overlay, and an identical overlay with ONCache.
import { type LabAgent, startAgent } from "../lab/agent.js";
import { labDown, labUp } from "../lab/lab.js";
import { DEFAULT_SPEC, type Lab, type LabHost } from "../lab/topology.js";
import { BenchError } from "./error.js";
import type { Place } from "./workload.js";

export const WORLD_NAMES = ["host", "overlay", "oncache"] as const;
/** "direct": ONCache too, beside a scenario that does not call the pod's own address. */
export type WorldName = (typeof WORLD_NAMES)[number] | "direct";

export interface WorldAgent {
	host: string;
	pid: number;
	socket: string;
	/** From its start until it was ready. */
	readyMs: number;
}

export interface World {
	name: WorldName;
	client: Place;
	/** On another host. */
	server: Place;
	/** On the client's host; none where there are no pods. */
	neighbour: Place | undefined;
	/** In between. */
	hosts: LabHost[];
	agents: WorldAgent[];
}

export interface Worlds extends Record<WorldName, World> {
	/** The labs behind them. */
	plain: Lab;
	accelerated: Lab;
	close(): Promise<void>;
}

export interface WorldsOptions {
	/** The labs are called after it. */
	name: string;
	/** Those to be measured; without "oncache" no agent runs. */
	worlds: readonly WorldName[];
	/** A configuration file for the agents. */
	agentConfig?: string | undefined;
	signal: AbortSignal;
	progress: (text: string) => void;
}

/** Whatever fails, nothing is left behind. */
export async function openWorlds({ name, worlds, agentConfig, signal, progress }: WorldsOptions): Promise<Worlds> {
	const names = [`${name}-off`, `${name}-on`] as const;
	const agents: LabAgent[] = [];
	const close = async (): Promise<void> => {
		await Promise.all(agents.map((agent) => agent.stop()));
		for (const lab of names) await labDown(lab);
	};
	try {
		// What a crashed one has left is not trusted.
		for (const lab of names) await labDown(lab);
		progress("bringing two labs up");
		const [plain, accelerated] = [await up(names[0], signal), await up(names[1], signal)];
		if (worlds.includes("oncache")) {
			progress("starting one agent per host");
			const args = agentConfig === undefined ? [] : ["--config", agentConfig];
			for (const host of accelerated.hosts) agents.push(await startAgent(host, { args, signal }));
		}
		const oncache = {
			...pods(accelerated),
			agents: agents.map(({ pid, readyMs }, at) => {
				const host = hostAt(accelerated, at);
				return { host: host.name, pid, socket: host.socket, readyMs };
			}),
		};
		const ends = { client: ofHost(plain, 0), server: ofHost(plain, 1), neighbour: undefined };
		return {
			plain,
			accelerated,
			host: { name: "host", ...ends, hosts: [], agents: [] },
			overlay: { name: "overlay", ...pods(plain), agents: [] },
			oncache: { name: "oncache", ...oncache },
			direct: { name: "direct", ...oncache },
			close,
		};
	} catch (error) {
		await close();
		throw error;
	}
}

function up(name: string, signal: AbortSignal): Promise<Lab> {
	return labUp({ ...DEFAULT_SPEC, name, hosts: 2, pods: 2 }, { signal });
}

function pods(lab: Lab): Pick<World, "client" | "server" | "neighbour" | "hosts"> {
	return { client: podOf(lab, 0, 0), server: podOf(lab, 1, 0), neighbour: podOf(lab, 0, 1), hosts: lab.hosts };
}

function ofHost(lab: Lab, at: number): Place {
	const { netns, ip } = hostAt(lab, at);
	return { netns, ip };
}

function podOf(lab: Lab, at: number, number: number): Place {
	const pod = hostAt(lab, at).pods[number];
	if (pod === undefined) throw new BenchError(`Cannot measure in lab "${lab.spec.name}": a host has too few pods`);
	return { netns: pod.netns, ip: pod.ip };
}

function hostAt(lab: Lab, at: number): LabHost {
	const host = lab.hosts[at];
	if (host === undefined) throw new BenchError(`Cannot measure in lab "${lab.spec.name}": it has too few hosts`);
	return host;
}
