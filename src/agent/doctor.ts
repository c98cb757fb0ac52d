// Looks for what would keep this host from being accelerated, or would surprise; changes nothing.
import { foreignTcxPrograms } from "../datapath/attach.js";
import { Datapath } from "../datapath/datapath.js";
import { type Feature, probeFeatures } from "../datapath/features.js";
import type { Reason } from "../datapath/layout.js";
import { PROGRAMS } from "../datapath/object.js";
import { usersOfMark, usesConntrack } from "../kernel/ruleset.js";
import { readSysctl } from "../kernel/sysctl.js";
import { overheadBytes } from "../kernel/topology.js";
import { readSwitch } from "../ovs/switch.js";
import { snapshotNow } from "./access.js";
import { CHOOSE_ALL, type Desired, desiredState } from "./desired.js";
import { TCP_BE_LIBERAL } from "./detach.js";
import { LESSON_TEXT, REASON_TEXT } from "./explain.js";
import { networkOf, type Snapshot } from "./snapshot.js";

export interface Finding {
	level: "ok" | "warning" | "problem";
	/** What was looked at. */
	what: string;
	/** What was found. */
	found: string;
	/** What to do; null when nothing. */
	todo: string | null;
}

/** Of the packets: what is rarer is not worth a line. */
const FEW = 0.01;

export function examine({
	bpffs,
	mark,
	cniConfDir = "auto",
}: {
	bpffs: string;
	mark: number;
	cniConfDir?: string;
}): Finding[] {
	const snapshot = snapshotNow();
	const desired = desiredState(snapshot, CHOOSE_ALL);
	return [
		...kernel(),
		...network(snapshot, cniConfDir),
		...openVSwitch(),
		...tunnels(desired),
		...pods(desired),
		...mtus(desired),
		...hooks(desired, snapshot),
		...marks(mark),
		...sysctls(desired),
		...conntrack(),
		...installation(bpffs),
	];
}

const ok = (what: string, found: string, todo: string | null = null): Finding => ({ level: "ok", what, found, todo });
const warning = (what: string, found: string, todo: string | null): Finding => ({
	level: "warning",
	what,
	found,
	todo,
});
const problem = (what: string, found: string, todo: string | null): Finding => ({
	level: "problem",
	what,
	found,
	todo,
});

function kernel(): Finding[] {
	const { btf, jit, kfunc, zones, tcx, redirectPeer } = probeFeatures();
	const report = (what: string, feature: Feature, missing: typeof warning): Finding =>
		feature.ok ? ok(what, "there") : missing(what, "missing", feature.why);
	return [
		report("BTF", btf, problem),
		report("BPF JIT", jit, warning),
		report("bpf_redirect_peer", redirectPeer, problem),
		report("tcx links", tcx, warning),
		report("conntrack kfunc", kfunc, warning),
		// Only a switch needs them.
		...(zones.ok ? [] : [ok("conntrack zones", zones.why)]),
	];
}

function network({ links }: Snapshot, cniConfDir: string): Finding[] {
	const { name, evidence, plan, refused } = networkOf(links, cniConfDir);
	const found = `${name}${evidence.length > 0 ? ` (${evidence.join("; ")})` : ""}: ${plan}`;
	return [
		refused
			? problem("network", found, "Its traffic is not touched: remove ONCache from this node")
			: ok("network", found),
	];
}

function tunnels({ tunnels }: Desired): Finding[] {
	if (tunnels.length === 0)
		return [
			problem(
				"tunnel devices",
				"none",
				"Start the overlay (Flannel, Calico VXLAN ...) in this network namespace first",
			),
		];
	return tunnels.map(({ tunnel, why }) => {
		const what = `tunnel ${tunnel.link.name}`;
		if (why !== null) return problem(what, why, "Its traffic stays on the overlay as it is");
		return ok(what, `VNI ${tunnel.vni}, port ${tunnel.port}, over ${tunnel.uplink?.name}`);
	});
}

