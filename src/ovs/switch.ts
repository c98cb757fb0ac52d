// Finds the Open vSwitch bridge that carries the pods, and reads out of its database and flows what ONCache must know
// about it. An Antrea bridge is recognised by the names of its tables.
import { existsSync } from "node:fs";
import type { Ip } from "../net/ip.js";
import { findPorts, findRemotes, findTracking, parseFlows } from "./flow.js";
import { askSwitch } from "./tool.js";

/** What is not found by itself. */
export interface SwitchOptions {
	/** Where its sockets are. */
	runDir: "auto" | string;
	bridge: "auto" | string;
	/** The table in which the answer of connection tracking is known: name or number. */
	table: "auto" | string;
	/** Of connection tracking, for IPv4 and IPv6. */
	zone: "auto" | number;
	zone6: "auto" | number;
}

export const FIND_SWITCH: SwitchOptions = {
	runDir: "auto",
	bridge: "auto",
	table: "auto",
	zone: "auto",
	zone6: "auto",
};

/** A tunnel port, by the outer UDP port that its device has. */
export interface SwitchTunnel {
	kind: "geneve" | "vxlan";
	port: number;
	tosInherit: boolean;
	ttlInherit: boolean;
	udpChecksum: boolean;
}

export interface Switch {
	runDir: string;
	bridge: string;
	/** Of connection tracking, by family; undefined: not known, or one of its own for each packet. */
	zones: { ipv4: number | undefined; ipv6: number | undefined };
	/** In which ct_state is that of `zones`; undefined: not known. */
	table: string | undefined;
	tunnels: SwitchTunnel[];
	/** Where the tunnels lead to. */
	remotes: Ip[];
	/** Devices that it reads by packet sockets, in user space. */
	userspacePorts: string[];
	/** Devices whose packets also go elsewhere (mirrors), or instead (TrafficControl), and why. */
	diverted: Record<string, string>;
}

/** $OVS_RUNDIR, Debian's and most others', Antrea's on the host. */
const RUN_DIRS = [process.env.OVS_RUNDIR, "/var/run/openvswitch", "/var/run/antrea/openvswitch"];
/** Of Antrea. */
const TRACKING_TABLE = "ConntrackZone";
const ROUTING_TABLE = "L3Forwarding";
const DIVERTING_TABLE = "TrafficControl";

/** The directory of a switch that may run; undefined: there is none. */
export function findRunDir({ runDir }: Pick<SwitchOptions, "runDir">): string | undefined {
	if (runDir !== "auto") return runDir;
	return RUN_DIRS.find((dir) => dir !== undefined && dir !== "" && existsSync(`${dir}/db.sock`));
}

/**
 * O(ports + peers).
 * @returns undefined when there is no switch, or none of its bridges has a flow based tunnel or is in user space
 * @throws when there is one that does not answer, or that lacks what was configured
 */
export function readSwitch(options: SwitchOptions = FIND_SWITCH): Switch | undefined {
	const runDir = findRunDir(options);
	if (runDir === undefined) return undefined;
	const bridges = readBridges(runDir);
	const bridge =
		options.bridge === "auto"
			? (bridges.find(({ isAntrea }) => isAntrea) ?? bridges.find(({ tunnels }) => tunnels.length > 0))
			: bridges.find(({ name }) => name === options.bridge);
	if (!bridge && options.bridge !== "auto")
		throw new Error(
			`Cannot use the bridge "${options.bridge}": Open vSwitch at "${runDir}" has ${bridges.map(({ name }) => name).join(", ") || "none"}`,
		);
	const userspacePorts = bridges.flatMap(({ isUserspace, ports }) =>
		isUserspace ? ports.map(({ name }) => name) : [],
	);
	if (!bridge) return userspacePorts.length === 0 ? undefined : { ...NOBODY, runDir, userspacePorts };
	const flowsOf = (table: string) => {
		const text = tryFlows(runDir, bridge.name, table);
		return text === undefined ? [] : parseFlows(text);
	};
	const tracking = findTracking(flowsOf(TRACKING_TABLE));
	const diverting = flowsOf(DIVERTING_TABLE).filter(({ actions }) => /->(NXM_NX_REG9|reg9)\b/.test(actions));
	const diverted: Record<string, string> = {};
	for (const port of findPorts(diverting)) {
		const found = bridge.ports.find(({ name, number }) => name === port || number === port);
		if (found) diverted[found.name] = "Its switch diverts or copies its packets (TrafficControl)";
	}
	if (bridge.hasMirrors)
		for (const { name } of bridge.ports) diverted[name] = `The bridge "${bridge.name}" mirrors packets`;
	return {
		runDir,
		bridge: bridge.name,
		zones: {
			ipv4: options.zone === "auto" ? tracking?.zones.ipv4 : options.zone,
			ipv6: options.zone6 === "auto" ? tracking?.zones.ipv6 : options.zone6,
		},
		table: options.table === "auto" ? tracking?.table : options.table,
		tunnels: bridge.tunnels,
		remotes: findRemotes(flowsOf(ROUTING_TABLE)),
		userspacePorts,
		diverted,
	};
}

