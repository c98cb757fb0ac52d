// Which flows connection tracking knows, by the addresses and ports of both directions (net/netfilter/nf_conntrack_netlink.c).
import { decodeIp, formatIp, type Ip } from "../net/ip.js";
import { type Attributes, parseAttributes } from "./attribute.js";
import { KernelError } from "./error.js";
import { NETLINK_NETFILTER, Netlink } from "./netlink.js";

const IPCTNL_MSG_CT_GET = (1 << 8) | 1;
const IPCTNL_MSG_CT_GET_STATS = (1 << 8) | 5;
const NFGENMSG_BYTES = 4;
const AF_UNSPEC = 0;
const CTA = { tupleOrig: 1, tupleReply: 2 };
const CTA_TUPLE = { ip: 1, proto: 2 };
const CTA_IP = { source: 1, destination: 2, source6: 3, destination6: 4 };
const CTA_PROTO = { number: 1, sourcePort: 2, destinationPort: 3 };

export interface Tuple {
	/** IP protocol number. */
	proto: number;
	sourceIp: Ip;
	destinationIp: Ip;
	sourcePort: number;
	destinationPort: number;
}

interface End {
	ip: Ip;
	port: number;
}

/** TCP and UDP over both families, as each direction comes into this host. O(entries) once; each question is one look-up. */
export function trackedFlows(): (proto: number, source: End, destination: End) => boolean {
	const known = new Set<string>();
	const netlink = Netlink.open(NETLINK_NETFILTER);
	try {
		const body = Buffer.alloc(NFGENMSG_BYTES);
		body.writeUInt8(AF_UNSPEC, 0);
		netlink.dump({ type: IPCTNL_MSG_CT_GET, body, action: "list connection tracking entries" }, (answer) => {
			const attributes = parseAttributes(answer, NFGENMSG_BYTES);
			for (const which of [CTA.tupleOrig, CTA.tupleReply]) {
				const tuple = decodeTuple(attributes.get(which));
				if (tuple) known.add(textOf(tuple));
			}
			return undefined;
		});
	} finally {
		netlink.close();
	}
	return (proto, source, destination) =>
		known.has(
			textOf({
				proto,
				sourceIp: source.ip,
				sourcePort: source.port,
				destinationIp: destination.ip,
				destinationPort: destination.port,
			}),
		);
}

/** Where it is a module, the kernel loads it for whoever asks about it. Where there is none at all, nothing happens. */
export function loadConntrack(): void {
	const netlink = Netlink.open(NETLINK_NETFILTER);
	try {
		const question = {
			type: IPCTNL_MSG_CT_GET_STATS,
			body: Buffer.alloc(NFGENMSG_BYTES),
			action: "ask connection tracking",
		};
		netlink.request(question, () => undefined);
	} catch (error) {
		if (!(error instanceof KernelError)) throw error;
	} finally {
		netlink.close();
	}
}

function decodeTuple(bytes: Buffer | undefined): Tuple | undefined {
	if (bytes === undefined) return undefined;
	const tuple = parseAttributes(bytes);
	const ip = inner(tuple, CTA_TUPLE.ip);
	const proto = inner(tuple, CTA_TUPLE.proto);
	const sourceIp = addressOf(ip?.get(CTA_IP.source) ?? ip?.get(CTA_IP.source6));
	const destinationIp = addressOf(ip?.get(CTA_IP.destination) ?? ip?.get(CTA_IP.destination6));
	const sourcePort = proto?.get(CTA_PROTO.sourcePort)?.readUInt16BE();
	const destinationPort = proto?.get(CTA_PROTO.destinationPort)?.readUInt16BE();
	if (sourceIp === undefined || destinationIp === undefined) return undefined;
	if (sourcePort === undefined || destinationPort === undefined) return undefined;
	return {
		proto: proto?.get(CTA_PROTO.number)?.readUInt8() ?? 0,
		sourceIp,
		destinationIp,
		sourcePort,
		destinationPort,
	};
}

function addressOf(bytes: Buffer | undefined): Ip | undefined {
	return bytes && decodeIp(bytes);
}

function inner(attributes: Attributes, type: number): Attributes | undefined {
	const bytes = attributes.get(type);
	return bytes && parseAttributes(bytes);
}

function textOf({ proto, sourceIp, sourcePort, destinationIp, destinationPort }: Tuple): string {
	return `${proto} ${formatIp(sourceIp)} ${sourcePort} ${formatIp(destinationIp)} ${destinationPort}`;
}
