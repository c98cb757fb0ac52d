// What a scenario's client calls: a pod on another host, a Service in front of it, or a pod on its own host.
import { applyServices } from "../lab/services.js";
import { BenchError } from "./error.js";
import type { Place } from "./workload.js";
import type { World } from "./worlds.js";

export type Destination = "pod" | "service" | "neighbour";

const CLUSTER_IP = "10.96.0.10";

/** The server, and the address that its client is to call. A Service is made as kube-proxy does, on every host. */
export async function reach(
	destination: Destination,
	{ name, server, neighbour, hosts }: World,
	port: number,
): Promise<{ server: Place; target: string }> {
	if (destination === "neighbour") {
		if (neighbour === undefined) throw new BenchError(`Cannot measure pods of one host in the world "${name}"`);
		return { server: neighbour, target: neighbour.ip };
	}
	if (destination === "pod" || name === "direct") return { server, target: server.ip };
	const services = (["tcp", "udp"] as const).map((protocol) => ({
		name: `default/bench:${protocol}`,
		clusterIp: CLUSTER_IP,
		port,
		protocol,
		backends: [{ ip: server.ip, port }],
	}));
	for (const host of hosts) await applyServices(host, services, "iptables");
	return { server, target: CLUSTER_IP };
}
