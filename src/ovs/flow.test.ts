import assert from "node:assert/strict";
import { test } from "node:test";
import { formatIp } from "../net/ip.js";
import { findPorts, findRemotes, findTracking, parseFlows } from "./flow.js";

const DUMP = `NXST_FLOW reply (xid=0x4):
 cookie=0x1010000000000, table=ConntrackZone, priority=200,ip actions=ct(table=ConntrackState,zone=65520,nat)
 cookie=0x1010000000000, table=ConntrackZone, priority=200,ipv6 actions=ct(table=ConntrackState,zone=65510,nat)
 cookie=0x1010000000000, duration=1.2s, table=L3Forwarding, n_packets=0, priority=200,ip,nw_dst=10.244.2.0/24 actions=mod_dl_src:0a:30:f4:00:01:00,load:0xc0a84d02->NXM_NX_TUN_IPV4_DST[],resubmit(,L3DecTTL)
 cookie=0x1010000000000, table=L3Forwarding, priority=200,ip,nw_dst=10.244.3.0/24 actions=set_field:192.168.77.3->tun_dst,goto_table:L3DecTTL
 cookie=0x1010000000000, table=L3Forwarding, priority=200,ipv6,ipv6_dst=fd00:10:244:4::/64 actions=set_field:fd00:77::4->tun_ipv6_dst,goto_table:L3DecTTL
 table=TrafficControl, priority=200,in_port="pod-1" actions=load:0x2->NXM_NX_REG9[]
 table=TrafficControl, priority=200,reg1=0x25 actions=load:0x2->NXM_NX_REG9[]
 priority=0 actions=drop
`;
const flows = parseFlows(DUMP);
const of = (table: string) => flows.filter((flow) => flow.table === table);

test("parseFlows() reads what ovs-ofctl prints, with and without statistics, cookie and table", () => {
	assert.equal(flows.length, 8);
	assert.deepEqual(flows.at(-1), { table: "0", cookie: "0x0", match: "priority=0", actions: "drop" });
	assert.equal(flows[2]?.match, "priority=200,ip,nw_dst=10.244.2.0/24");
});

test("findTracking() finds the zones of both families and the next table, and says when a zone is not one number", () => {
	assert.deepEqual(findTracking(of("ConntrackZone")), {
		zones: { ipv4: 65520, ipv6: 65510 },
		table: "ConntrackState",
	});
	assert.deepEqual(findTracking(of("ConntrackZone").slice(0, 1)), {
		zones: { ipv4: 65520, ipv6: undefined },
		table: "ConntrackState",
	});
	assert.deepEqual(findTracking(parseFlows(" priority=1 actions=ct(table=7,zone=3)")), {
		zones: { ipv4: 3, ipv6: 3 },
		table: "7",
	});
	assert.deepEqual(findTracking(parseFlows(" priority=1,ip actions=ct(table=7,zone=NXM_NX_REG8[0..15],nat)")), {
		zones: { ipv4: undefined, ipv6: undefined },
		table: "7",
	});
	assert.deepEqual(findTracking(parseFlows(" priority=1,ip actions=ct(table=7,zone=3,nat(src=10.0.0.1))")), {
		zones: { ipv4: 3, ipv6: undefined },
		table: "7",
	});
	assert.equal(findTracking(parseFlows(" priority=1,ip actions=ct(commit,table=7,zone=3)")), undefined);
	assert.equal(findTracking([]), undefined);
});

test("findRemotes() finds where tunnels lead to, in both spellings and families", () => {
	assert.deepEqual(findRemotes(of("L3Forwarding")).map(formatIp), ["192.168.77.2", "192.168.77.3", "fd00:77::4"]);
});

test("findPorts() finds ports by name, and by the number in the register of the output port", () => {
	assert.deepEqual(findPorts(of("TrafficControl")), ["pod-1", 0x25]);
});
