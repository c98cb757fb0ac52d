// Antrea: a real Open vSwitch with Antrea's pipeline in its kernel datapath, where this kernel has the module. The fast path is used, and
// obeys what the switch decides.
import assert from "node:assert/strict";
import { after, describe, test } from "node:test";
import { setTimeout } from "node:timers/promises";
import { ONCACHE } from "../../src/lab/agent.js";
import { numbered } from "../../src/lab/antrea.js";
import { labDown } from "../../src/lab/lab.js";
import { patiently } from "../../src/lab/patience.js";
import type { Service } from "../../src/lab/service.js";
import { applyAntreaServices } from "../../src/lab/services-antrea.js";
import { addPipeline, ovs } from "../../src/lab/switch.js";
import { type LabPod, SWITCH } from "../../src/lab/topology.js";
import { addFlow, ask, MARK_FLOWS, markFlows, NAME, received, up, type World } from "./antrea.js";
import { answerAll, EXCHANGES, fastShare, MOST, TCP_PORT, UDP_PORT } from "./exchange.js";
import { ask as askTalker } from "./talk.js";
import { background, end, eventually, inside, statusOf } from "./world.js";

const MAX_STALENESS_MS = 2000;

describe("Open vSwitch's kernel datapath", () => {
	test("tunnels over VXLAN: the fast path is used", async (t) => {
		const world = await up({ tunnelType: "vxlan" }, []);
		if (typeof world === "string") return t.skip(world);
		const { h1, from, to } = world;
		const servers = await answerAll(to);
		try {
			const { markMode, tunnels } = await statusOf(h1);
			t.diagnostic(`mark mode ${markMode}`);
			assert.deepEqual(
				tunnels.map(({ name, why }) => [name, why]),
				[["vxlan_sys_4789", null]],
			);
			for (const [protocol, exchange] of Object.entries(EXCHANGES)) {
				const share = await fastShare(h1, () => exchange(from, to));
				assert.ok(share > MOST, `${protocol}: only ${(100 * share).toFixed(1)} % fast`);
			}
		} finally {
			await Promise.all(servers.map(end));
			await world.down();
		}
	});

	after(() => labDown(NAME));
	for (const mode of ["auto", "dscp"] as const)
		test(`mark mode ${mode}: the fast path is used, obeys the switch's flows, and leaves them as they are`, async (t) => {
			// In dscp mode IPv6 is not asked about.
			const world = await up({ family: mode === "dscp" ? "ipv4" : "dual" }, ["--mark-mode", mode]);
			if (typeof world === "string") return t.skip(world);
			const { lab, h1, from, beside, to, agents } = world;
			const servers = [...(await answerAll(to)), ...(await answerAll(beside))];
			try {
				const { markMode, state, why } = await statusOf(h1);
				assert.equal(state, "accelerating", why.join("; "));
				t.diagnostic(`mark mode ${markMode}`);
				assert.equal(await markFlows(h1), markMode === "dscp" ? MARK_FLOWS : 0);
				for (const ip of markMode === "metadata" ? to.addresses : [to.ip])
					for (const [protocol, exchange] of Object.entries(EXCHANGES)) {
						const share = await fastShare(h1, () => exchange(from, { ip }));
						assert.ok(share > MOST, `${protocol} to ${ip}, another host: only ${(100 * share).toFixed(1)} % fast`);
					}
				if (markMode === "metadata") {
					for (const ip of beside.addresses) {
						const share = await fastShare(h1, () => EXCHANGES.udp(from, { ip }));
						assert.ok(share > MOST, `to ${ip}, this host: only ${(100 * share).toFixed(1)} % fast`);
					}
					await t.test("Services of AntreaProxy are fast, and follow their endpoints", () => useServices(world));
				}

				await t.test("a pod that borrows a warm flow's addresses is refused, as by the switch", async () => {
					assert.equal(await ask(from, to, 4000, 20), 20);
					await inside(beside, "ip", "addr", "add", `${from.ip}/32`, "dev", "eth0");
					const before = await received(to);
					const spoofing = `require("dgram").createSocket("udp4").bind(4000, "${from.ip}", function () {
						let left = 50;
						const timer = setInterval(() => {
							if (left-- > 0) this.send("spoofed", ${UDP_PORT}, "${to.ip}");
							else { clearInterval(timer); this.close(); }
						}, 5);
					})`;
					await inside(beside, "node", "-e", spoofing);
					await inside(beside, "ip", "addr", "del", `${from.ip}/32`, "dev", "eth0");
					assert.equal(await received(to), before);
				});

				await t.test("a flow that denies takes effect within the bound, and ends with its end", async () => {
					assert.equal(await ask(from, to, 4001, 20), 20);
					const sending = `const socket = require("dgram").createSocket("udp4").bind(4001, () => {
						setInterval(() => socket.send("again", ${UDP_PORT}, "${to.ip}"), 10);
						console.log("sending");
					})`;
					const sender = await background(from, ["node", "-e", sending], /sending/);
					try {
						const fast = await fastShare(h1, () => setTimeout(patiently(500)));
						assert.ok(fast > MOST, `only ${(100 * fast).toFixed(1)} % fast before`);
						const { flushes = 0 } = (await statusOf(h1)).coherency ?? {};
						const deny = `table=Classifier,priority=300,udp,in_port=3,tp_dst=${UDP_PORT}`;
						await addFlow(h1, `${deny},actions=drop`);
						await setTimeout(MAX_STALENESS_MS);
						const before = await received(to);
						await setTimeout(1000);
						assert.equal(await received(to), before, "what is sent after the bound does not arrive");
						assert.ok(((await statusOf(h1)).coherency?.flushes ?? 0) > flushes, "the change was heard of");
						await ovs(h1, ["ovs-ofctl", "del-flows", "--strict", SWITCH, numbered(deny)]);
						await eventually("the flow passes again", async () => (await received(to)) > before);
					} finally {
						await end(sender);
					}
				});

				if (markMode === "dscp")
					await t.test("its flows come back after a replay, and no mark reaches a pod", async () => {
						await ovs(h1, ["ovs-ofctl", "del-flows", SWITCH]);
						await addPipeline(h1, lab);
						await eventually("the flows are there again", async () => (await markFlows(h1)) === MARK_FLOWS);
						const marked = await background(to, ["tcpdump", "-nli", "eth0", "udp and ip[1] & 0xfc != 0"], /listening/);
						let seen = "";
						marked.stdout?.on("data", (text) => {
							seen += String(text);
						});
						assert.equal(await ask(from, to, 4002, 60), 60);
						await end(marked);
						assert.equal(seen.replace(/^.*(listening|verbose).*$/gm, "").trim(), "");
					});

				await t.test("detached, nothing is left in the switch, and packets pass", async () => {
					for (const host of lab.hosts)
						await inside(host, ONCACHE, "detach", "--socket", host.socket, "--bpffs", host.bpffs);
					for (const agent of agents.splice(0)) await agent.stop();
					assert.equal(await markFlows(h1), 0);
					assert.equal(await ask(from, to, 4003, 5), 5);
				});
			} finally {
				await Promise.all(servers.map(end));
				await world.down();
			}
		});
});

