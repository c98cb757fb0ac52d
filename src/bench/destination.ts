// What a scenario's client calls: a pod on another host, a Service in front of it, or a pod on its own host.
import { familyOf } from "../lab/service.js";
import { applyServices } from "../lab/services.js";
import type { Family } from "../lab/topology.js";
import { BenchError } from "./error.js";
import type { Place } from "./workload.js";
import type { World } from "./worlds.js";

export type Destination = "pod" | "service" | "neighbour";

const CLUSTER_IP = "10.96.0.10";

export interface Ends {
	client: Place;
	server: Place;
	/** The address that the client is to call. */
	target: string;
}

export function reach(destination: Destination, { name, client, server, neighbour }: World, family: Family): Ends {
	const answering = destination === "neighbour" ? neighbour : server;
	if (answering === undefined) throw new BenchError(`Cannot measure pods of one host in the world "${name}"`);
	const ends = { client: addressed(client, family), server: addressed(answering, family) };
	const isCalledByService = destination === "service" && name !== "direct";
	return { ...ends, target: isCalledByService ? CLUSTER_IP : ends.server.ip };
}

function addressed({ netns, addresses }: World["client"], family: Family): Place {
	const ip = addresses.find((address) => familyOf(address) === family);
	if (ip === undefined) throw new BenchError(`Cannot measure over IPv${family}: ${netns} has no such address`);
	return { netns, ip };
}

/**
 * A Service in front of the world's server, as kube-proxy makes it on every host. Made once and before anything is
 * measured: the kernel's work on new rules is not the flows'.
 */
export async function openService({ hosts, server }: World, port: number): Promise<void> {
	const backend = addressed(server, 4);
	const services = (["tcp", "udp"] as const).map((protocol) => ({
		name: `default/bench:${protocol}`,
		clusterIp: CLUSTER_IP,
		port,
		protocol,
		backends: [{ ip: backend.ip, port }],
	}));
	for (const host of hosts) await applyServices(host, services, "iptables");
}
