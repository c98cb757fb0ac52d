// Services as AntreaProxy makes them, in the switch of a host: a group chooses the endpoint, connection tracking translates to
// it (docs/design/ovs-pipeline.md of Antrea: SessionAffinity, ServiceLB, EndpointDNAT).

import { parseIp } from "../net/ip.js";
import { CT_ZONE, DESTINATION, numbered, REWRITE_MAC, SELECTED, TO_LEARN, TO_SELECT } from "./antrea.js";
import { endpoint, familyOf, type Service } from "./service.js";
import { forgetStaleFlows } from "./services.js";
import { ovs } from "./switch.js";
import { type LabHost, SWITCH } from "./topology.js";

/** Of the flows of Services, beside what the pipeline always has. */
const COOKIE = "0x1030000000001";
/** Of what the group has put into the packet's registers. */
const LEARNED_COOKIE = "0x1030000000002";

/** Replaces the host's Services in one transaction; UDP flows to endpoints that are gone are forgotten, as Antrea's agent does. */
export async function applyAntreaServices(host: LabHost, services: readonly Service[]): Promise<void> {
	const lines = [
		`flow delete cookie=${COOKIE}/-1`,
		`flow delete cookie=${LEARNED_COOKIE}/-1`,
		"group delete",
		...services.flatMap((service, i) => [groupOf(service, i + 1), ...flowsOf(service, i + 1)]),
	];
	await ovs(host, ["ovs-ofctl", "-O", "OpenFlow15", "bundle", SWITCH, "-"], {
		input: `${lines.map(numbered).join("\n")}\n`,
	});
	for (const service of services)
		if (service.protocol === "udp") await forgetStaleFlows(host, service, CT_ZONE[familyOf(service.clusterIp)]);
}

function groupOf({ backends, affinitySeconds }: Service, id: number): string {
	const next = affinitySeconds === undefined ? "EndpointDNAT" : "ServiceLB";
	const buckets = backends.map(
		({ ip, port }, i) =>
			`bucket=bucket_id:${i},weight:100,actions=set_field:${hexOf(ip)}->${registerOf(ip)},` +
			`set_field:0x${port.toString(16)}/0xffff->reg4,resubmit(,${next})`,
	);
	return `group add group_id=${id},type=select,${buckets.join(",")}`;
}

function flowsOf(service: Service, id: number): string[] {
	const { clusterIp, port, protocol, backends, affinitySeconds } = service;
	const family = familyOf(clusterIp);
	const proto = family === 4 ? protocol : `${protocol}6`;
	const called = `${proto},${DESTINATION[family]}=${clusterIp},tp_dst=${port}`;
	const flow = (table: string, rest: string): string => `flow add cookie=${COOKIE},table=${table},${rest}`;
	const isSticky = affinitySeconds !== undefined;
	const state = (isSticky ? TO_LEARN : SELECTED).toString(16);
	return [
		flow(
			"ServiceLB",
			`priority=200,${called},reg4=${TO_SELECT},actions=${REWRITE_MAC},set_field:0x${state}/0x70000->reg4,` +
				`set_field:0x${id.toString(16)}->reg7,group:${id}`,
		),
		...(isSticky
			? [
					flow(
						"ServiceLB",
						`priority=190,${called},reg4=0x${state}/0x70000,actions=${learn(service)},goto_table:EndpointDNAT`,
					),
				]
			: []),
		...backends.map((backend) =>
			flow(
				"EndpointDNAT",
				`priority=200,${proto},${registerOf(backend.ip)}=${hexOf(backend.ip)},` +
					`reg4=0x${(SELECTED + backend.port).toString(16)}/0x7ffff,` +
					`actions=ct(commit,table=AntreaPolicyEgressRule,zone=${CT_ZONE[family]},nat(dst=${endpoint(backend)}),` +
					"exec(set_field:0x10/0x10->ct_mark,move:NXM_NX_REG0[0..3]->NXM_NX_CT_MARK[0..3]))",
			),
		),
	];
}

/** The client's next connections have the same endpoint: the switch writes a flow for it by itself. */
function learn({ clusterIp, protocol, affinitySeconds }: Service): string {
	const family = familyOf(clusterIp);
	const [ethertype, number, name] = [
		family === 4 ? "0x800" : "0x86dd",
		protocol === "tcp" ? 6 : 17,
		protocol.toUpperCase(),
	];
	const addresses =
		family === 4
			? "NXM_OF_IP_DST[],NXM_OF_IP_SRC[],load:NXM_NX_REG3[]->NXM_NX_REG3[]"
			: "NXM_NX_IPV6_DST[],NXM_NX_IPV6_SRC[],load:NXM_NX_XXREG3[]->NXM_NX_XXREG3[]";
	return (
		`learn(table=SessionAffinity,hard_timeout=${affinitySeconds},priority=200,delete_learned,cookie=${LEARNED_COOKIE},` +
		`eth_type=${ethertype},nw_proto=${number},OXM_OF_${name}_DST[],${addresses},` +
		"load:NXM_NX_REG4[0..15]->NXM_NX_REG4[0..15],load:0x2->NXM_NX_REG4[16..18],load:0x1->NXM_NX_REG0[9])," +
		`set_field:0x${SELECTED.toString(16)}/0x70000->reg4`
	);
}

const registerOf = (ip: string): string => (familyOf(ip) === 4 ? "reg3" : "xxreg3");

/** As a register has it. */
function hexOf(ip: string): string {
	return `0x${parseIp(ip).toString(16)}`;
}
