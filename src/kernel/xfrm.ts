// IPsec policies of this network namespace: what they encrypt is encrypted after the overlay has encapsulated it, so nothing
// may be sent past them (include/uapi/linux/xfrm.h).
import { IPV4_BYTES, IPV6_BYTES } from "../net/ip.js";
import { parseAttributes } from "./attribute.js";
import { KernelError } from "./error.js";
import { Netlink } from "./netlink.js";

const NETLINK_XFRM = 6;
const XFRM_MSG_GETPOLICY = 0x15;
/** struct xfrm_userpolicy_id, the request; struct xfrm_userpolicy_info, the answer. */
const ID_BYTES = 64;
const INFO_BYTES = 168;
const SELECTOR = { daddr: 0, dport: 32, dportMask: 34, family: 40, prefixLength: 42, proto: 44 };
const INFO = { direction: 160, action: 161 };
const XFRMA_TMPL = 5;
const XFRM_POLICY_OUT = 1;
const XFRM_POLICY_ALLOW = 0;
const AF_INET6 = 10;

/** Of packets that this host sends. */
export interface XfrmPolicy {
	family: 4 | 6;
	/** In network order; of no meaning beyond the prefix. */
	destination: Uint8Array;
	prefixLength: number;
	/** IP protocol; 0: any. */
	protocol: number;
	/** UDP or TCP destination port; undefined: any. */
	port: number | undefined;
}

/** Policies that transform what this host sends. O(policies). A kernel without IPsec has none. */
export function sendingPolicies(): XfrmPolicy[] {
	let netlink: Netlink;
	try {
		netlink = Netlink.open(NETLINK_XFRM);
	} catch (error) {
		if (error instanceof KernelError && error.code === "EPROTONOSUPPORT") return [];
		throw error;
	}
	try {
		return netlink.dump(
			{ type: XFRM_MSG_GETPOLICY, body: Buffer.alloc(ID_BYTES), action: "list IPsec policies" },
			decodePolicy,
		);
	} catch (error) {
		// Nobody listens, or not to us: an unprivileged command.
		if (error instanceof KernelError && ["ECONNREFUSED", "EPERM"].includes(error.code)) return [];
		throw error;
	} finally {
		netlink.close();
	}
}

/** Undefined: it does not transform what is sent. */
export function decodePolicy(body: Buffer): XfrmPolicy | undefined {
	if (body.length < INFO_BYTES)
		throw new RangeError(`Cannot parse an IPsec policy: it has ${body.length} bytes of ${INFO_BYTES}`);
	if (body.readUInt8(INFO.direction) !== XFRM_POLICY_OUT || body.readUInt8(INFO.action) !== XFRM_POLICY_ALLOW)
		return undefined;
	if (!parseAttributes(body, INFO_BYTES).has(XFRMA_TMPL)) return undefined;
	const family = body.readUInt16LE(SELECTOR.family) === AF_INET6 ? 6 : 4;
	const bytes = family === 6 ? IPV6_BYTES : IPV4_BYTES;
	return {
		family,
		destination: Uint8Array.from(body.subarray(SELECTOR.daddr, SELECTOR.daddr + bytes)),
		prefixLength: body.readUInt8(SELECTOR.prefixLength),
		protocol: body.readUInt8(SELECTOR.proto),
		port: body.readUInt16BE(SELECTOR.dportMask) === 0 ? undefined : body.readUInt16BE(SELECTOR.dport),
	};
}
