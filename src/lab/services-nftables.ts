// kube-proxy's nftables mode: a table of its own. A packet's way:
//
//   nat-prerouting, nat-output > services: map of addresses > [external-* >] service-* > endpoint-*: dnat to a backend
//   nat-postrouting > masquerading, if mark-for-masquerade has marked it on the way
//
// Answers input of nft -f: one transaction. The table is made anew, and with it what affinity remembers.
import { type Backend, endpoint, MASQUERADE_MARK, type Service, shortHash } from "./service.js";
import type { Family } from "./topology.js";

const TABLE = { 4: "ip kube-proxy", 6: "ip6 kube-proxy" } as const;

/** Adding first: what is not there cannot be deleted. */
export const WITHOUT_TABLE: Record<Family, string> = {
	4: `add table ${TABLE[4]}\ndelete table ${TABLE[4]}\n`,
	6: `add table ${TABLE[6]}\ndelete table ${TABLE[6]}\n`,
};

interface Place {
	family: Family;
	/** Of all pods. */
	network: string;
	/** The host's own, of any family. */
	nodeIps: readonly string[];
}

export function nftablesRules(services: readonly Service[], place: Place): string {
	const { family, nodeIps } = place;
	const ip = family === 4 ? "ip" : "ip6";
	const address = family === 4 ? "ipv4_addr" : "ipv6_addr";
	const served = services.filter(({ backends }) => backends.length > 0);
	const empty = services.filter(({ backends }) => backends.length === 0);
	const own = nodeIps.filter((nodeIp) => nodeIp.includes(":") === (family === 6));
	const whole = `${ip} daddr . meta l4proto . th dport`;
	const port = `${ip} daddr @nodeport-ips meta l4proto . th dport`;
	return `${WITHOUT_TABLE[family]}table ${TABLE[family]} {
	comment "rules for kube-proxy"
	set cluster-ips { type ${address}; comment "Active ClusterIPs"; ${elements(new Set(services.map(({ clusterIp }) => clusterIp)))} }
	set nodeport-ips { type ${address}; comment "IPs that accept NodePort traffic"; ${elements(own)} }
	map service-ips {
		type ${address} . inet_proto . inet_service : verdict
		comment "ClusterIP, ExternalIP and LoadBalancer IP traffic"
		${elements(served.flatMap(addressElements))}
	}
	map service-nodeports {
		type inet_proto . inet_service : verdict
		comment "NodePort traffic"
		${elements(served.flatMap((service) => nodePortElements(service, `goto external-${idOf(service)}`)))}
	}
	map no-endpoint-services {
		type ${address} . inet_proto . inet_service : verdict
		comment "vmap to drop or reject packets to services with no endpoints"
		${elements(empty.flatMap(({ clusterIp, externalIps = [], protocol, port }) => [clusterIp, ...externalIps].map((ip) => `${ip} . ${protocol} . ${port} : goto reject-chain`)))}
	}
	map no-endpoint-nodeports {
		type inet_proto . inet_service : verdict
		comment "vmap to drop or reject packets to service nodeports with no endpoints"
		${elements(empty.flatMap((service) => nodePortElements(service, "goto reject-chain")))}
	}
	chain mark-for-masquerade {
		mark set mark or ${MASQUERADE_MARK}
	}
	chain masquerading {
		mark and ${MASQUERADE_MARK} == 0 return
		mark set mark xor ${MASQUERADE_MARK}
		masquerade fully-random
	}
	chain reject-chain {
		comment "helper for @no-endpoint-services / @no-endpoint-nodeports"
		reject
	}
${served.map((service) => serviceChains(service, place)).join("\n")}
	chain services {
		${whole} vmap @service-ips
		${port} vmap @service-nodeports
	}
	chain service-endpoints-check {
		${whole} vmap @no-endpoint-services
	}
	chain nodeport-endpoints-check {
		${port} vmap @no-endpoint-nodeports
	}
	chain cluster-ips-check {
		${ip} daddr @cluster-ips reject comment "Reject traffic to invalid ports of ClusterIPs"
	}
	chain nat-prerouting {
		type nat hook prerouting priority dstnat;
		jump services
	}
	chain nat-output {
		type nat hook output priority -100;
		jump services
	}
	chain nat-postrouting {
		type nat hook postrouting priority srcnat;
		jump masquerading
	}
	chain filter-input {
		type filter hook input priority filter;
		ct state new jump nodeport-endpoints-check
		ct state new jump service-endpoints-check
	}
	chain filter-forward {
		type filter hook forward priority filter;
		ct state new jump service-endpoints-check
		ct state new jump cluster-ips-check
	}
	chain filter-output {
		type filter hook output priority filter;
		ct state new jump service-endpoints-check
		ct state new jump cluster-ips-check
	}
}
`;
}

/** The service's own chains; what is jumped to comes first. */
function serviceChains(service: Service, { family, network }: Place): string {
	const { clusterIp, protocol, backends, affinitySeconds } = service;
	const ip = family === 4 ? "ip" : "ip6";
	const id = idOf(service);
	const ids = backends.map((backend) => endpointId(service, backend));
	const affinity = affinitySeconds === undefined ? [] : ids;
	return `${affinity
		.map(
			(name) =>
				`	set affinity-${name} { type ${family === 4 ? "ipv4_addr" : "ipv6_addr"}; flags dynamic,timeout; timeout ${affinitySeconds}s; }`,
		)
		.join("\n")}
${backends
	.map(
		(backend, i) => `	chain endpoint-${ids[i]} {
		${ip} saddr ${backend.ip} jump mark-for-masquerade
		${affinity.length > 0 ? `update @affinity-${ids[i]} { ${ip} saddr }` : ""}
		meta l4proto ${protocol} dnat to ${endpoint(backend)}
	}`,
	)
	.join("\n")}
	chain service-${id} {
		${ip} daddr ${clusterIp} ${ip} saddr != ${network} jump mark-for-masquerade
		${affinity.map((name) => `${ip} saddr @affinity-${name} goto endpoint-${name}`).join("\n\t\t")}
		numgen random mod ${ids.length} vmap { ${ids.map((name, i) => `${i} : goto endpoint-${name}`).join(", ")} }
	}
	chain external-${id} {
		jump mark-for-masquerade
		goto service-${id}
	}`;
}

function addressElements(service: Service): string[] {
	const { clusterIp, externalIps = [], protocol, port } = service;
	const element = (ip: string, chain: string): string =>
		`${ip} . ${protocol} . ${port} : goto ${chain}-${idOf(service)}`;
	return [element(clusterIp, "service"), ...externalIps.map((ip) => element(ip, "external"))];
}

function nodePortElements({ nodePort, protocol }: Service, verdict: string): string[] {
	return nodePort === undefined ? [] : [`${protocol} . ${nodePort} : ${verdict}`];
}

function elements(list: Iterable<string>): string {
	const all = [...list];
	return all.length > 0 ? `elements = { ${all.join(", ")} }` : "";
}

/** "ULMVA6XW-default/web/tcp/http" */
function idOf({ name, protocol }: Service): string {
	const [service = "", port = ""] = name.split(":");
	return hashed(`${service}/${protocol}/${port}`);
}

function endpointId({ name, protocol }: Service, { ip, port: target }: Backend): string {
	const [service = "", port = ""] = name.split(":");
	return hashed(`${service}/${protocol}/${port}__${ip.replaceAll(":", ".")}/${target}`);
}

const hashed = (name: string): string => `${shortHash(name, 8)}-${name}`;
