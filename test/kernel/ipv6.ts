// The IPv6 addresses of world.ts, and what its pods say over them.
//
//   pod fd00:10:244:1::2 --- pod0   flannel.1   up0 --- host 192.168.77.2, pod fd00:10:244:2::2
import { type Ipv6Header, icmp, ipv6, tcp, udp } from "./packet.js";
import {
	ECHO_ID, type L4, LOCAL_PORT, MARK, outbound, REMOTE_PORT, tool, toPod, type World,
} from "./world.js"; // biome-ignore format: a list

export const POD6 = "fd00:10:244:1::2";
export const REMOTE6 = "fd00:10:244:2::2";
export const PROTOCOL6 = { icmp: 58, tcp: 6, udp: 17 } as const;
export const [ECHO_REQUEST, ECHO_REPLY] = [128, 129];
const FLOW_LABEL = 0x54321;

/** The pod's packet, or the answer to it. */
export function inner6(
	l4: L4,
	direction: "egress" | "ingress",
	header: Partial<Ipv6Header> = {},
	payload = "hello",
): Buffer {
	const out = direction === "egress";
	const ports = out
		? { source: LOCAL_PORT, destination: REMOTE_PORT }
		: { source: REMOTE_PORT, destination: LOCAL_PORT };
	const body = {
		tcp: () => tcp(ports, payload),
		udp: () => udp(ports, payload),
		icmp: () => icmp(out ? ECHO_REQUEST : ECHO_REPLY, 0, ECHO_ID, payload),
	}[l4]();
	return ipv6(
		{
			source: out ? POD6 : REMOTE6,
			destination: out ? REMOTE6 : POD6,
			nextHeader: PROTOCOL6[l4],
			flowLabel: FLOW_LABEL,
			...header,
		},
		body,
	);
}

const tracked = new Set<string>();

/** An established entry of connection tracking, made with conntrack-tools. */
export function track6(
	l4: L4,
	flags = "SEEN_REPLY,ASSURED",
	ports = { local: LOCAL_PORT, remote: REMOTE_PORT },
	zone = 0,
): void {
	const key = `${l4} ${flags} ${ports.local} ${ports.remote} ${zone}`;
	if (l4 === "icmp" || tracked.has(key)) return;
	tracked.add(key);
	const state = l4 === "tcp" ? ["--state", "ESTABLISHED"] : [];
	tool("conntrack", "-I", "-p", l4, "-s", POD6, "-d", REMOTE6, "--sport", String(ports.local), "--dport", String(ports.remote),
		"--timeout", "600", "--status", flags, ...state, ...(zone === 0 ? [] : ["--zone", String(zone)])); // biome-ignore format: one command
}

/** Both init programs see the flow carried by the fallback. */
export function teach6(world: World, l4: L4): void {
	track6(l4);
	world.run("egress_init", outbound(inner6(l4, "egress", { hopLimit: 63 })), { mark: MARK });
	world.run("ingress_init", toPod(inner6(l4, "ingress", { hopLimit: 62 })), { mark: MARK });
}