/** Of what it says, what matters here; nothing where there is none. */
function openVSwitch(): Finding[] {
	const what = "Open vSwitch";
	try {
		const own = readSwitch();
		if (!own) return [];
		if (own.userspacePorts.length > 0)
			return [
				problem(
					what,
					`the userspace datapath has ${own.userspacePorts.join(", ")}`,
					"It reads them by packet sockets, where what is redirected would arrive twice: use datapath_type=system",
				),
			];
		const { bridge, zones, table } = own;
		const found = Object.entries(zones).flatMap(([family, zone]) =>
			zone === undefined ? [] : [`${zone} (${family})`],
		);
		return [
			found.length > 0 && table !== undefined
				? ok(what, `bridge ${bridge}, connection tracking zone ${found.join(", ")}, known from table ${table} on`)
				: warning(what, `bridge ${bridge} is not one of Antrea`, "Set ovsZone, and for dscp mode ovsTable"),
			...Object.entries(own.diverted).map(([name, why]) => warning(`veth ${name}`, why, null)),
		];
	} catch (error) {
		return [
			problem(what, (error as Error).message, "Until it answers, its changes are noticed at the staleness bound"),
		];
	}
}

function pods({ veths }: Desired): Finding[] {
	if (veths.length === 0) return [warning("pods", "no veth of a pod in this network namespace yet", null)];
	const left = veths.filter(({ why }) => why !== null);
	const shaped = veths.filter(({ why, entry }) => why === null && entry.shaped);
	return [
		ok("pods", `${veths.length - left.length} of ${veths.length} veths can be accelerated`),
		...left.map(({ link, why }) => warning(`veth ${link.name}`, `${why}`, "Its traffic stays on the overlay")),
		...shaped.map(({ link }) => ok(`veth ${link.name}`, "its egress qdisc is respected: delivered through it")),
	];
}

function mtus({ tunnels, veths }: Desired): Finding[] {
	const over = tunnels.flatMap(({ tunnel }) => {
		const room = (tunnel.uplink?.mtu ?? Number.POSITIVE_INFINITY) - overheadBytes(tunnel.ipv6);
		const what = `MTU of ${tunnel.link.name}`;
		return tunnel.link.mtu > room
			? [
					problem(
						what,
						`${tunnel.link.mtu}, but ${tunnel.uplink?.name} leaves room for ${room}`,
						`ip link set ${tunnel.link.name} mtu ${room}`,
					),
				]
			: [ok(what, `${tunnel.link.mtu} fits ${tunnel.uplink?.name ?? "its uplink"}`)];
	});
	const smallest = Math.min(...tunnels.map(({ tunnel }) => tunnel.mtu));
	const large = veths.filter(({ entry }) => entry.mtu > smallest);
	return [
		...over,
		...large.map(({ link, entry }) =>
			warning(
				`MTU of ${link.name}`,
				`${entry.mtu}, more than the tunnel's ${smallest}`,
				"Larger packets take the fallback, which answers or fragments",
			),
		),
	];
}

function hooks({ uplinks, veths }: Desired, { links, filters }: Snapshot): Finding[] {
	const devices = [...uplinks, ...veths.filter(({ why }) => why === null).map(({ link }) => link.ifindex)];
	const found = devices.flatMap((ifindex) => {
		const name = links.find((link) => link.ifindex === ifindex)?.name ?? String(ifindex);
		const tcx = (["ingress", "egress"] as const).flatMap((direction) =>
			foreignTcxPrograms(ifindex, direction, PROGRAMS).map((program) => `tcx program "${program}" at its ${direction}`),
		);
		const tc = filters
			.filter((filter) => filter.ifindex === ifindex)
			.map(({ kind, bpfName }) => `tc classifier ${kind}${bpfName ? ` "${bpfName}"` : ""}`);
		return [...tcx, ...tc].map((foreign) =>
			warning(
				`hooks of ${name}`,
				foreign,
				"ONCache runs before it: packets on the fast path do not reach it. Exclude the interface if it must see them",
			),
		);
	});
	return found.length > 0 ? found : [ok("hooks", "no foreign tc or tcx programs on the devices")];
}

