// A host's Open vSwitch: its own daemons in the host's namespace, with their files in its own directory. The system's
// Open vSwitch service is neither used nor touched.
import { existsSync, mkdirSync, readdirSync, readFileSync } from "node:fs";
import { setTimeout } from "node:timers/promises";
import { FIRST_POD_PORT, GATEWAY_PORT, numbered, pipeline, TABLES, TUNNEL_PORT } from "./antrea.js";
import { type Finished, inNetns, run } from "./command.js";
import { UnsupportedLabError } from "./error.js";
import {
	GATEWAY,
	GLOBAL_MAC,
	type Lab,
	type LabHost,
	macOf,
	PHYSICAL,
	podMtu,
	SWITCH,
	underlayLength,
} from "./topology.js";
import { addLine } from "./underlay.js";

const SCHEMA = "/usr/share/openvswitch/vswitch.ovsschema";
/** In the order in which they are to end. */
const DAEMONS = ["ovs-vswitchd", "ovsdb-server"] as const;
const POLL_MS = 20;
const END_LIMIT_MS = 5000;
/** Seconds for one answer: with a slow CPU a reconfiguration takes its time. */
const ANSWER_LIMIT_S = "60";
/** A handler thread gets the packets of the switch's kernel module only when the machine is up for so long (OVS 3.1). */
const MODULE_UPTIME_S = 11;

export async function buildSwitch(host: LabHost, lab: Lab, signal?: AbortSignal): Promise<void> {
	const { spec } = lab;
	if (spec.datapath === "system") await loadModule(signal);
	mkdirSync(dirOf(host), { recursive: true, mode: 0o700 });
	await startSwitch(host, signal);
	if (spec.datapath === "netdev") await giveUplink(host, lab, signal);
	await ovs(host, ["ovs-vsctl", `--timeout=${ANSWER_LIMIT_S}`, ...bridgeCommands(host, lab).flat()], { signal });
	await addPipeline(host, lab, signal);
	// It reads packets as they are: nobody completes checksums or cuts segments for it.
	if (spec.datapath === "netdev")
		for (const { netns } of host.pods)
			await run(inNetns(netns, ["ethtool", "-K", "eth0", "tx", "off", "tso", "off", "gso", "off"]), { signal });
	await run(inNetns(host.netns, ["ip", "-batch", "-"]), { input: `${gatewayLines(host, lab).join("\n")}\n`, signal });
}

/** Begins with an empty database, or with the one that is there. */
export async function startSwitch(host: LabHost, signal?: AbortSignal): Promise<void> {
	const dir = dirOf(host);
	const daemon = (name: string): string[] => [
		...["--detach", "--no-chdir", `--pidfile=${dir}/${name}.pid`],
		...[`--log-file=${dir}/${name}.log`, "-vconsole:off", "-vsyslog:off"],
	];
	if (!existsSync(`${dir}/conf.db`)) await ovs(host, ["ovsdb-tool", "create", `${dir}/conf.db`, SCHEMA], { signal });
	await ovs(host, ["ovsdb-server", `${dir}/conf.db`, `--remote=punix:${dir}/db.sock`, ...daemon("ovsdb-server")], {
		signal,
	});
	await ovs(host, ["ovs-vsctl", "--no-wait", "init"], { signal });
	await ovs(host, ["ovs-vswitchd", `unix:${dir}/db.sock`, ...daemon("ovs-vswitchd")], { signal });
}

/** As Antrea's agent does when it starts, and when the switch was restarted. */
export async function addPipeline(host: LabHost, lab: Lab, signal?: AbortSignal): Promise<void> {
	await ovs(host, ["ovs-ofctl", "-O", "OpenFlow15", "--bundle", "add-flows", SWITCH, "-"], {
		input: `${pipeline(host, lab).map(numbered).join("\n")}\n`,
		signal,
	});
}

/** Runs one of Open vSwitch's tools against this host's. */
export async function ovs(
	host: LabHost,
	argv: readonly string[],
	options: { input?: string; signal?: AbortSignal | undefined } = {},
): Promise<Finished> {
	const dir = dirOf(host);
	const env = ["env", `OVS_RUNDIR=${dir}`, `OVS_DBDIR=${dir}`, `OVS_LOGDIR=${dir}`];
	return run(inNetns(host.netns, [...env, ...argv]), options);
}

/** Of every host of a lab, whoever started it. */
export async function stopSwitches(labDir: string): Promise<void> {
	if (!existsSync(labDir)) return;
	const dirs = readdirSync(labDir).filter((name) => name.endsWith(".ovs"));
	await Promise.all(dirs.map((name) => stopSwitch(`${labDir}/${name}`)));
}

/** The bridges of the kernel module stay until their namespace goes. */
export async function stopSwitch(dir: string): Promise<void> {
	for (const name of DAEMONS) await endDaemon(dir, name);
}