const NOBODY: Omit<Switch, "runDir" | "userspacePorts"> = {
	bridge: "",
	zones: { ipv4: undefined, ipv6: undefined },
	table: undefined,
	tunnels: [],
	remotes: [],
	diverted: {},
};

interface Bridge {
	name: string;
	isUserspace: boolean;
	isAntrea: boolean;
	hasMirrors: boolean;
	ports: { name: string; number: number }[];
	tunnels: SwitchTunnel[];
}

function readBridges(runDir: string): Bridge[] {
	const text = askSwitch(
		"ovs-vsctl",
		[
			...["--format=json", "--data=json", "--columns=name,datapath_type,ports,mirrors", "list", "Bridge"],
			...["--", "--columns=_uuid,interfaces", "list", "Port"],
			...["--", "--columns=_uuid,name,type,ofport,options,external_ids", "list", "Interface"],
		],
		{ runDir },
	);
	const [bridges = [], ports = [], interfaces = []] = text.trim().split("\n").map(rowsOf);
	return bridges.map((row) => {
		const own = ids(row.ports)
			.flatMap((port) => ports.filter((each) => ids(each._uuid)[0] === port))
			.flatMap((port) => ids(port.interfaces))
			.flatMap((id) => interfaces.filter((each) => ids(each._uuid)[0] === id));
		return {
			name: String(row.name),
			isUserspace: row.datapath_type === "netdev",
			isAntrea: own.some((each) => mapOf(each.external_ids).has("antrea-type")),
			hasMirrors: ids(row.mirrors).length > 0,
			ports: own.map(({ name, ofport }) => ({ name: String(name), number: Number(ofport) })),
			tunnels: own.flatMap((each) => tunnelOf(String(each.type), mapOf(each.options))),
		};
	});
}

function tunnelOf(kind: string, options: ReadonlyMap<string, string>): SwitchTunnel[] {
	if ((kind !== "geneve" && kind !== "vxlan") || options.get("remote_ip") !== "flow") return [];
	return [
		{
			kind,
			port: Number(options.get("dst_port") ?? (kind === "geneve" ? 6081 : 4789)),
			tosInherit: options.get("tos") === "inherit",
			ttlInherit: options.get("ttl") === "inherit",
			udpChecksum: options.get("csum") === "true",
		},
	];
}

/** Undefined: the bridge has no such table. */
function tryFlows(runDir: string, bridge: string, table: string): string | undefined {
	try {
		return askSwitch("ovs-ofctl", ["--names", "--no-stats", "dump-flows", bridge, `table=${table}`], { runDir });
	} catch (error) {
		if (/unknown table/.test((error as Error).message)) return undefined;
		throw error;
	}
}

/** A value of the database: an atom, or ["uuid", id], ["set", [...]], ["map", [[key, value] ...]] (RFC 7047, section 5.1). */
type Row = Record<string, unknown>;

function rowsOf(line: string): Row[] {
	const { headings, data } = JSON.parse(line) as { headings: string[]; data: unknown[][] };
	return data.map((values) => Object.fromEntries(headings.map((heading, i) => [heading, values[i]])));
}

function ids(value: unknown): string[] {
	if (!Array.isArray(value)) return [];
	return value[0] === "uuid" ? [String(value[1])] : (value[1] as unknown[]).flatMap(ids);
}

function mapOf(value: unknown): Map<string, string> {
	return new Map(Array.isArray(value) && value[0] === "map" ? (value[1] as [string, string][]) : []);
}