function marks(mark: number): Finding[] {
	const users = usersOfMark(mark);
	const hex = `0x${mark.toString(16)}`;
	return users.length === 0
		? [ok(`mark ${hex}`, "nobody else uses it")]
		: users.map((user) => warning(`mark ${hex}`, user, "Choose another bit: oncache agent --mark"));
}

function sysctls({ uplinks, tunnels }: Desired): Finding[] {
	const forward = readSysctl("net/ipv4/ip_forward");
	const liberal = readSysctl(TCP_BE_LIBERAL);
	const strict = [...new Set(["all", ...tunnels.map(({ tunnel }) => tunnel.link.name)])].filter(
		(name) => readSysctl(`net/ipv4/conf/${name}/rp_filter`) === "1",
	);
	return [
		forward === "1"
			? ok("ip_forward", "1")
			: problem(
					"ip_forward",
					`${forward}`,
					"sysctl -w net.ipv4.ip_forward=1: without it the overlay itself forwards nothing",
				),
		liberal === undefined
			? warning("nf_conntrack_tcp_be_liberal", "no connection tracking in this kernel yet", "modprobe nf_conntrack")
			: liberal === "1"
				? ok("nf_conntrack_tcp_be_liberal", "1")
				: warning("nf_conntrack_tcp_be_liberal", liberal, "The agent sets it to 1 and restores it when it is detached"),
		strict.length === 0 || uplinks.length === 0
			? ok("rp_filter", "not strict")
			: warning(
					"rp_filter",
					`strict on ${strict.join(", ")}`,
					"Fast packets are not checked by it; the outer source is checked by ONCache instead",
				),
	];
}

function conntrack(): Finding[] {
	const used = usesConntrack();
	if (used === undefined)
		return [warning("connection tracking", "cannot be told: nft is missing", "apt-get install nftables")];
	return used
		? [ok("connection tracking", "rules of this network namespace use it")]
		: [
				warning(
					"connection tracking",
					"no nftables rule uses it",
					"If legacy iptables does not either, no flow is ever established and nothing is learned",
				),
			];
}

function installation(bpffs: string): Finding[] {
	const datapath = Datapath.openPinned(bpffs);
	if (!datapath) return [ok("installation", `nothing of ONCache at "${bpffs}" yet`)];
	try {
		const attachments = datapath.attachments();
		const gone = attachments.filter((at) => at.gone).length;
		return [
			gone > 0
				? warning(
						"installation",
						`${gone} of ${attachments.length} programs are not attached any more`,
						"A running agent repairs it; start one",
					)
				: ok("installation", `${attachments.length} programs attached`),
			...fallback(datapath),
		];
	} finally {
		datapath.close();
	}
}

/** What of the packets so far took the overlay, and what it declined, where it is more than a few. */
function fallback(datapath: Datapath): Finding[] {
	const { packets } = datapath.counters();
	const lessons = datapath.lessons();
	return (["egress", "ingress"] as const).flatMap((direction) => {
		const { fast, fallback: counts } = packets[direction];
		const total = Object.values(counts).reduce((sum, count) => sum + count, fast);
		const reasons = Object.entries(counts).map(([reason, count]) => {
			const { why, todo } = REASON_TEXT[reason as Reason];
			const found = `${share(count, total)} of the packets: ${why}`;
			return { count, finding: (todo ? warning : ok)(`fallback, ${direction}: ${reason}`, found, todo) };
		});
		const declined = Object.entries(lessons[direction]).flatMap(([lesson, count]) => {
			const text = LESSON_TEXT[lesson as keyof typeof LESSON_TEXT];
			const what = `declined, ${direction}: ${lesson}`;
			return text
				? [{ count, finding: (text.todo ? warning : ok)(what, `${count} packets: ${text.why}`, text.todo) }]
				: [];
		});
		return [...reasons, ...declined].filter(({ count }) => count > total * FEW).map(({ finding }) => finding);
	});
}

const share = (count: number, total: number): string => `${((100 * count) / total).toFixed(1)} %`;
