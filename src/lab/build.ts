// Sets a lab up: namespaces, cables, pods, overlay, rules, as a CNI and kube-proxy would. Real devices, real routes.
import { setTimeout } from "node:timers/promises";
import { CommandError, inNetns, run } from "./command.js";
import { UnsupportedLabError } from "./error.js";
import { deviceLines, fdbEntries, peerLines } from "./overlay.js";
import { patiently } from "./patience.js";
import { hostLines, hostSysctls, netkitLines, netkitPeerLines, podLines, podWires } from "./pods.js";
import { rulesOf } from "./rules.js";
import { buildSwitch } from "./switch.js";
import { type Lab, type LabHost, type LabSpec, nameOf, podFamilies, uplinkFamilies } from "./topology.js";
import { cables, fabricLines, uplinkLines } from "./underlay.js";

/** Everything but the namespaces' files, which the kernel removes with them. */
export async function build(lab: Lab, signal?: AbortSignal): Promise<void> {
	const { spec, hosts } = lab;
	const pods = hosts.flatMap((host) => host.pods.map((pod) => ({ pod, host })));
	const outside = [...(lab.fabric ? [lab.fabric] : []), ...hosts.map(({ netns }) => netns)];
	const inside = pods.map(({ pod }) => pod.netns);
	await ip(
		[...outside, ...inside].map((netns) => `netns add ${nameOf(netns)}`),
		signal,
	);
	await Promise.all([
		...outside.map((netns) => sysctl(netns, uplinkFamilies(spec).includes(6) ? WITH_IPV6 : WITHOUT_IPV6, signal)),
		...inside.map((netns) => sysctl(netns, podFamilies(spec).includes(6) ? WITH_IPV6 : WITHOUT_IPV6, signal)),
	]);
	await ip(cables(lab), signal);
	await ip(
		hosts.flatMap((host) => podWires(host, spec)),
		signal,
	);
	if (spec.podNetwork === "netkit") for (const host of hosts) await joinByNetkit(host, spec, signal);
	await Promise.all([
		...hosts.map((host) => buildHost(host, lab, signal)),
		...pods.map(({ pod, host }) => ipIn(pod.netns, podLines(pod, host, spec), signal)),
		...(lab.fabric ? [buildFabric(lab.fabric, lab, signal)] : []),
	]);
	await Promise.all(outside.map((netns) => carriers(netns, signal)));
}

const CARRIER_LIMIT_MS = 5000;

/**
 * Until every cable carries. The kernel switches a device's queue on some time after its other end came up
 * (net/core/link_watch.c, up to a second), and drops what is sent before.
 */
async function carriers(netns: string, signal?: AbortSignal): Promise<void> {
	const deadline = performance.now() + patiently(CARRIER_LIMIT_MS);
	for (;;) {
		const { stdout } = await run(inNetns(netns, ["ip", "-j", "link", "show", "up", "type", "veth"]), { signal });
		const links = JSON.parse(stdout || "[]") as { ifname: string; operstate: string }[];
		const without = links.filter(({ operstate }) => operstate !== "UP");
		if (without.length === 0) return;
		if (performance.now() > deadline)
			throw new Error(
				`Cannot build the lab: no carrier on ${without.map(({ ifname }) => ifname).join(", ")} in ${netns}`,
			);
		await setTimeout(10);
	}
}

async function buildHost(host: LabHost, lab: Lab, signal?: AbortSignal): Promise<void> {
	const { spec } = lab;
	await sysctl(
		host.netns,
		[...ROUTER, ...(podFamilies(spec).includes(6) ? [FORWARDING_6] : []), ...hostSysctls(host, spec)],
		signal,
	);
	const lines = [uplinkLines(host, lab), deviceLines(host, lab), hostLines(host, spec), peerLines(host, lab)].flat();
	await ipIn(host.netns, ["link set lo up", ...lines], signal);
	const entries = fdbEntries(host, lab);
	if (entries.length > 0)
		await run(inNetns(host.netns, ["bridge", "-batch", "-"]), { input: `${entries.join("\n")}\n`, signal });
	if (spec.overlay === "antrea") await buildSwitch(host, lab, signal);
	for (const { family } of host.subnets) {
		const tool = family === 4 ? "iptables-restore" : "ip6tables-restore";
		await run(inNetns(host.netns, [tool]), { input: rulesOf(host, family, spec), signal });
	}
}

async function joinByNetkit(host: LabHost, spec: LabSpec, signal?: AbortSignal): Promise<void> {
	await ipIn(host.netns, netkitLines(host, spec), signal);
	const { stdout } = await run(inNetns(host.netns, ["ip", "-j", "link", "show", "type", "netkit"]), { signal });
	const links = JSON.parse(stdout) as { ifname: string; link?: string }[];
	const peers = new Map(links.flatMap(({ ifname, link }) => (link === undefined ? [] : [[link, ifname] as const])));
	await ipIn(host.netns, netkitPeerLines(host, spec, peers), signal);
}

async function buildFabric(netns: string, lab: Lab, signal?: AbortSignal): Promise<void> {
	if (lab.spec.direct)
		await sysctl(netns, [...ROUTER, ...(uplinkFamilies(lab.spec).includes(6) ? [FORWARDING_6] : [])], signal);
	await ipIn(netns, fabricLines(lab), signal);
}

const WITHOUT_IPV6 = ["net.ipv6.conf.all.disable_ipv6=1", "net.ipv6.conf.default.disable_ipv6=1"];
/** Addresses that are usable at once, and nobody who asks for routers. */
const WITH_IPV6 = ["all", "default"].flatMap((which) =>
	["disable_ipv6", "accept_dad", "accept_ra", "autoconf", "router_solicitations"].map(
		(name) => `net.ipv6.conf.${which}.${name}=0`,
	),
);
const ROUTER = ["net.ipv4.ip_forward=1", "net.ipv4.conf.all.rp_filter=0", "net.ipv4.conf.default.rp_filter=0"];
const FORWARDING_6 = "net.ipv6.conf.all.forwarding=1";

async function sysctl(netns: string, settings: string[], signal?: AbortSignal): Promise<void> {
	await run(inNetns(netns, ["sysctl", "-qw", ...settings]), { signal });
}

async function ip(lines: string[], signal?: AbortSignal): Promise<void> {
	await run(["ip", "-batch", "-"], { input: `${lines.join("\n")}\n`, signal });
}

async function ipIn(netns: string, lines: string[], signal?: AbortSignal): Promise<void> {
	try {
		await run(inNetns(netns, ["ip", "-batch", "-"]), { input: `${lines.join("\n")}\n`, signal });
	} catch (error) {
		if (error instanceof CommandError) throw explained(error, lines);
		throw error;
	}
}

/** ip -batch names the line by its number only. */
function explained(error: CommandError, lines: string[]): Error {
	const line = lines[Number(/Command failed -:(\d+)/.exec(error.finished.stderr)?.[1]) - 1];
	if (line === undefined) return error;
	const [, kind] = / type (\w+)/.exec(line) ?? [];
	if (/Unknown device type/.test(error.finished.stderr))
		return new UnsupportedLabError(`Cannot make a ${kind} device: this kernel has none ("ip ${line}")`);
	return new Error(`Cannot build the lab: "ip ${line}": ${error.message}`);
}