async function endDaemon(dir: string, name: string): Promise<void> {
	const file = `${dir}/${name}.pid`;
	if (!existsSync(file)) return;
	const pid = Number(readFileSync(file, "utf8"));
	const isIt = (): boolean => isDaemon(pid, file);
	if (isIt()) process.kill(pid, "SIGTERM");
	for (const deadline = performance.now() + END_LIMIT_MS; isIt() && performance.now() < deadline; )
		await setTimeout(POLL_MS);
	if (isIt()) process.kill(pid, "SIGKILL");
	while (isIt()) await setTimeout(POLL_MS);
}

/** Another process may have got its number. */
function isDaemon(pid: number, pidFile: string): boolean {
	try {
		return readFileSync(`/proc/${pid}/cmdline`, "utf8").split("\0").includes(`--pidfile=${pidFile}`);
	} catch {
		return false; // no such process
	}
}

async function loadModule(signal?: AbortSignal): Promise<void> {
	if (!existsSync("/sys/module/openvswitch"))
		await run(["modprobe", "-a", "openvswitch", "vport-geneve", "vport-vxlan"], { anyCode: true, signal }).catch(
			() => {},
		);
	if (!existsSync("/sys/module/openvswitch"))
		throw new UnsupportedLabError(
			'Cannot make an Open vSwitch of datapath "system": this kernel has none (module openvswitch)',
		);
	const uptime = (): number => Number.parseFloat(readFileSync("/proc/uptime", "utf8"));
	while (uptime() < MODULE_UPTIME_S) await setTimeout(POLL_MS, undefined, { signal });
}

/** The switch in user space sends what it has encapsulated only over a bridge of its own. */
async function giveUplink(host: LabHost, { hosts }: Lab, signal?: AbortSignal): Promise<void> {
	await ovs(
		host,
		[
			...["ovs-vsctl", `--timeout=${ANSWER_LIMIT_S}`],
			...["--", "add-br", PHYSICAL, "--", "set", "Bridge", PHYSICAL, "datapath_type=netdev"],
			`other-config:hwaddr=${physicalMac(host)}`,
			...["--", "add-port", PHYSICAL, host.uplink],
		],
		{ signal },
	);
	const lines = [
		`addr flush dev ${host.uplink}`,
		`link set ${PHYSICAL} up`,
		`addr add ${host.ip}/${underlayLength(4)} dev ${PHYSICAL}`,
	];
	await run(inNetns(host.netns, ["ip", "-batch", "-"]), { input: `${lines.join("\n")}\n`, signal });
	// It drops what it would send while it asks for an address.
	for (const peer of hosts.filter((other) => other !== host))
		await ovs(host, ["ovs-appctl", "tnl/arp/set", PHYSICAL, peer.ip, physicalMac(peer)], { signal });
}

const physicalMac = ({ number }: LabHost): string => macOf(0x12, number, 0);

function bridgeCommands(host: LabHost, { spec }: Lab): string[][] {
	const port = (name: string, number: number, type: string, ...settings: string[]): string[] => [
		...["--", "add-port", SWITCH, name, "--", "set", "Interface", name, `ofport_request=${number}`],
		`external-ids:antrea-type=${type}`,
		...settings,
	];
	return [
		["--", "add-br", SWITCH, "--", "set", "Bridge", SWITCH, `datapath_type=${spec.datapath}`, "fail_mode=secure"],
		["external-ids:roundNum=1"],
		port("antrea-tun0", TUNNEL_PORT, "tunnel", `type=${spec.tunnelType}`, "options:remote_ip=flow", "options:key=flow"),
		[`options:dst_port=${spec.port}`, ...(spec.udpChecksum ? ["options:csum=true"] : [])],
		port(GATEWAY, GATEWAY_PORT, "gateway", "type=internal", `mac="${host.bridgeMac}"`, `mtu_request=${podMtu(spec)}`),
		...host.pods.map(({ veth, ip, mac, name }, i) =>
			port(
				veth,
				FIRST_POD_PORT + i,
				"container",
				`external-ids:attached-mac="${mac}"`,
				`external-ids:ip-address="${ip}"`,
				`external-ids:pod-name=${name}`,
			),
		),
		...TABLES.flatMap((name, i) => [
			["--", `--id=@t${i}`, "create", "Flow_Table", `name=${name}`],
			["--", "set", "Bridge", SWITCH, `flow_tables:${i}=@t${i}`],
		]),
	];
}

function gatewayLines(host: LabHost, { hosts, spec }: Lab): string[] {
	return [
		`link set ${GATEWAY} up mtu ${podMtu(spec)}`,
		...host.subnets.map(({ gateway, length }) => addLine(`${gateway}/${length}`, GATEWAY)),
		...hosts
			.filter((other) => other !== host)
			.flatMap(({ subnets }) =>
				subnets.flatMap(({ family, cidr, gateway }) => [
					// Over IPv4 the switch answers for it.
					...(family === 6 ? [`neigh add ${gateway} lladdr ${GLOBAL_MAC} dev ${GATEWAY} nud permanent`] : []),
					`route add ${cidr} via ${gateway} dev ${GATEWAY} onlink`,
				]),
			),
	];
}

function dirOf(host: LabHost): string {
	if (host.switchDir === undefined)
		throw new Error(`Host ${host.name} has no Open vSwitch: its lab has another overlay`);
	return host.switchDir;
}
