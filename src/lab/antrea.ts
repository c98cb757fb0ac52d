// Antrea's OpenFlow pipeline as it is in encapsulation mode: tables, zones, marks and registers as its documentation
// (docs/design/ovs-pipeline.md) lists them, for the lab's pods and peers. Answers the input of ovs-ofctl. Pure.
import { type Family, GLOBAL_MAC, type Lab, type LabHost, type LabPod, type PodSubnet } from "./topology.js";

/** In the order of their numbers. */
export const TABLES = [
	"PipelineRootClassifier",
	"ARPSpoofGuard",
	"ARPResponder",
	"Classifier",
	"SpoofGuard",
	"IPv6",
	"UnSNAT",
	"ConntrackZone",
	"ConntrackState",
	"PreRoutingClassifier",
	"NodePortMark",
	"SessionAffinity",
	"ServiceLB",
	"EndpointDNAT",
	"AntreaPolicyEgressRule",
	"EgressRule",
	"EgressDefaultRule",
	"EgressMetric",
	"L3Forwarding",
	"EgressMark",
	"L3DecTTL",
	"SNATMark",
	"SNAT",
	"L2ForwardingCalc",
	"TrafficControl",
	"IngressSecurityClassifier",
	"AntreaPolicyIngressRule",
	"IngressRule",
	"IngressDefaultRule",
	"IngressMetric",
	"ConntrackCommit",
	"Output",
] as const;

/** By family. The second one: of what the switch masquerades. */
export const CT_ZONE = { 4: 65_520, 6: 65_510 } as const;
const SNAT_CT_ZONE = { 4: 65_521, 6: 65_511 } as const;
/** Where Services send what is to come back to the switch. */
const VIRTUAL_IP = { 4: "169.254.0.253", 6: "fc01::aabb:ccdd:eeff" } as const;
/** Words of matches. */
const IP = { 4: "ip", 6: "ipv6" } as const;
const SOURCE = { 4: "nw_src", 6: "ipv6_src" } as const;
export const DESTINATION = { 4: "nw_dst", 6: "ipv6_dst" } as const;
/** OpenFlow port numbers. */
export const TUNNEL_PORT = 1;
export const GATEWAY_PORT = 2;
export const FIRST_POD_PORT = 3;

/** Round 1, and whose flow it is. */
const cookie = (category: number): string => `0x${(0x1000000000000 + category * 0x10000000000).toString(16)}`;
const [DEFAULT, CONNECTIVITY, POLICY, SERVICE, EGRESS] = [0, 1, 2, 3, 4].map(cookie);

/** reg0: where a packet is from (0..3), where it goes to (4..7), MAC addresses to be rewritten (9), output to a port (21, 22). */
const FROM_TUNNEL = "set_field:0x1/0xf->reg0";
const FROM_GATEWAY = "set_field:0x2/0xf->reg0";
const FROM_POD = "set_field:0x3/0xf->reg0";
const TO_TUNNEL = "set_field:0x10/0xf0->reg0";
const TO_GATEWAY = "set_field:0x20/0xf0->reg0";
export const REWRITE_MAC = "set_field:0x200/0x200->reg0";
const FROM_LOCAL = "set_field:0x10000000/0x10000000->reg4";
const FROM_EXTERNAL = "set_field:0x8000000/0x8000000->reg4";
/** Whether an endpoint is to be selected, is selected, or is to be remembered (affinity): reg4, bits 16..18. */
export const TO_SELECT = "0x10000/0x70000";
export const SELECTED = 0x20000;
export const TO_LEARN = 0x30000;
const outputTo = (port: number): string => `set_field:0x${port.toString(16)}->reg1,set_field:0x200000/0x600000->reg0`;

