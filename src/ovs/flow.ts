// Flows as ovs-ofctl prints them, and what ONCache reads in them. Pure.
import { type Ip, parseIp } from "../net/ip.js";
import type { Ipv4 } from "../net/ipv4.js";

export interface OpenFlow {
	/** Name, or number where the table has none. */
	table: string;
	/** As in "0x1010000000000". */
	cookie: string;
	/** Priority and matches: "priority=200,ip,in_port=antrea-gw0". */
	match: string;
	actions: string;
}

/** Of "dump-flows --names"; what is no flow is left out. */
export function parseFlows(text: string): OpenFlow[] {
	return text.split("\n").flatMap((line) => {
		// A cookie of 0 and table 0 are not printed.
		const [, head = "", match, actions] = /^ *((?:\w+=[^ ]*, )*)(\S*) actions=(.*)$/.exec(line) ?? [];
		if (match === undefined || actions === undefined) return [];
		return [{ table: field(head, "table") ?? "0", cookie: field(head, "cookie") ?? "0x0", match, actions }];
	});
}

/** What comes after connection tracking: the zone, and the table in which its answer is known. */
export interface Tracking {
	/** By family; undefined: it differs from packet to packet, or nobody asks. */
	zones: { ipv4: number | undefined; ipv6: number | undefined };
	table: string;
}

export function findTracking(flows: readonly OpenFlow[]): Tracking | undefined {
	const found = flows.flatMap(({ match, actions }) => {
		const [, words] = /\bct\(([^()]*(?:\([^()]*\)[^()]*)*)\)/.exec(actions) ?? [];
		const table = words && field(words, "table");
		if (words === undefined || table === undefined || /\bcommit\b/.test(words)) return [];
		const zone = Number(field(words, "zone") ?? 0);
		const [, family] = /(?:^|,)(ipv6|ip)(?:,|$)/.exec(match) ?? [];
		return [{ table, family, zone: Number.isInteger(zone) ? zone : undefined }];
	});
	const zoneOf = (family: string): number | undefined => found.find((each) => (each.family ?? family) === family)?.zone;
	return found[0] && { zones: { ipv4: zoneOf("ip"), ipv6: zoneOf("ipv6") }, table: found[0].table };
}

/** Where tunnels lead to. */
export function findRemotes(flows: readonly OpenFlow[]): Ip[] {
	const found = flows.flatMap(({ actions }) => {
		const [, address] = /set_field:([\d.]+|[\da-f:.]+:[\da-f:.]*)->tun_(?:ipv6_)?dst\b/.exec(actions) ?? [];
		const [, number] = /load:0x([0-9a-f]{1,8})->NXM_NX_TUN_IPV4_DST\[\]/.exec(actions) ?? [];
		if (address !== undefined) return [parseIp(address)];
		return number === undefined ? [] : [Number.parseInt(number, 16) as Ipv4];
	});
	return [...new Set(found)];
}

/** The ports that are named by the matches, by name or number: those of whom a flow says something particular. */
export function findPorts(flows: readonly OpenFlow[]): (string | number)[] {
	return flows.flatMap(({ match }) => {
		const name = field(match, "in_port")?.replaceAll('"', "");
		const register = field(match, "reg1");
		return [...(name === undefined ? [] : [name]), ...(register === undefined ? [] : [Number(register)])];
	});
}

function field(words: string, name: string): string | undefined {
	return new RegExp(`(?:^|[ ,])${name}=([^, )]*)`).exec(words)?.[1];
}
