// RTM_NEWQDISC and RTM_NEWTFILTER: bytes to Qdisc and Filter (struct tcmsg of include/uapi/linux/rtnetlink.h).
import { parseAttributes, readText } from "./attribute.js";
import type { Filter, Qdisc } from "./link.js";

export const TCMSG_BYTES = 20;
const TCA = { kind: 1, options: 2 };
const TCA_BPF = { name: 7, id: 11 };

export function decodeQdisc(body: Buffer): Qdisc {
	return {
		ifindex: body.readInt32LE(4),
		kind: readText(parseAttributes(body, TCMSG_BYTES).get(TCA.kind)) ?? "",
		handle: body.readUInt32LE(8),
		parent: body.readUInt32LE(12),
	};
}

/** Undefined for the empty message that opens the classifiers of each priority. */
export function decodeFilter(body: Buffer): Filter | undefined {
	const attributes = parseAttributes(body, TCMSG_BYTES);
	const options = attributes.get(TCA.options);
	if (options === undefined) return undefined;
	const kind = readText(attributes.get(TCA.kind)) ?? "";
	const bpf = kind === "bpf" ? parseAttributes(options) : undefined;
	return {
		ifindex: body.readInt32LE(4),
		parent: body.readUInt32LE(12),
		kind,
		priority: body.readUInt32LE(16) >>> 16,
		handle: body.readUInt32LE(8),
		bpfName: readText(bpf?.get(TCA_BPF.name)),
		bpfId: bpf?.get(TCA_BPF.id)?.readUInt32LE(),
	};
}
