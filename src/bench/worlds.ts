// The worlds that are compared: the host network, a plain overlay, an identical overlay with ONCache, and, if that is
// wanted, another one with the ONCache of another build.
import { join } from "node:path";
import { type LabAgent, startAgent } from "../lab/agent.js";
import { labDown, labUp } from "../lab/lab.js";
import { type Lab, type LabHost, type LabSpec, specOf } from "../lab/topology.js";
import { BenchError } from "./error.js";
import type { Place } from "./workload.js";

export const WORLD_NAMES = ["host", "overlay", "oncache"] as const;
/**
 * "direct": ONCache too, beside a scenario that does not call the pod's own address. "baseline": the ONCache of another
 * build.
 */
export type WorldName = (typeof WORLD_NAMES)[number] | "direct" | "baseline";

/** The labs in which there is something to measure. */
export const LABS = {
	flannel: {},
	dual: { family: "dual" },
	geneve: { overlay: "geneve" },
	antrea: { overlay: "antrea" },
	"ovs-userspace": { overlay: "antrea", datapath: "netdev" },
} as const satisfies Record<string, Partial<LabSpec>>;
export type LabName = keyof typeof LABS;

/** With all its addresses, of which `ip` is the first. */
export interface Site extends Place {
	addresses: string[];
}

export interface WorldAgent {
	host: string;
	pid: number;
	socket: string;
	/** From its start until it was ready. */
	readyMs: number;
}

export interface World {
	name: WorldName;
	client: Site;
	/** On another host. */
	server: Site;
	/** On the client's host; none where there are no pods. */
	neighbour: Site | undefined;
	/** In between. */
	hosts: LabHost[];
	agents: WorldAgent[];
}

export interface Worlds extends Record<Exclude<WorldName, "baseline">, World> {
	/** Only when there is such a build. */
	baseline: World | undefined;
	/** The labs behind them. */
	plain: Lab;
	accelerated: Lab;
	close(): Promise<void>;
}

export interface WorldsOptions {
	/** The labs are called after it. */
	name: string;
	/** Unless said otherwise the usual one. */
	lab?: LabName;
	/** Those to be measured; without "oncache" no agent runs. */
	worlds: readonly WorldName[];
	/** A configuration file for the agents. */
	agentConfig?: string | undefined;
	/** Where the other build is. */
	baseline?: string | undefined;
	signal: AbortSignal;
	progress: (text: string) => void;
}

/** Whatever fails, nothing is left behind. @throws UnsupportedLabError when this kernel cannot make such a lab */
export async function openWorlds(options: WorldsOptions): Promise<Worlds> {
	const { name, lab = "flannel", worlds, baseline, signal, progress } = options;
	const names = [`${name}-off`, `${name}-on`, `${name}-base`] as const;
	const agents: LabAgent[] = [];
	const close = async (): Promise<void> => {
		await Promise.all(agents.map((agent) => agent.stop()));
		for (const lab of names) await labDown(lab);
	};
	try {
		// What a crashed one has left is not trusted.
		for (const lab of names) await labDown(lab);
		progress("bringing the labs up");
		const up = (labName: string): Promise<Lab> =>
			labUp({ ...specOf({ ...LABS[lab], hosts: 2, pods: 2 }), name: labName }, { signal });
		const [plain, accelerated] = [await up(names[0]), await up(names[1])];
		const other = baseline === undefined ? undefined : await up(names[2]);
		const startAgents = async ({ hosts }: Lab, program?: string): Promise<WorldAgent[]> => {
			progress("starting one agent per host");
			const args = options.agentConfig === undefined ? [] : ["--config", options.agentConfig];
			const started: WorldAgent[] = [];
			for (const host of hosts) {
				const agent = await startAgent(host, { args, program, signal });
				agents.push(agent);
				started.push({ host: host.name, pid: agent.pid, socket: host.socket, readyMs: agent.readyMs });
			}
			return started;
		};
		const oncache = { ...pods(accelerated), agents: worlds.includes("oncache") ? await startAgents(accelerated) : [] };
		const program = baseline === undefined ? undefined : programOf(baseline);
		const based = other && { ...pods(other), agents: await startAgents(other, program) };
		const ends = { client: ofHost(plain, 0), server: ofHost(plain, 1), neighbour: undefined };
		return {
			plain,
			accelerated,
			host: { name: "host", ...ends, hosts: [], agents: [] },
			overlay: { name: "overlay", ...pods(plain), agents: [] },
			oncache: { name: "oncache", ...oncache },
			direct: { name: "direct", ...oncache },
			baseline: based && { name: "baseline", ...based },
			close,
		};
	} catch (error) {
		await close();
		throw error;
	}
}

export const programOf = (build: string): string => join(build, "bin/oncache");

function pods(lab: Lab): Pick<World, "client" | "server" | "neighbour" | "hosts"> {
	return { client: podOf(lab, 0, 0), server: podOf(lab, 1, 0), neighbour: podOf(lab, 0, 1), hosts: lab.hosts };
}

function ofHost(lab: Lab, at: number): Site {
	const { netns, ip, nodeIps } = hostAt(lab, at);
	return { netns, ip, addresses: Object.values(nodeIps) };
}

function podOf(lab: Lab, at: number, number: number): Site {
	const pod = hostAt(lab, at).pods[number];
	if (pod === undefined) throw new BenchError(`Cannot measure in lab "${lab.spec.name}": a host has too few pods`);
	return { netns: pod.netns, ip: pod.ip, addresses: pod.addresses };
}

function hostAt(lab: Lab, at: number): LabHost {
	const host = lab.hosts[at];
	if (host === undefined) throw new BenchError(`Cannot measure in lab "${lab.spec.name}": it has too few hosts`);
	return host;
}
