// Sets a lab up as Flannel's VXLAN backend, the bridge plugin and kube-proxy would: real devices, routes, rules.
import { inNetns, run } from "./command.js";
import { type Lab, type LabHost, macOf, POD_MTU, POD_NETWORK, UPLINK_MTU } from "./topology.js";

/** Everything but the namespaces' files, which the kernel removes with them. */
export async function build(lab: Lab, signal?: AbortSignal): Promise<void> {
	const namespaces = [lab.fabric ?? [], lab.hosts.map((host) => [host.netns, host.pods.map((pod) => pod.netns)])].flat(
		3,
	);
	await ip(
		namespaces.map((netns) => `netns add ${nameOf(netns)}`),
		signal,
	);
	await Promise.all(namespaces.map((netns) => run(inNetns(netns, ["sysctl", "-qw", ...COMMON_SYSCTLS]), { signal })));
	await ip(wires(lab), signal);
	await ip(lab.hosts.flatMap(podWires), signal);
	await Promise.all([
		...lab.hosts.map((host) => buildHost(host, lab, signal)),
		...lab.hosts.flatMap((host) => host.pods.map((pod) => ipIn(pod.netns, podLines(host, pod.ip), signal))),
		...(lab.fabric ? [ipIn(lab.fabric, fabricLines(lab), signal)] : []),
	]);
}

const COMMON_SYSCTLS = ["net.ipv6.conf.all.disable_ipv6=1", "net.ipv6.conf.default.disable_ipv6=1"];
const HOST_SYSCTLS = ["net.ipv4.ip_forward=1", "net.ipv4.conf.all.rp_filter=0", "net.ipv4.conf.default.rp_filter=0"];

export const nameOf = (netns: string): string => netns.slice(netns.lastIndexOf("/") + 1);

async function ip(lines: string[], signal?: AbortSignal): Promise<void> {
	await run(["ip", "-batch", "-"], { input: `${lines.join("\n")}\n`, signal });
}

async function ipIn(netns: string, lines: string[], signal?: AbortSignal): Promise<void> {
	await run(inNetns(netns, ["ip", "-batch", "-"]), { input: `${lines.join("\n")}\n`, signal });
}

/** Two hosts share one cable; more share a bridge in a namespace of its own. */
function wires(lab: Lab): string[] {
	const [first, second] = lab.hosts;
	if (!lab.fabric && first && second)
		return [
			`link add eth0 address ${first.mac} mtu ${UPLINK_MTU} netns ${nameOf(first.netns)} type veth ` +
				`peer name eth0 address ${second.mac} mtu ${UPLINK_MTU} netns ${nameOf(second.netns)}`,
		];
	return lab.hosts.map(
		(host) =>
			`link add eth0 address ${host.mac} mtu ${UPLINK_MTU} netns ${nameOf(host.netns)} type veth ` +
			`peer name port-${host.name} netns ${nameOf(lab.fabric ?? "")}`,
	);
}

function fabricLines(lab: Lab): string[] {
	return [
		"link add fabric type bridge",
		"link set fabric up",
		...lab.hosts.map((host) => `link set port-${host.name} master fabric up`),
	];
}

function podWires(host: LabHost): string[] {
	return host.pods.map(
		(pod) =>
			`link add ${pod.veth} mtu ${POD_MTU} netns ${nameOf(host.netns)} type veth ` +
			`peer name eth0 address ${pod.mac} mtu ${POD_MTU} netns ${nameOf(pod.netns)}`,
	);
}

function podLines(host: LabHost, address: string): string[] {
	return [
		"link set lo up",
		"link set eth0 up",
		`addr add ${address}/24 dev eth0`,
		`route add default via ${host.gateway} dev eth0`,
	];
}

async function buildHost(host: LabHost, lab: Lab, signal?: AbortSignal): Promise<void> {
	await run(inNetns(host.netns, ["sysctl", "-qw", ...HOST_SYSCTLS]), { signal });
	const { vni, port } = lab.spec;
	const number = lab.hosts.indexOf(host) + 1;
	const peers = lab.hosts.filter((other) => other !== host);
	await ipIn(
		host.netns,
		[
			"link set lo up",
			`link set ${host.uplink} up`,
			`addr add ${host.ip}/24 dev ${host.uplink}`,
			`link add ${host.tunnel} address ${host.tunnelMac} mtu ${POD_MTU} type vxlan id ${vni} local ${host.ip} ` +
				`dev ${host.uplink} dstport ${port} nolearning noudpcsum`,
			`link set ${host.tunnel} up`,
			`addr add ${networkOf(host)}/32 dev ${host.tunnel}`,
			`link add cni0 address ${macOf(0x30, number, 0)} mtu ${POD_MTU} type bridge`,
			"link set cni0 up",
			`addr add ${host.gateway}/24 dev cni0`,
			...host.pods.map((pod) => `link set ${pod.veth} master cni0 up`),
			...peers.flatMap((peer) => [
				`route add ${peer.podCidr} via ${networkOf(peer)} dev ${host.tunnel} onlink`,
				`neigh add ${networkOf(peer)} lladdr ${peer.tunnelMac} dev ${host.tunnel} nud permanent`,
			]),
		],
		signal,
	);
	const entries = peers.map((peer) => `fdb add ${peer.tunnelMac} dev ${host.tunnel} dst ${peer.ip}`);
	await run(inNetns(host.netns, ["bridge", "-batch", "-"]), { input: `${entries.join("\n")}\n`, signal });
	await run(inNetns(host.netns, ["iptables-restore"]), { input: RULES, signal });
}

/** The address of the tunnel device: the first of the host's pod network. */
function networkOf(host: LabHost): string {
	return host.podCidr.replace("/24", "");
}

/** The rules of kube-proxy (KUBE-FORWARD) and flannel (FLANNEL-FWD, FLANNEL-POSTRTG) that a pod's packets meet. */
const RULES = `*filter
:INPUT ACCEPT [0:0]
:FORWARD DROP [0:0]
:OUTPUT ACCEPT [0:0]
:KUBE-FORWARD - [0:0]
:FLANNEL-FWD - [0:0]
-A FORWARD -m comment --comment "kubernetes forwarding rules" -j KUBE-FORWARD
-A FORWARD -m comment --comment "flanneld forward" -j FLANNEL-FWD
-A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP
-A KUBE-FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A FLANNEL-FWD -s ${POD_NETWORK} -m comment --comment "flanneld forward" -j ACCEPT
-A FLANNEL-FWD -d ${POD_NETWORK} -m comment --comment "flanneld forward" -j ACCEPT
COMMIT
*nat
:PREROUTING ACCEPT [0:0]
:INPUT ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
:FLANNEL-POSTRTG - [0:0]
-A POSTROUTING -m comment --comment "flanneld masq" -j FLANNEL-POSTRTG
-A FLANNEL-POSTRTG -s ${POD_NETWORK} -d ${POD_NETWORK} -j RETURN
-A FLANNEL-POSTRTG -s ${POD_NETWORK} ! -d 224.0.0.0/4 -j MASQUERADE
COMMIT
`;
