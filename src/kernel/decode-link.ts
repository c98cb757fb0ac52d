// RTM_NEWLINK: bytes to Link (include/uapi/linux/if_link.h).
import { decodeIp } from "../net/ip.js";
import { readMac } from "../net/mac.js";
import { type Attributes, isSet, parseAttributes, readText } from "./attribute.js";
import type { GeneveInfo, Link, VxlanInfo } from "./link.js";

export const IFINFOMSG_BYTES = 16;
const ARPHRD_ETHER = 1;
const ARPHRD_LOOPBACK = 772;
const IFF_UP = 0x1;
const IFF_LOOPBACK = 0x8;

const IFLA = {
	address: 1,
	name: 3,
	mtu: 4,
	link: 5,
	master: 10,
	info: 18,
	linkNetnsid: 37,
};
const IFLA_INFO = { kind: 1, data: 2 };
const IFLA_VXLAN = {
	id: 1,
	link: 3,
	local: 4,
	ttl: 5,
	tos: 6,
	portRange: 10,
	port: 15,
	group6: 16,
	local6: 17,
	udpChecksum: 18,
	zeroChecksum6Tx: 19,
	zeroChecksum6Rx: 20,
	remoteChecksumTx: 21,
	remoteChecksumRx: 22,
	groupPolicy: 23,
	collectMetadata: 25,
	genericProtocol: 27,
	ttlInherit: 28,
	df: 29,
	labelPolicy: 32,
};
const IFLA_GENEVE = {
	id: 1,
	remote: 2,
	tos: 4,
	port: 5,
	collectMetadata: 6,
	remote6: 7,
	udpChecksum: 8,
	zeroChecksum6Tx: 9,
	zeroChecksum6Rx: 10,
	ttlInherit: 12,
	df: 13,
	innerProtocolInherit: 14,
};
const IFLA_BR_NF_CALL_IPTABLES = 36;
const VXLAN_LABEL_INHERIT = 1;
const DF = ["unset", "set", "inherit"] as const;

export function decodeLink(body: Buffer): Link {
	const attributes = parseAttributes(body, IFINFOMSG_BYTES);
	const info = attributes.get(IFLA.info);
	const infos = info && parseAttributes(info);
	const kind = readText(infos?.get(IFLA_INFO.kind));
	const data = infos?.get(IFLA_INFO.data);
	const hardware = body.readUInt16LE(2);
	const address = attributes.get(IFLA.address);
	const flags = body.readUInt32LE(8);
	return {
		ifindex: body.readInt32LE(4),
		name: readText(attributes.get(IFLA.name)) ?? "",
		kind,
		mac: address && (hardware === ARPHRD_ETHER || hardware === ARPHRD_LOOPBACK) ? readMac(address) : undefined,
		mtu: attributes.get(IFLA.mtu)?.readUInt32LE() ?? 0,
		up: (flags & IFF_UP) !== 0,
		loopback: (flags & IFF_LOOPBACK) !== 0,
		master: attributes.get(IFLA.master)?.readUInt32LE() || undefined,
		link: attributes.get(IFLA.link)?.readUInt32LE() || undefined,
		linkNetnsid: attributes.get(IFLA.linkNetnsid)?.readInt32LE(),
		vxlan: kind === "vxlan" && data ? decodeVxlan(parseAttributes(data)) : undefined,
		geneve: kind === "geneve" && data ? decodeGeneve(parseAttributes(data)) : undefined,
		bridge:
			kind === "bridge" && data ? { callsIptables: isSet(parseAttributes(data), IFLA_BR_NF_CALL_IPTABLES) } : undefined,
	};
}

function decodeVxlan(attributes: Attributes): VxlanInfo {
	const local = attributes.get(IFLA_VXLAN.local) ?? attributes.get(IFLA_VXLAN.local6);
	const range = attributes.get(IFLA_VXLAN.portRange);
	const has = (type: number) => isSet(attributes, type);
	return {
		vni: attributes.get(IFLA_VXLAN.id)?.readUInt32LE() ?? 0,
		port: attributes.get(IFLA_VXLAN.port)?.readUInt16BE() ?? 0,
		link: attributes.get(IFLA_VXLAN.link)?.readUInt32LE() || undefined,
		local: local && decodeIp(local),
		ipv6: attributes.has(IFLA_VXLAN.local6) || attributes.has(IFLA_VXLAN.group6),
		portRange: { low: range?.readUInt16BE(0) ?? 0, high: range?.readUInt16BE(2) ?? 0 },
		ttl: attributes.get(IFLA_VXLAN.ttl)?.readUInt8() ?? 0,
		ttlInherit: has(IFLA_VXLAN.ttlInherit),
		tos: attributes.get(IFLA_VXLAN.tos)?.readUInt8() ?? 0,
		df: DF[attributes.get(IFLA_VXLAN.df)?.readUInt8() ?? 0] ?? "unset",
		labelInherit: attributes.get(IFLA_VXLAN.labelPolicy)?.readUInt32LE() === VXLAN_LABEL_INHERIT,
		udpChecksum: has(IFLA_VXLAN.udpChecksum),
		zeroChecksum6: { tx: has(IFLA_VXLAN.zeroChecksum6Tx), rx: has(IFLA_VXLAN.zeroChecksum6Rx) },
		collectMetadata: has(IFLA_VXLAN.collectMetadata),
		extensions: [
			IFLA_VXLAN.remoteChecksumTx,
			IFLA_VXLAN.remoteChecksumRx,
			IFLA_VXLAN.groupPolicy,
			IFLA_VXLAN.genericProtocol,
		].some(has),
	};
}

function decodeGeneve(attributes: Attributes): GeneveInfo {
	const remote = attributes.get(IFLA_GENEVE.remote) ?? attributes.get(IFLA_GENEVE.remote6);
	return {
		vni: attributes.get(IFLA_GENEVE.id)?.readUInt32LE() ?? 0,
		port: attributes.get(IFLA_GENEVE.port)?.readUInt16BE() ?? 0,
		remote: remote && decodeIp(remote),
		ipv6: attributes.has(IFLA_GENEVE.remote6),
		ttlInherit: isSet(attributes, IFLA_GENEVE.ttlInherit),
		tos: attributes.get(IFLA_GENEVE.tos)?.readUInt8() ?? 0,
		df: DF[attributes.get(IFLA_GENEVE.df)?.readUInt8() ?? 0] ?? "unset",
		udpChecksum: isSet(attributes, IFLA_GENEVE.udpChecksum),
		zeroChecksum6: {
			tx: isSet(attributes, IFLA_GENEVE.zeroChecksum6Tx),
			rx: isSet(attributes, IFLA_GENEVE.zeroChecksum6Rx),
		},
		collectMetadata: attributes.has(IFLA_GENEVE.collectMetadata),
		innerProtocolInherit: attributes.has(IFLA_GENEVE.innerProtocolInherit),
	};
}
