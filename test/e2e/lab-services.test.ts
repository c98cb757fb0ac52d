// Services of the lab, without ONCache: kube-proxy's rules in both modes, on the pod networks where they behave differently.
import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import type { Worker } from "node:worker_threads";
import { labDown, labUp } from "../../src/lab/lab.js";
import { applyServices, PROXY_MODES, removeServices, type Service } from "../../src/lab/services.js";
import { type Family, type Lab, type LabHost, type LabPod, type LabSpec, specOf } from "../../src/lab/topology.js";
import { ask, serve } from "./talk.js";
import type { Answer } from "./talker.js";
import { bridgesSkipIptables, end, inside } from "./world.js";

const NAME = "e2e-svc";
/** So many that a backend which is chosen half of the time is missed once in a billion runs. */
const COUNT = 30;
const WORLDS: Record<string, Partial<LabSpec>> = {
	"hairpin bridge": { podNetwork: "hairpin" },
	"routed pods": { podNetwork: "routed" },
	bridged: { overlay: "bridged", podNetwork: "hairpin" },
	"Calico, dual stack": { overlay: "calico", family: "dual" },
	"dual stack": { family: "dual", podNetwork: "hairpin" },
};

for (const [title, given] of Object.entries(WORLDS))
	describe(`services, ${title}`, { skip: bridgesSkipIptables(given) }, () => {
		let lab: Lab;
		let h1: LabHost;
		let h2: LabHost;
		let servers: Worker[] = [];
		let clean: string[];
		before(async () => {
			await labDown(NAME);
			lab = await labUp(specOf({ ...given, name: NAME, pods: 2 }));
			[h1, h2] = lab.hosts as [LabHost, LabHost];
			servers = await Promise.all(backendPods().map((pod) => serve(pod, 8080)));
			await Promise.all(lab.hosts.map(removeServices)); // nft itself may add empty tables
			clean = await rulesets();
		});
		after(async () => {
			await Promise.all(servers.map(end));
			await labDown(NAME);
		});
		/** One on each host; the others are clients. */
		const backendPods = (): LabPod[] => [h1.pods[1], h2.pods[1]] as LabPod[];
		const rulesets = (): Promise<string[]> =>
			Promise.all(lab.hosts.map((host) => inside(host, "nft", "-s", "list", "ruleset")));
		const apply = async (services: Service[], mode: (typeof PROXY_MODES)[number]): Promise<void> => {
			await Promise.all(lab.hosts.map((host) => applyServices(host, services, mode)));
		};

		for (const mode of PROXY_MODES)
			test(`${mode}: every way leads to every backend, and removal leaves nothing`, async () => {
				const ways = h1.subnets.flatMap(({ family }, i) => PROTOCOLS.map((protocol) => ({ family, i, protocol })));
				const [client, self] = h1.pods as [LabPod, LabPod];
				const services = ways.flatMap(({ family, i, protocol }) => {
					const backends = backendPods().map((pod) => ({ ip: pod.addresses[i] as string, port: 8080 }));
					const start = { protocol, port: 80, backends };
					const [web, sticky, own] = CLUSTER_IPS[family];
					const at = `${protocol}${family}`;
					return [
						{
							...start,
							name: `default/web:${at}`,
							clusterIp: web,
							nodePort: 30080,
							externalIps: [EXTERNAL_IP[family]],
						},
						{ ...start, name: `default/sticky:${at}`, clusterIp: sticky, affinitySeconds: 60 },
						{ ...start, name: `default/own:${at}`, clusterIp: own, backends: backends.slice(0, 1) },
					];
				});
				// A flow of the other mode that comes again within its time would keep its backend.
				for (const host of lab.hosts) await inside(host, "conntrack", "-F");
				await apply(services, mode);
				await Promise.all(ways.map(({ family, i, protocol }) => each(family, i, protocol)));
				await apply([{ name: "default/none:tcp", clusterIp: NOBODY, port: 80, protocol: "tcp", backends: [] }], mode);
				// Without a default route the host knows before its rules do that it leads nowhere.
				await assert.rejects(ask(client, "tcp", NOBODY, 80), /ECONNREFUSED|ENETUNREACH/);
				await Promise.all(lab.hosts.map(removeServices));
				assert.deepEqual(await rulesets(), clean);

				async function each(family: Family, i: number, protocol: "tcp" | "udp"): Promise<void> {
					const [web, sticky, own] = CLUSTER_IPS[family];
					const all = backendPods().map(({ name }) => name);
					for (const pod of [client, h2.pods[0] as LabPod]) {
						const { names, from } = summary(await ask(pod, protocol, web, 80, { count: COUNT }));
						assert.deepEqual([names, from], [all, [pod.addresses[i]]], "not masqueraded");
					}
					// From one host through the other's port: masqueraded, so that the answer comes back the same way.
					const node = h2.nodeIps[family] as string;
					const through = summary(await ask(h1, protocol, node, 30080, { count: COUNT }));
					assert.deepEqual(through.names, all);
					const external = summary(await ask(client, protocol, EXTERNAL_IP[family], 80, { count: COUNT }));
					assert.deepEqual([external.names, external.from.includes(client.addresses[i] as string)], [all, false]);
					const kept = summary(await ask(client, protocol, sticky, 80, { count: COUNT }));
					assert.equal(kept.names.length, 1, "one backend only");
					// A pod that reaches itself is masqueraded.
					const [answer] = await ask(self, protocol, own, 80, { bytes: 5000 });
					assert.deepEqual([answer?.name, answer?.bytes], [self.name, 5000]);
					assert.notEqual(answer?.from, self.addresses[i]);
				}
			});

		test("a mode replaces the other one, and a UDP flow to a backend that is gone is forgotten", async () => {
			const [{ family }] = h1.subnets as [LabHost["subnets"][0]];
			const [clusterIp] = CLUSTER_IPS[family];
			const service = { name: "default/dns:udp", clusterIp, port: 53, protocol: "udp" as const };
			const [near, far] = backendPods().map(({ ip }) => ({ ip, port: 8080 })) as [
				Service["backends"][0],
				Service["backends"][0],
			];
			await apply([{ ...service, backends: [near] }], "iptables");
			await ask(h1.pods[0] as LabPod, "udp", clusterIp, 53);
			const flows = (): Promise<string> => inside(h1, "conntrack", "-L", "-p", "udp", "--orig-dst", clusterIp);
			assert.match(await flows(), /dport=53 /);
			await apply([{ ...service, backends: [far] }], "nftables");
			assert.doesNotMatch(await flows(), /dport=53 /);
			assert.equal((await ask(h1.pods[0] as LabPod, "udp", clusterIp, 53))[0]?.name, h2.pods[1]?.name);
			assert.doesNotMatch(await inside(h1, "iptables-save"), /KUBE-SVC/);
			await apply([{ ...service, backends: [near] }], "iptables");
			assert.doesNotMatch(await inside(h1, "nft", "list", "tables"), /kube-proxy/);
			await Promise.all(lab.hosts.map(removeServices));
			assert.deepEqual(await rulesets(), clean);
		});
	});

const PROTOCOLS = ["tcp", "udp"] as const;
const CLUSTER_IPS = {
	4: ["10.96.0.80", "10.96.0.81", "10.96.0.82"],
	6: ["fd00:10:96::80", "fd00:10:96::81", "fd00:10:96::82"],
} as const;
const EXTERNAL_IP = { 4: "203.0.113.80", 6: "2001:db8::80" } as const;
const NOBODY = "10.96.0.99";

function summary(answers: Answer[]): { names: string[]; from: string[] } {
	return {
		names: [...new Set(answers.map(({ name }) => name))].sort(),
		from: [...new Set(answers.map(({ from }) => from))],
	};
}
