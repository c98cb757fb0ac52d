// A lab's life: up, found again, down. Everything it makes carries its prefix and is removed by it alone.
import { existsSync, mkdirSync, readdirSync, readFileSync, rmdirSync, rmSync, writeFileSync } from "node:fs";
import { dirname } from "node:path";
import { ONCACHE, stopRecordedAgents } from "./agent.js";
import { build } from "./build.js";
import { inNetns, run } from "./command.js";
import { stopRecordedNodes } from "./node.js";
import { stopSwitches } from "./switch.js";
import { checkSpec, DEFAULT_SPEC, type Lab, type LabSpec, labOf, nameOf, prefix, runDir } from "./topology.js";

export interface LabOptions {
	signal?: AbortSignal | undefined;
	progress?: ((text: string) => void) | undefined;
}

/** The lab's parameters differ from those of the one that is up. */
export class LabExistsError extends Error {
	override readonly name = "LabExistsError";
}

const stateFile = (name: string): string => `${runDir(name)}/lab.json`;

/**
 * Brings a lab up; one that is up already with the same parameters is left alone. What a crashed one has left is
 * removed first, and what this one has made when it fails or is aborted.
 */
export async function labUp(spec: LabSpec, options: LabOptions = {}): Promise<Lab> {
	checkSpec(spec);
	if (process.getuid?.() !== 0) throw new Error("Cannot create network namespaces: run as root");
	const known = readLab(spec.name);
	if (known && isWhole(known)) {
		if (JSON.stringify(known.spec) === JSON.stringify(spec)) return known;
		throw new LabExistsError(
			`Lab "${spec.name}" is up with other parameters (${describe(known.spec)}): take it down first (oncache lab down --name ${spec.name}) or choose another --name`,
		);
	}
	await labDown(spec.name);
	const lab = labOf(spec);
	try {
		options.progress?.(`Lab "${spec.name}": ${describe(spec)}`);
		await build(lab, options.signal);
		mkdirSync(runDir(spec.name), { recursive: true, mode: 0o700 });
		writeFileSync(stateFile(spec.name), `${JSON.stringify({ spec }, null, "\t")}\n`);
		return lab;
	} catch (error) {
		await labDown(spec.name);
		throw error;
	}
}

/** Removes a lab, or what is left of one. @returns whether there was anything */
export async function labDown(name: string): Promise<boolean> {
	await stopRecordedNodes(runDir(name));
	await stopRecordedAgents(runDir(name));
	const namespaces = namespacesOf(name);
	const bpffs = `/sys/fs/bpf/oncache-lab-${name}`;
	if (existsSync(bpffs)) for (const host of readdirSync(bpffs)) await detach(name, host);
	await stopSwitches(runDir(name));
	for (const namespace of namespaces) await run(["ip", "netns", "del", namespace], { anyCode: true });
	rmSync(bpffs, { recursive: true, force: true });
	const had = namespaces.length > 0 || existsSync(runDir(name));
	rmSync(runDir(name), { recursive: true, force: true });
	removeIfEmpty(dirname(runDir(name)));
	return had;
}

/** Pins and namespaces go with the lab. An agent that still runs, whoever started it, would pin again: it is told to end. */
async function detach(name: string, host: string): Promise<void> {
	const socket = `${runDir(name)}/${host}.sock`;
	if (!existsSync(socket)) return;
	const netns = `/run/netns/${prefix(name)}${host}`;
	const argv = [ONCACHE, "detach", "--bpffs", `/sys/fs/bpf/oncache-lab-${name}/${host}`, "--socket", socket];
	const ovs = ["env", `OVS_RUNDIR=${runDir(name)}/${host}.ovs`];
	await run(existsSync(netns) ? inNetns(netns, [...ovs, ...argv]) : argv, { anyCode: true });
}

export function readLab(name: string): Lab | undefined {
	const file = stateFile(name);
	if (!existsSync(file)) return undefined;
	const { spec } = JSON.parse(readFileSync(file, "utf8")) as { spec: LabSpec };
	// One that an earlier version has made lacks the parameters that it did not know.
	return labOf({ ...DEFAULT_SPEC, ...spec });
}

/** All its namespaces are there. */
export function isWhole(lab: Lab): boolean {
	const namespaces = new Set(namespacesOf(lab.spec.name));
	return lab.hosts.every((host) => [host, ...host.pods].every(({ netns }) => namespaces.has(nameOf(netns))));
}

/** The usual, and what is unusual about this one. */
export function describe(spec: LabSpec): string {
	const { hosts, pods, vni, port, podNetwork, overlay, family, underlay, uplink, tunnels, tunnelType } = spec;
	const isGeneve = overlay === "geneve" || (overlay === "antrea" && tunnelType === "geneve");
	const tunnel = isGeneve ? "Geneve" : "VXLAN";
	return [
		`${hosts} hosts with ${pods} ${pods === 1 ? "pod" : "pods"} each, ${tunnel} VNI ${vni}, UDP port ${port}`,
		...(overlay !== DEFAULT_SPEC.overlay ? [`overlay ${overlay}${spec.fdb === "learning" ? " (learning)" : ""}`] : []),
		...(spec.datapath !== DEFAULT_SPEC.datapath ? [`datapath ${spec.datapath}`] : []),
		...(podNetwork !== DEFAULT_SPEC.podNetwork ? [`pod network ${podNetwork}`] : []),
		...(family !== DEFAULT_SPEC.family ? [`family ${family}`] : []),
		...(underlay !== DEFAULT_SPEC.underlay ? [`underlay ${underlay}`] : []),
		...(uplink !== DEFAULT_SPEC.uplink ? [`uplink ${uplink}`] : []),
		...(tunnels > 1 ? [`${tunnels} tunnels`] : []),
		...(spec.direct ? ["direct routes"] : []),
		...(spec.udpChecksum ? ["outer UDP checksums"] : []),
	].join(", ");
}

function namespacesOf(name: string): string[] {
	const own = new RegExp(`^${prefix(name)}(h\\d+(p\\d+)?|fabric)$`);
	return existsSync("/run/netns") ? readdirSync("/run/netns").filter((namespace) => own.test(namespace)) : [];
}

/** Others' labs and agents may lie there, and something may be mounted on it. */
function removeIfEmpty(dir: string): void {
	try {
		rmdirSync(dir);
	} catch (error) {
		if (!["ENOENT", "ENOTEMPTY", "EBUSY"].includes((error as NodeJS.ErrnoException).code ?? "")) throw error;
	}
}
