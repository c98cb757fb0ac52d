// A Service, and how kube-proxy names and marks in both of its modes. Pure.
import { createHash } from "node:crypto";
import { isIPv6 } from "node:net";
import type { Family } from "./topology.js";

export interface Service {
	/** Namespace, name and name of the port, such as "default/web:http". */
	name: string;
	clusterIp: string;
	port: number;
	protocol: "tcp" | "udp";
	/** Of the family of `clusterIp`; without any, connections are rejected. */
	backends: readonly Backend[];
	/** A client keeps its backend until it was away for so long. */
	affinitySeconds?: number;
	/** On every host's own address. */
	nodePort?: number;
	/** Which others route to the hosts. */
	externalIps?: readonly string[];
}

export interface Backend {
	ip: string;
	port: number;
}

/** kube-proxy's mark on packets that are to be masqueraded. */
export const MASQUERADE_MARK = "0x4000";

export function endpoint({ ip, port }: Backend): string {
	return ip.includes(":") ? `[${ip}]:${port}` : `${ip}:${port}`;
}

export function familyOf(ip: string): Family {
	return isIPv6(ip) ? 6 : 4;
}

/** As kube-proxy names chains: the first `length` characters of the base32 of the SHA-256. */
export function shortHash(text: string, length: number): string {
	const digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
	const bits = [...createHash("sha256").update(text).digest()]
		.map((byte) => byte.toString(2).padStart(8, "0"))
		.join("");
	return Array.from({ length }, (_, i) => digits[Number.parseInt(bits.slice(5 * i, 5 * i + 5), 2)]).join("");
}