/** Of both families, with an endpoint on this host, on another one, and on both with affinity; then the endpoint is another one. */
async function useServices({ lab, h1, from, beside, to }: World): Promise<void> {
	const PORT = 53;
	const addressesOf = (number: number): string[] => [`10.96.0.${number}`, `fd00:10:96::${number}`];
	const servicesOf = (number: number, pods: LabPod[], more: Partial<Service> = {}): Service[] =>
		addressesOf(number).flatMap((clusterIp, i) =>
			(["tcp", "udp"] as const).map((protocol) => {
				const port = protocol === "tcp" ? TCP_PORT : UDP_PORT;
				const backends = pods.map(({ addresses }) => ({ ip: addresses[i] as string, port }));
				return { name: `default/s${number}:${protocol}${i}`, clusterIp, port: PORT, protocol, backends, ...more };
			}),
		);
	const apply = async (services: Service[]): Promise<void> => {
		for (const host of lab.hosts) await applyAntreaServices(host, services);
	};
	await apply([
		...servicesOf(1, [beside]),
		...servicesOf(2, [to]),
		...servicesOf(3, [beside, to], { affinitySeconds: 60 }),
	]);
	for (const number of [1, 2, 3])
		for (const ip of addressesOf(number))
			for (const protocol of ["udp", "tcp"] as const) {
				const target = { ip, tcpPort: PORT, udpPort: PORT };
				// An endpoint of this host answers to the caller's own MAC address; what the switch makes of that is not known.
				const but = number === 2 ? [] : (["mac"] as const);
				const share = (): Promise<number> => fastShare(h1, () => EXCHANGES[protocol](from, target), but);
				// Every flow that was added evicts everything, for a while after it was.
				await eventually(`${protocol} to ${ip} is fast`, async () => (await share()) > MOST);
			}
	const answering = async (): Promise<string[]> => {
		const answers = await askTalker(from, "tcp", addressesOf(4)[0] as string, PORT, { count: 5 });
		return [...new Set(answers.map(({ name }) => name))];
	};
	await apply(servicesOf(4, [beside]));
	assert.deepEqual(await answering(), [beside.name]);
	await apply(servicesOf(4, [to]));
	assert.deepEqual(await answering(), [to.name]);
}
