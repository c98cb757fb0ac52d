// Services as kube-proxy makes them on every host: addresses that no device has, translated to a backend's.
import { inNetns, run } from "./command.js";
import { familyOf, type Service } from "./service.js";
import { iptablesRules, iptablesWithout } from "./services-iptables.js";
import { nftablesRules, WITHOUT_TABLE } from "./services-nftables.js";
import type { Family, LabHost } from "./topology.js";

export type { Backend, Service } from "./service.js";

export const PROXY_MODES = ["iptables", "nftables"] as const;
export type ProxyMode = (typeof PROXY_MODES)[number];

/**
 * Replaces the host's services at once: packets meet either the old or the new ones. Those of the other mode are
 * removed. UDP flows to backends that are gone are forgotten, as kube-proxy does.
 */
export async function applyServices(host: LabHost, services: readonly Service[], mode: ProxyMode): Promise<void> {
	for (const { family, network } of host.subnets) {
		const own = services.filter(({ clusterIp }) => familyOf(clusterIp) === family);
		if (mode === "iptables") {
			const { save, restore } = IPTABLES[family];
			const { stdout: before } = await run(inNetns(host.netns, [save]));
			await run(inNetns(host.netns, [restore, "--noflush"]), { input: iptablesRules(own, network, before) });
			await nft(host, WITHOUT_TABLE[family]);
		} else {
			await nft(host, nftablesRules(own, { family, network, nodeIps: Object.values(host.nodeIps) }));
			await removeIptables(host, family);
		}
		for (const service of own) if (service.protocol === "udp") await forgetStaleFlows(host, service);
	}
}

/** Of both modes; the rules are as they were before the first applyServices(). */
export async function removeServices(host: LabHost): Promise<void> {
	for (const { family } of host.subnets) {
		await removeIptables(host, family);
		await nft(host, WITHOUT_TABLE[family]);
	}
}

const IPTABLES = {
	4: { save: "iptables-save", restore: "iptables-restore" },
	6: { save: "ip6tables-save", restore: "ip6tables-restore" },
} as const;

async function removeIptables(host: LabHost, family: Family): Promise<void> {
	const { save, restore } = IPTABLES[family];
	const { stdout: before } = await run(inNetns(host.netns, [save]));
	const input = iptablesWithout(before);
	if (input !== "") await run(inNetns(host.netns, [restore, "--noflush"]), { input });
}

async function nft(host: LabHost, input: string): Promise<void> {
	await run(inNetns(host.netns, ["nft", "-f", "-"]), { input });
}

/** A flow to a ClusterIP whose answers come from what is no backend any more would never reach another one. */
export async function forgetStaleFlows(host: LabHost, service: Service, zone = 0): Promise<void> {
	const family = familyOf(service.clusterIp) === 4 ? "ipv4" : "ipv6";
	const called = ["--orig-dst", service.clusterIp, "--orig-port-dst", String(service.port)];
	const flow = ["-f", family, "-p", "udp", ...called, "--zone", String(zone)];
	const { stdout } = await run(inNetns(host.netns, ["conntrack", "-L", ...flow]), { anyCode: true });
	const answering = new Set([...stdout.matchAll(/ src=\S+ .* src=(\S+) /g)].map(([, ip]) => ip ?? ""));
	for (const { ip } of service.backends) answering.delete(ip);
	for (const ip of answering)
		await run(inNetns(host.netns, ["conntrack", "-D", ...flow, "--reply-src", ip]), { anyCode: true });
}
