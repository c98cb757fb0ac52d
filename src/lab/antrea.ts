// Antrea's OpenFlow pipeline as it is in encapsulation mode: tables, zones, marks and registers as its documentation
// (docs/design/ovs-pipeline.md) lists them, for the lab's pods and peers. Answers the input of ovs-ofctl. Pure.
import { GLOBAL_MAC, type Lab, type LabHost } from "./topology.js";

/** In the order of their numbers. */
export const TABLES = [
	"PipelineRootClassifier",
	"ARPSpoofGuard",
	"ARPResponder",
	"Classifier",
	"SpoofGuard",
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

export const CT_ZONE = 65520;
const SNAT_CT_ZONE = 65521;
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
const REWRITE_MAC = "set_field:0x200/0x200->reg0";
const FROM_LOCAL = "set_field:0x10000000/0x10000000->reg4";
const FROM_EXTERNAL = "set_field:0x8000000/0x8000000->reg4";
const outputTo = (port: number): string => `set_field:0x${port.toString(16)}->reg1,set_field:0x200000/0x600000->reg0`;

/** Tables by their names; numbered() makes it what ovs-ofctl reads. */
export function pipeline(host: LabHost, lab: Lab): string[] {
	const peers = lab.hosts.filter((other) => other !== host);
	return [
		...misses(),
		...connectivity(host),
		...host.pods.flatMap(({ ip, mac }, i) => podFlows(ip, mac, FIRST_POD_PORT + i, host)),
		...peers.flatMap((peer) => peerFlows(peer, host)),
		...policies(),
		...services(),
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
		SessionAffinity: "set_field:0x10000/0x70000->reg4,goto_table:ServiceLB",
		L3Forwarding: `${TO_GATEWAY},goto_table:L2ForwardingCalc`,
		EgressMark: `${TO_GATEWAY},goto_table:L2ForwardingCalc`,
		PreRoutingClassifier: "goto_table:SessionAffinity",
	};
	return TABLES.map((table, i) => {
		const action = drops.includes(table) ? "drop" : (others[table] ?? `goto_table:${TABLES[i + 1]}`);
		return `cookie=${DEFAULT}, table=${table}, priority=0 actions=${action}`;
	});
}

function connectivity(host: LabHost): string[] {
	const { gateway, bridgeMac: mac, podCidr } = host;
	const flow = (table: string, rest: string): string => `cookie=${CONNECTIVITY}, table=${table}, ${rest}`;
	return [
		flow("PipelineRootClassifier", "priority=200,arp actions=goto_table:ARPSpoofGuard"),
		flow("PipelineRootClassifier", "priority=200,ip actions=goto_table:Classifier"),
		flow(
			"ARPSpoofGuard",
			`priority=200,arp,in_port=${GATEWAY_PORT},arp_spa=${gateway},arp_sha=${mac} actions=goto_table:ARPResponder`,
		),
		flow("ARPResponder", "priority=190,arp actions=NORMAL"),
		flow(
			"Classifier",
			`priority=210,ip,in_port=${GATEWAY_PORT},nw_src=${gateway} actions=${FROM_GATEWAY},${FROM_LOCAL},goto_table:SpoofGuard`,
		),
		flow(
			"Classifier",
			`priority=200,in_port=${GATEWAY_PORT} actions=${FROM_GATEWAY},${FROM_EXTERNAL},goto_table:SpoofGuard`,
		),
		flow("Classifier", `priority=200,in_port=${TUNNEL_PORT} actions=${FROM_TUNNEL},${REWRITE_MAC},goto_table:UnSNAT`),
		flow("SpoofGuard", `priority=200,ip,in_port=${GATEWAY_PORT} actions=goto_table:UnSNAT`),
		flow("ConntrackZone", `priority=200,ip actions=ct(table=ConntrackState,zone=${CT_ZONE},nat)`),
		flow("ConntrackState", "priority=200,ct_state=+inv+trk,ip actions=drop"),
		flow(
			"ConntrackState",
			"priority=190,ct_state=-new+trk,ct_mark=0x0/0x10,ip actions=goto_table:AntreaPolicyEgressRule",
		),
		flow(
			"L3Forwarding",
			`priority=210,ip,nw_dst=${gateway} actions=set_field:${mac}->eth_dst,${TO_GATEWAY},goto_table:L3DecTTL`,
		),
		flow(
			"L3Forwarding",
			`priority=210,ct_state=+rpl+trk,ct_mark=0x2/0xf,ip actions=set_field:${mac}->eth_dst,${TO_GATEWAY},goto_table:L3DecTTL`,
		),
		flow("L3Forwarding", `priority=200,ip,reg0=0/0x200,nw_dst=${podCidr} actions=goto_table:L2ForwardingCalc`),
		flow("L3DecTTL", "priority=210,ip,reg0=0x2/0xf actions=goto_table:SNATMark"),
		flow("L3DecTTL", "priority=200,ip actions=dec_ttl,goto_table:SNATMark"),
		flow("L2ForwardingCalc", `priority=200,dl_dst=${mac} actions=${outputTo(GATEWAY_PORT)},goto_table:TrafficControl`),
		flow(
			"L2ForwardingCalc",
			`priority=200,dl_dst=${GLOBAL_MAC} actions=${outputTo(TUNNEL_PORT)},goto_table:TrafficControl`,
		),
		flow(
			"IngressSecurityClassifier",
			"priority=210,pkt_mark=0x80000000/0x80000000,ct_state=-rpl+trk,ip actions=goto_table:ConntrackCommit",
		),
		...["0x20/0xf0", "0x10/0xf0"].map((to) =>
			flow("IngressSecurityClassifier", `priority=200,reg0=${to} actions=goto_table:IngressMetric`),
		),
		flow(
			"ConntrackCommit",
			`priority=200,ct_state=+new+trk-snat,ct_mark=0x0/0x10,ip actions=ct(commit,table=Output,zone=${CT_ZONE},exec(move:NXM_NX_REG0[0..3]->NXM_NX_CT_MARK[0..3]))`,
		),
		flow("Output", "priority=200,reg0=0x200000/0x600000 actions=output:NXM_NX_REG1[]"),
	];
}

function podFlows(ip: string, mac: string, port: number, { bridgeMac }: LabHost): string[] {
	const flow = (table: string, rest: string): string => `cookie=${CONNECTIVITY}, table=${table}, ${rest}`;
	return [
		flow(
			"ARPSpoofGuard",
			`priority=200,arp,in_port=${port},arp_spa=${ip},arp_sha=${mac} actions=goto_table:ARPResponder`,
		),
		flow("Classifier", `priority=190,in_port=${port} actions=${FROM_POD},${FROM_LOCAL},goto_table:SpoofGuard`),
		flow("SpoofGuard", `priority=200,ip,in_port=${port},dl_src=${mac},nw_src=${ip} actions=goto_table:UnSNAT`),
		flow(
			"L3Forwarding",
			`priority=200,ip,reg0=0x200/0x200,nw_dst=${ip} actions=set_field:${bridgeMac}->eth_src,set_field:${mac}->eth_dst,goto_table:L3DecTTL`,
		),
		flow("L2ForwardingCalc", `priority=200,dl_dst=${mac} actions=${outputTo(port)},goto_table:TrafficControl`),
	];
}

function peerFlows(peer: LabHost, { bridgeMac }: LabHost): string[] {
	const { gateway, podCidr, ip } = peer;
	return [
		`cookie=${CONNECTIVITY}, table=ARPResponder, priority=200,arp,arp_tpa=${gateway},arp_op=1 ` +
			`actions=move:NXM_OF_ETH_SRC[]->NXM_OF_ETH_DST[],set_field:${GLOBAL_MAC}->eth_src,set_field:2->arp_op,` +
			`move:NXM_NX_ARP_SHA[]->NXM_NX_ARP_THA[],set_field:${GLOBAL_MAC}->arp_sha,` +
			`move:NXM_OF_ARP_SPA[]->NXM_OF_ARP_TPA[],set_field:${gateway}->arp_spa,IN_PORT`,
		`cookie=${CONNECTIVITY}, table=L3Forwarding, priority=200,ip,nw_dst=${podCidr} ` +
			`actions=set_field:${bridgeMac}->eth_src,set_field:${GLOBAL_MAC}->eth_dst,set_field:${ip}->tun_dst,${TO_TUNNEL},goto_table:L3DecTTL`,
	];
}

/** A connection that a policy let in stays: so does Antrea for what is established. */
function policies(): string[] {
	return [
		["AntreaPolicyEgressRule", 64990, "EgressMetric"],
		["EgressRule", 210, "EgressMetric"],
		["AntreaPolicyIngressRule", 64990, "IngressMetric"],
		["IngressRule", 210, "IngressMetric"],
	].flatMap(([table, priority, next]) =>
		["est", "rel"].map(
			(state) =>
				`cookie=${POLICY}, table=${table}, priority=${priority},ct_state=-new+${state},ip actions=goto_table:${next}`,
		),
	);
}

/** Without Services: what AntreaProxy and Egress always have. */
function services(): string[] {
	return [
		`cookie=${SERVICE}, table=UnSNAT, priority=200,ip,nw_dst=169.254.0.253 actions=ct(table=ConntrackZone,zone=${SNAT_CT_ZONE},nat)`,
		`cookie=${SERVICE}, table=ConntrackState, priority=190,ct_state=-new+trk,ct_mark=0x10/0x10,ip actions=${REWRITE_MAC},goto_table:AntreaPolicyEgressRule`,
		`cookie=${SERVICE}, table=EndpointDNAT, priority=190,reg4=0x20000/0x70000 actions=set_field:0x10000/0x70000->reg4,resubmit(,ServiceLB)`,
		`cookie=${SERVICE}, table=SNAT, priority=200,ct_state=-new-rpl+trk,ct_mark=0x20/0x20,ip actions=ct(table=L2ForwardingCalc,zone=${SNAT_CT_ZONE},nat)`,
		`cookie=${EGRESS}, table=L3Forwarding, priority=190,ct_state=-rpl+trk,ip,reg0=0x3/0xf,reg4=0/0x100000 actions=goto_table:EgressMark`,
		`cookie=${EGRESS}, table=EgressMark, priority=190,ct_state=+new+trk,ip,reg0=0x1/0xf actions=drop`,
	];
}
