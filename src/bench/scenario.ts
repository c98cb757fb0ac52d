// What can be measured, as a table. One line more here is one scenario more everywhere.
import type { Family } from "../lab/topology.js";
import { connectRequestResponse } from "./connect.js";
import type { Destination } from "./destination.js";
import { requestResponse6 } from "./qperf.js";
import { requestResponse } from "./request-response.js";
import { stream } from "./stream.js";
import type { Workload } from "./workload.js";
import { type LabName, WORLD_NAMES, type WorldName } from "./worlds.js";

export interface Scenario {
	name: string;
	title: string;
	workload: Workload;
	/** "one": both ends share a CPU, which makes it a measure of work. */
	cpus: "one" | "two";
	destination: Destination;
	/** Where it happens. */
	lab: LabName;
	family: Family;
	worlds: readonly WorldName[];
	/** "required": a run with too many packets on the fallback is not ONCache. "reported": it is the point of it. */
	fastPath: "required" | "reported";
	/** Connection tracking does not see its flows: acceleration is attached, and learns nothing. */
	untracked: boolean;
}

const cached = {
	destination: "pod",
	lab: "flannel",
	family: 4,
	worlds: WORLD_NAMES,
	fastPath: "required",
	untracked: false,
} as const;
const service = { ...cached, destination: "service", worlds: ["overlay", "direct", "oncache"] } as const;
const ipv6 = { ...cached, lab: "dual", family: 6 } as const;
const geneve = { ...cached, lab: "geneve" } as const;
const antrea = { ...cached, lab: "antrea", worlds: ["overlay", "oncache"] } as const;
const userspace = { ...antrea, lab: "ovs-userspace", fastPath: "reported" } as const;
const neighbour = { ...cached, destination: "neighbour", worlds: ["overlay", "oncache"] } as const;
const missing = { ...cached, worlds: ["overlay", "oncache"], fastPath: "reported", untracked: true } as const;

export const SCENARIOS: readonly Scenario[] = [
	{ name: "tcp-rr", title: "TCP request/response", workload: requestResponse("tcp"), cpus: "one", ...cached },
	{ name: "udp-rr", title: "UDP request/response", workload: requestResponse("udp"), cpus: "one", ...cached },
	{ name: "tcp-stream", title: "TCP stream", workload: stream("tcp"), cpus: "two", ...cached },
	{ name: "udp-stream", title: "UDP stream, 1400 bytes", workload: stream("udp"), cpus: "two", ...cached },
	{
		name: "tcp-crr",
		title: "TCP connect, request, response, close",
		workload: connectRequestResponse,
		cpus: "one",
		...cached,
		fastPath: "reported",
	},
	{
		name: "tcp-rr-service",
		title: "TCP request/response through a ClusterIP",
		workload: requestResponse("tcp"),
		cpus: "one",
		...service,
	},
	{
		name: "udp-rr-service",
		title: "UDP request/response through a ClusterIP",
		workload: requestResponse("udp"),
		cpus: "one",
		...service,
	},
	{
		name: "tcp-rr-local",
		title: "TCP request/response between pods of one host",
		workload: requestResponse("tcp"),
		cpus: "one",
		...neighbour,
	},
	{
		name: "tcp-stream-local",
		title: "TCP stream between pods of one host",
		workload: stream("tcp"),
		cpus: "two",
		...neighbour,
	},
	{
		name: "tcp-rr-ipv6",
		title: "TCP request/response over IPv6",
		workload: requestResponse6("tcp"),
		cpus: "one",
		...ipv6,
	},
	{
		name: "udp-rr-ipv6",
		title: "UDP request/response over IPv6",
		workload: requestResponse6("udp"),
		cpus: "one",
		...ipv6,
	},
	{ name: "tcp-stream-ipv6", title: "TCP stream over IPv6", workload: stream("tcp"), cpus: "two", ...ipv6 },
	{
		name: "tcp-rr-geneve",
		title: "TCP request/response over Geneve",
		workload: requestResponse("tcp"),
		cpus: "one",
		...geneve,
	},
	{
		name: "udp-rr-geneve",
		title: "UDP request/response over Geneve",
		workload: requestResponse("udp"),
		cpus: "one",
		...geneve,
	},
	{ name: "tcp-stream-geneve", title: "TCP stream over Geneve", workload: stream("tcp"), cpus: "two", ...geneve },
	{
		name: "tcp-rr-antrea",
		title: "TCP request/response over Open vSwitch",
		workload: requestResponse("tcp"),
		cpus: "one",
		...antrea,
	},
	{
		name: "tcp-rr-ovs-userspace",
		title: "TCP request/response over Open vSwitch in user space, which is left alone",
		workload: requestResponse("tcp"),
		cpus: "one",
		...userspace,
	},
	{
		name: "tcp-rr-miss",
		title: "TCP request/response, all packets missing",
		workload: requestResponse("tcp"),
		cpus: "one",
		...missing,
	},
	{
		name: "udp-rr-miss",
		title: "UDP request/response, all packets missing",
		workload: requestResponse("udp"),
		cpus: "one",
		...missing,
	},
];

/** Not traffic: what the agents themselves cost. */
export const AGENT_SCENARIO = "agent";
/** Nor this: what a hit costs as the filter cache fills. */
export const GROWTH_SCENARIO = "flows";
export const SCENARIO_NAMES: readonly string[] = [
	...SCENARIOS.map(({ name }) => name),
	AGENT_SCENARIO,
	GROWTH_SCENARIO,
];
