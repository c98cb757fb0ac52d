// Services are fast whatever kube-proxy's mode and the pods' network, wherever the backend is, and follow every change at once.
import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import type { Worker } from "node:worker_threads";
import type { FlowList } from "../../src/agent/api.js";
import { agentRequest } from "../../src/agent/client.js";
import { type LabAgent, startAgent } from "../../src/lab/agent.js";
import { labDown, labUp } from "../../src/lab/lab.js";
import { applyServices, PROXY_MODES, type Service } from "../../src/lab/services.js";
import { type Lab, type LabHost, type LabPod, type LabSpec, specOf } from "../../src/lab/topology.js";
import { answerAll, EXCHANGES, fastShare, MOST, type Target, TCP_PORT, UDP_PORT } from "./exchange.js";
import { ask, serve } from "./talk.js";
import { bridgesSkipIptables, end, eventually, inside, statusOf } from "./world.js";

const NAME = "e2e-sfast";
const WORLDS: Record<string, Partial<LabSpec>> = {
	"hairpin bridge": { podNetwork: "hairpin" },
	"routed pods": { podNetwork: "routed" },
	"bridged overlay": { overlay: "bridged", podNetwork: "hairpin" },
};
const CLUSTER_IP = { near: "10.96.0.10", far: "10.96.0.20", both: "10.96.0.30" };
const EXTERNAL_IP = "203.0.113.80";
const NODE_PORTS = { tcp: 30080, udp: 30081 };

for (const [title, given] of Object.entries(WORLDS))
	describe(`Services, ${title}`, { skip: bridgesSkipIptables(given) }, () => {
		let lab: Lab;
		let h1: LabHost;
		let client: LabPod;
		let near: LabPod;
		let far: LabPod;
		let agents: LabAgent[] = [];
		let servers: Worker[] = [];
		before(async () => {
			await labDown(NAME);
			lab = await labUp(specOf({ ...given, name: NAME }));
			[h1] = lab.hosts as [LabHost];
			[client, near] = h1.pods as [LabPod, LabPod];
			far = lab.hosts[1]?.pods[0] as LabPod;
			agents = await Promise.all(lab.hosts.map((host) => startAgent(host, { args: [] })));
			servers = (await Promise.all([near, far].map(answerAll))).flat();
		});
		after(async () => {
			await Promise.all(servers.map(end));
			await Promise.all(agents.map((agent) => agent.stop()));
			await labDown(NAME);
		});
		/** For TCP and UDP at the same port of the backends and of the Service. */
		const servicesOf = (name: string, clusterIp: string, pods: LabPod[], more: Partial<Service> = {}): Service[] =>
			(["tcp", "udp"] as const).map((protocol) => {
				const port = protocol === "tcp" ? TCP_PORT : UDP_PORT;
				const backends = pods.map(({ ip }) => ({ ip, port }));
				const nodePort = more.nodePort === undefined ? {} : { nodePort: NODE_PORTS[protocol] };
				return { name: `default/${name}:${protocol}`, clusterIp, port: 53, protocol, backends, ...more, ...nodePort };
			});
		const apply = async (services: Service[], mode: (typeof PROXY_MODES)[number] = "iptables"): Promise<void> => {
			await Promise.all(lab.hosts.map((host) => applyServices(host, services, mode)));
		};

		for (const mode of PROXY_MODES)
			test(`${mode}: ClusterIP, NodePort, external address, affinity, and a pod that reaches itself`, async () => {
				await apply(
					[
						...servicesOf("near", CLUSTER_IP.near, [near], { nodePort: 1, externalIps: [EXTERNAL_IP] }),
						...servicesOf("far", CLUSTER_IP.far, [far], { affinitySeconds: 60 }),
						...servicesOf("both", CLUSTER_IP.both, [near, far]),
					],
					mode,
				);
				const at = (ip: string): Target => ({ ip, tcpPort: 53, udpPort: 53 });
				const ways: [string, LabPod, Target][] = [
					["a backend on this host", client, at(CLUSTER_IP.near)],
					["a backend on another host, with affinity", client, at(CLUSTER_IP.far)],
					["any of two backends", client, at(CLUSTER_IP.both)],
					["the node's own port", client, { ip: h1.ip, tcpPort: NODE_PORTS.tcp, udpPort: NODE_PORTS.udp }],
					["an external address", client, at(EXTERNAL_IP)],
					["itself", near, at(CLUSTER_IP.near)],
				];
				for (const [way, from, to] of ways)
					for (const protocol of ["udp", "tcp"] as const) {
						const share = await fastShare(h1, () => EXCHANGES[protocol](from, to));
						assert.ok(share > MOST, `${protocol} to ${way}: only ${(100 * share).toFixed(1)} % fast`);
					}
			});

		test("a backend that is replaced gets nothing more, and the next one is fast", async () => {
			const pods = [near, far];
			const named = await Promise.all(pods.map((pod) => serve(pod, 9000)));
			try {
				for (const [pod, other] of [
					[near, far],
					[far, near],
				] as const) {
					const service = { name: "default/dns:udp", clusterIp: CLUSTER_IP.both, port: 53, protocol: "udp" as const };
					await apply([{ ...service, backends: [{ ip: other.ip, port: 9000 }] }]);
					await ask(client, "udp", CLUSTER_IP.both, 53, { count: 3 });
					await apply([{ ...service, backends: [{ ip: pod.ip, port: 9000 }] }]);
					const answers = await ask(client, "udp", CLUSTER_IP.both, 53, { count: 20 });
					assert.deepEqual([...new Set(answers.map(({ name }) => name))], [pod.name]);
				}
			} finally {
				await Promise.all(named.map(end));
			}
		});

		test("a Service's connection tracking entry that is deleted takes the flow with it, at both its ends", async () => {
			await apply(servicesOf("far", CLUSTER_IP.far, [far]));
			await EXCHANGES.udp(client, { ip: CLUSTER_IP.far, udpPort: 53 });
			const cached = async (): Promise<number> => {
				const { flows } = await agentRequest<FlowList>(h1.socket, "GET", "/v1/flows");
				const ofService = flows.filter(({ remote, translated }) =>
					[remote, translated?.remote].some((end) => end?.ip === CLUSTER_IP.far),
				);
				return ofService.length;
			};
			assert.ok((await cached()) >= 2, `${await cached()} entries of the Service`);
			const forgotten = async (): Promise<number> => (await statusOf(h1)).coherency?.forgotten ?? 0;
			const before = await forgotten();
			await inside(h1, "conntrack", "-D", "-p", "udp", "--orig-dst", CLUSTER_IP.far);
			await eventually("both entries are gone", async () => (await cached()) === 0);
			assert.ok((await forgotten()) > before);
		});
	});
