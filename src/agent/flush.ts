// Evicts what a request names. Also without an agent, through the pins.
import type { Datapath } from "../datapath/datapath.js";
import { FlowKeys } from "../datapath/flows.js";
import { type Ip, isIpv6, parseIp } from "../net/ip.js";
import type { FlushRequest, FlushResult } from "./api.js";

const PROTOCOLS = { icmp: 1, tcp: 6, udp: 17 } as const;
const ICMPV6 = 58;

/** All and hosts: at once. A pod: at once where it is delivered to, O(flows) where it is sent to. */
export async function flush(datapath: Datapath, request: FlushRequest): Promise<FlushResult> {
	const result: FlushResult = { pods: 0, hosts: 0, flows: 0, all: request.all ?? false };
	if (request.all) datapath.flushAll();
	if (request.host !== undefined) result.hosts = datapath.flushHost(parseIp(request.host));
	if (request.pod !== undefined) {
		Object.assign(result, await evictAddresses(datapath, new Set([parseIp(request.pod)])));
	}
	if (request.flow) {
		const { protocol, a, b } = request.flow;
		const [localIp, remoteIp] = [parseIp(a.ip), parseIp(b.ip)];
		// No flow has one end of each family.
		if (isIpv6(localIp) === isIpv6(remoteIp))
			result.flows = datapath.flushFlow({
				proto: protocol === "icmp" && isIpv6(localIp) ? ICMPV6 : PROTOCOLS[protocol],
				localIp,
				localPort: a.port,
				remoteIp,
				remotePort: b.port,
			});
	}
	return result;
}

/** Every flow of these pods, of this host or of others. At once where they are delivered to, O(flows) where they are sent to. */
export async function evictAddresses(
	datapath: Datapath,
	ips: ReadonlySet<Ip>,
): Promise<Pick<FlushResult, "pods" | "flows">> {
	const pods = datapath.retirePods(({ ip }) => ips.has(ip));
	const keys = new FlowKeys();
	await datapath.scanFlows((chunk) => {
		for (let i = 0; i < chunk.count; i++) if (ips.has(chunk.remoteIp(i))) keys.add(chunk, i);
	});
	return { pods, flows: keys.count > 0 ? datapath.evictFlows(keys) : 0 };
}