/** Tables by their names; numbered() makes it what ovs-ofctl reads. */
export function pipeline(host: LabHost, lab: Lab): string[] {
	const peers = lab.hosts.filter((other) => other !== host);
	return [
		...misses(),
		...connectivity(host),
		...host.subnets.flatMap((subnet) => [
			...familyFlows(host, subnet),
			...policies(subnet.family),
			...services(subnet.family),
		]),
		...host.pods.flatMap((pod, i) => podFlows(pod, FIRST_POD_PORT + i, host)),
		...peers.flatMap((peer) => peerFlows(peer, host)),
	];
}

/** Names of tables become numbers. */
export function numbered(flow: string): string {
	return flow.replaceAll(/(\btable=|\bgoto_table:|\bresubmit\(,)([A-Za-z]\w*)/g, (_, before: string, name: string) => {
		const number = (TABLES as readonly string[]).indexOf(name);
		if (number < 0) throw new Error(`Antrea's pipeline has no table "${name}"`);
		return before + number;
	});
}

/** What no flow matches goes to the next table, or nowhere. */
function misses(): string[] {
	const drops = ["PipelineRootClassifier", "ARPSpoofGuard", "ARPResponder", "Classifier", "SpoofGuard", "Output"];
	const others: Record<string, string> = {
		SessionAffinity: `set_field:${TO_SELECT}->reg4`,
		NodePortMark: "goto_table:SessionAffinity",
		L3Forwarding: `${TO_GATEWAY},goto_table:L2ForwardingCalc`,
		EgressMark: `${TO_GATEWAY},goto_table:L2ForwardingCalc`,
		PreRoutingClassifier: "goto_table:SessionAffinity",
	};
	return TABLES.map((table, i) => {
		const action = drops.includes(table) ? "drop" : (others[table] ?? `goto_table:${TABLES[i + 1]}`);
		return `cookie=${DEFAULT}, table=${table}, priority=0 actions=${action}`;
	});
}

const flow = (category: string | undefined, table: (typeof TABLES)[number], rest: string): string =>
	`cookie=${category}, table=${table}, ${rest}`;
const connects = (table: (typeof TABLES)[number], rest: string): string => flow(CONNECTIVITY, table, rest);

/** Of both families, and ARP. */
function connectivity({ gateway, bridgeMac: mac, subnets }: LabHost): string[] {
	const arp = subnets.some(({ family }) => family === 4)
		? [
				connects("PipelineRootClassifier", "priority=200,arp actions=goto_table:ARPSpoofGuard"),
				connects(
					"ARPSpoofGuard",
					`priority=200,arp,in_port=${GATEWAY_PORT},arp_spa=${gateway},arp_sha=${mac} actions=goto_table:ARPResponder`,
				),
				connects("ARPResponder", "priority=190,arp actions=NORMAL"),
			]
		: [];
	return [
		...arp,
		connects(
			"Classifier",
			`priority=200,in_port=${GATEWAY_PORT} actions=${FROM_GATEWAY},${FROM_EXTERNAL},goto_table:SpoofGuard`,
		),
		connects(
			"Classifier",
			`priority=200,in_port=${TUNNEL_PORT} actions=${FROM_TUNNEL},${REWRITE_MAC},goto_table:UnSNAT`,
		),
		connects(
			"L2ForwardingCalc",
			`priority=200,dl_dst=${mac} actions=${outputTo(GATEWAY_PORT)},goto_table:TrafficControl`,
		),
		connects(
			"L2ForwardingCalc",
			`priority=200,dl_dst=${GLOBAL_MAC} actions=${outputTo(TUNNEL_PORT)},goto_table:TrafficControl`,
		),
		...["0x20/0xf0", "0x10/0xf0"].map((to) =>
			connects("IngressSecurityClassifier", `priority=200,reg0=${to} actions=goto_table:IngressMetric`),
		),
		connects("Output", "priority=200,reg0=0x200000/0x600000 actions=output:NXM_NX_REG1[]"),
	];
}

function familyFlows({ bridgeMac: mac }: LabHost, { family, gateway, cidr }: PodSubnet): string[] {
	const [ip, source, destination] = [IP[family], SOURCE[family], DESTINATION[family]];
	return [
		...(family === 6 ? neighbourDiscovery() : []),
		connects("PipelineRootClassifier", `priority=200,${ip} actions=goto_table:Classifier`),
		connects(
			"Classifier",
			`priority=210,${ip},in_port=${GATEWAY_PORT},${source}=${gateway} actions=${FROM_GATEWAY},${FROM_LOCAL},goto_table:SpoofGuard`,
		),
		connects("SpoofGuard", `priority=200,${ip},in_port=${GATEWAY_PORT} actions=goto_table:IPv6`),
		connects("ConntrackZone", `priority=200,${ip} actions=ct(table=ConntrackState,zone=${CT_ZONE[family]},nat)`),
		connects("ConntrackState", `priority=200,ct_state=+inv+trk,${ip} actions=drop`),
		connects(
			"ConntrackState",
			`priority=190,ct_state=-new+trk,ct_mark=0x0/0x10,${ip} actions=goto_table:AntreaPolicyEgressRule`,
		),
		connects(
			"L3Forwarding",
			`priority=210,${ip},${destination}=${gateway} actions=set_field:${mac}->eth_dst,${TO_GATEWAY},goto_table:L3DecTTL`,
		),
		connects(
			"L3Forwarding",
			`priority=210,ct_state=+rpl+trk,ct_mark=0x2/0xf,${ip} actions=set_field:${mac}->eth_dst,${TO_GATEWAY},goto_table:L3DecTTL`,
		),
		connects(
			"L3Forwarding",
			`priority=200,${ip},reg0=0/0x200,${destination}=${cidr} actions=goto_table:L2ForwardingCalc`,
		),
		connects("L3DecTTL", `priority=210,${ip},reg0=0x2/0xf actions=goto_table:SNATMark`),
		connects("L3DecTTL", `priority=200,${ip} actions=dec_ttl,goto_table:SNATMark`),
		connects(
			"IngressSecurityClassifier",
			`priority=210,pkt_mark=0x80000000/0x80000000,ct_state=-rpl+trk,${ip} actions=goto_table:ConntrackCommit`,
		),
		connects(
			"ConntrackCommit",
			`priority=200,ct_state=+new+trk-snat,ct_mark=0x0/0x10,${ip} actions=ct(commit,table=Output,zone=${CT_ZONE[family]},exec(move:NXM_NX_REG0[0..3]->NXM_NX_CT_MARK[0..3]))`,
		),
	];
}

/** Neighbours, and multicast with them, as a learning switch has them; nobody tracks them. */
function neighbourDiscovery(): string[] {
	return [
		connects("SpoofGuard", "priority=200,ipv6,ipv6_src=fe80::/10 actions=goto_table:IPv6"),
		...[135, 136].map((type) => connects("IPv6", `priority=200,icmp6,icmp_type=${type},icmp_code=0 actions=NORMAL`)),
		connects("IPv6", "priority=200,ipv6,ipv6_dst=ff00::/8 actions=NORMAL"),
	];
}

function podFlows({ addresses, mac }: LabPod, port: number, { bridgeMac, subnets }: LabHost): string[] {
	return [
		connects("Classifier", `priority=190,in_port=${port} actions=${FROM_POD},${FROM_LOCAL},goto_table:SpoofGuard`),
		connects("L2ForwardingCalc", `priority=200,dl_dst=${mac} actions=${outputTo(port)},goto_table:TrafficControl`),
		...subnets.flatMap(({ family }, i) => {
			const [ip, source, destination] = [IP[family], SOURCE[family], DESTINATION[family]];
			const address = addresses[i];
			const own = `in_port=${port},dl_src=${mac},${source}=${address}`;
			return [
				...(family === 4
					? [
							connects(
								"ARPSpoofGuard",
								`priority=200,arp,in_port=${port},arp_spa=${address},arp_sha=${mac} actions=goto_table:ARPResponder`,
							),
						]
					: []),
				connects("SpoofGuard", `priority=200,${ip},${own} actions=goto_table:IPv6`),
				connects(
					"L3Forwarding",
					`priority=200,${ip},reg0=0x200/0x200,${destination}=${address} actions=set_field:${bridgeMac}->eth_src,set_field:${mac}->eth_dst,goto_table:L3DecTTL`,
				),
			];
		}),
	];
}

/** Over IPv6 the host knows its peers' gateways by itself (switch.ts). */
function peerFlows({ subnets, ip: remote }: LabHost, { bridgeMac }: LabHost): string[] {
	return subnets.flatMap(({ family, gateway, cidr }) => [
		...(family === 4
			? [
					connects(
						"ARPResponder",
						`priority=200,arp,arp_tpa=${gateway},arp_op=1 ` +
							`actions=move:NXM_OF_ETH_SRC[]->NXM_OF_ETH_DST[],set_field:${GLOBAL_MAC}->eth_src,set_field:2->arp_op,` +
							`move:NXM_NX_ARP_SHA[]->NXM_NX_ARP_THA[],set_field:${GLOBAL_MAC}->arp_sha,` +
							`move:NXM_OF_ARP_SPA[]->NXM_OF_ARP_TPA[],set_field:${gateway}->arp_spa,IN_PORT`,
					),
				]
			: []),
		connects(
			"L3Forwarding",
			`priority=200,${IP[family]},${DESTINATION[family]}=${cidr} ` +
				`actions=set_field:${bridgeMac}->eth_src,set_field:${GLOBAL_MAC}->eth_dst,set_field:${remote}->tun_dst,${TO_TUNNEL},goto_table:L3DecTTL`,
		),
	]);
}

/** A connection that a policy let in stays: so does Antrea for what is established. */
function policies(family: Family): string[] {
	const rules = [
		["AntreaPolicyEgressRule", 64990, "EgressMetric"],
		["EgressRule", 210, "EgressMetric"],
		["AntreaPolicyIngressRule", 64990, "IngressMetric"],
		["IngressRule", 210, "IngressMetric"],
	] as const;
	return rules.flatMap(([table, priority, next]) =>
		["est", "rel"].map((state) =>
			flow(POLICY, table, `priority=${priority},ct_state=-new+${state},${IP[family]} actions=goto_table:${next}`),
		),
	);
}

/** Without Services: what AntreaProxy and Egress always have. */
function services(family: Family): string[] {
	const [ip, zone] = [IP[family], SNAT_CT_ZONE[family]];
	return [
		flow(
			SERVICE,
			"UnSNAT",
			`priority=200,${ip},${DESTINATION[family]}=${VIRTUAL_IP[family]} actions=ct(table=ConntrackZone,zone=${zone},nat)`,
		),
		flow(
			SERVICE,
			"ConntrackState",
			`priority=190,ct_state=-new+trk,ct_mark=0x10/0x10,${ip} actions=${REWRITE_MAC},goto_table:AntreaPolicyEgressRule`,
		),
		flow(
			SERVICE,
			"PreRoutingClassifier",
			`priority=200,${ip} actions=resubmit(,NodePortMark),resubmit(,SessionAffinity),resubmit(,ServiceLB)`,
		),
		flow(
			SERVICE,
			"EndpointDNAT",
			`priority=190,reg4=0x20000/0x70000 actions=set_field:${TO_SELECT}->reg4,resubmit(,ServiceLB)`,
		),
		flow(
			SERVICE,
			"SNAT",
			`priority=200,ct_state=-new-rpl+trk,ct_mark=0x20/0x20,${ip} actions=ct(table=L2ForwardingCalc,zone=${zone},nat)`,
		),
		flow(
			EGRESS,
			"L3Forwarding",
			`priority=190,ct_state=-rpl+trk,${ip},reg0=0x3/0xf,reg4=0/0x100000 actions=goto_table:EgressMark`,
		),
		flow(EGRESS, "EgressMark", `priority=190,ct_state=+new+trk,${ip},reg0=0x1/0xf actions=drop`),
	];
}
