// oncache lab: two or more hosts with a real overlay network, as network namespaces on this machine.
import { Command } from "commander";
import { inNetns, runAttached } from "../lab/command.js";
import { describe, isWhole, labDown, labUp, readLab } from "../lab/lab.js";
import { DATAPATHS, FAMILIES, FDBS, OVERLAYS, POD_NETWORKS, TUNNEL_TYPES, UNDERLAYS, UPLINKS } from "../lab/spec.js";
import { checkSpec, DEFAULT_SPEC, type Lab, type LabSpec, specOf } from "../lab/topology.js";
import { Failure, UsageError } from "./errors.js";
import { table } from "./output.js";
import type { CommandContext } from "./program.js";

export function labCommand({ signal }: CommandContext): Command {
	const lab = new Command("lab").description("two or more hosts with a real overlay network, as network namespaces");
	const name = ["--name <name>", "name of the lab; several run side by side", DEFAULT_SPEC.name] as const;
	lab
		.command("up")
		.description("bring it up (what is up already stays)")
		.option("--hosts <n>", "hosts, 2 to 16", Number, DEFAULT_SPEC.hosts)
		.option("--pods <n>", "pods per host, 1 to 100", Number, DEFAULT_SPEC.pods)
		.option("--overlay <kind>", `whose devices and routes: ${OVERLAYS.join(", ")}`, DEFAULT_SPEC.overlay)
		.option("--pod-network <kind>", `how pods hang on their host: ${POD_NETWORKS.join(", ")}`)
		.option("--family <family>", `of the pods' addresses: ${FAMILIES.join(", ")}`, DEFAULT_SPEC.family)
		.option("--underlay <family>", `of the outer headers: ${UNDERLAYS.join(", ")}`, DEFAULT_SPEC.underlay)
		.option("--uplink <kind>", `what the hosts' network is on: ${UPLINKS.join(", ")}`, DEFAULT_SPEC.uplink)
		.option("--fdb <kind>", `who fills a bridged overlay's table: ${FDBS.join(", ")}`, DEFAULT_SPEC.fdb)
		.option("--datapath <kind>", `of Antrea's Open vSwitch: ${DATAPATHS.join(", ")}`, DEFAULT_SPEC.datapath)
		.option("--tunnel-type <kind>", `Antrea's: ${TUNNEL_TYPES.join(", ")}`, DEFAULT_SPEC.tunnelType)
		.option("--direct", "two subnets; no tunnel within one (3 hosts or more)")
		.option("--udp-checksum", "outer UDP checksums")
		.option("--tunnels <n>", "tunnel devices per host, 1 to 4 (3 hosts or more)", Number, DEFAULT_SPEC.tunnels)
		.option("--vni <n>", "network identifier (default: the overlay's usual one)", Number)
		.option("--port <n>", "outer UDP port (default: the overlay's usual one)", Number)
		.option(...name)
		.action(async (options: Partial<LabSpec>) => {
			const spec = specOf(options);
			usable(spec);
			const had = readLab(spec.name);
			const up = await labUp(spec, { signal });
			console.log(
				had && isWhole(had) ? `Lab "${spec.name}" is up already` : `Lab "${spec.name}" is up: ${describe(spec)}`,
			);
			printLab(up);
		});
	lab
		.command("status")
		.description("what is up")
		.option(...name)
		.option("--json", "machine-readable")
		.action((options: { name: string; json?: boolean }) => {
			const found = readLab(options.name);
			if (options.json)
				console.log(JSON.stringify({ up: found !== undefined && isWhole(found), ...found }, null, "\t"));
			else if (!found) console.log(`Lab "${options.name}" is not up`);
			else {
				console.log(`Lab "${options.name}" is ${isWhole(found) ? "up" : "damaged"}: ${describe(found.spec)}`);
				printLab(found);
			}
		});
	lab
		.command("exec")
		.description("run a command on a host (h1) or in a pod (h1p2)")
		.argument("<where>", "host or pod")
		.argument("<command...>", "after --")
		.option(...name)
		.action(async (where: string, command: string[], options: { name: string }) => {
			const netns = find(existing(options.name), where);
			// Ctrl-C reaches the command itself, which shares the terminal.
			process.exitCode = await runAttached(inNetns(netns, command));
		});
	lab
		.command("down")
		.description("remove it, or what is left of one that crashed")
		.option(...name)
		.action(async (options: { name: string }) => {
			usable({ ...DEFAULT_SPEC, name: options.name });
			const had = await labDown(options.name);
			console.log(had ? `Lab "${options.name}" is down` : `Lab "${options.name}" was not up`);
		});
	lab.addHelpText(
		"after",
		`
Examples:
  oncache lab up --hosts 3 --pods 1
  oncache lab up --overlay calico --family dual
  oncache lab up --hosts 3 --direct --pod-network routed
  oncache lab exec h1p1 -- ping -c 3 10.244.2.2
  oncache lab exec h2 -- ip -s link show flannel.1
  oncache lab down`,
	);
	return lab;
}

function usable(spec: LabSpec): void {
	try {
		checkSpec(spec);
	} catch (error) {
		if (error instanceof RangeError) throw new UsageError(error.message);
		throw error;
	}
}

function existing(name: string): Lab {
	const lab = readLab(name);
	if (!lab) throw new Failure(`Lab "${name}" is not up: oncache lab up --name ${name}`);
	return lab;
}

function find(lab: Lab, where: string): string {
	const places = lab.hosts.flatMap((host) => [host, ...host.pods]);
	const place = places.find(({ name }) => name === where);
	if (!place)
		throw new UsageError(
			`Lab "${lab.spec.name}" has no "${where}": it has ${places.map(({ name }) => name).join(", ")}`,
		);
	return place.netns;
}

function printLab(lab: Lab): void {
	const rows = lab.hosts.flatMap((host) =>
		host.pods.map((pod) => ({
			host: host.name,
			underlay: host.ip,
			pod: pod.name,
			ip: pod.addresses.join(", "),
			veth: pod.veth,
		})),
	);
	console.log(
		table(rows, [
			{ title: "host", text: (row) => row.host },
			{ title: "underlay", text: (row) => row.underlay },
			{ title: "pod", text: (row) => row.pod },
			{ title: "address", text: (row) => row.ip },
			{ title: "veth", text: (row) => row.veth },
		]),
	);
}
