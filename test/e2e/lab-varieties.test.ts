// Every variety of the lab carries traffic as a plain overlay: between hosts and on one host, small and large.
import assert from "node:assert/strict";
import { after, test } from "node:test";
import { labDown, labUp } from "../../src/lab/lab.js";
import {
	isDirect,
	type Lab,
	type LabHost,
	type LabPod,
	type LabSpec,
	specOf,
	tunnelTo,
} from "../../src/lab/topology.js";
import { ask, serve } from "./talk.js";
import { deviceCounters, end, inside } from "./world.js";

const NAME = "e2e-var";
after(() => labDown(NAME));

const VARIETIES: Record<string, Partial<LabSpec>> = {
	"hairpin bridge": { podNetwork: "hairpin" },
	"routed pods (Canal)": { podNetwork: "routed" },
	"ptp pods": { podNetwork: "ptp" },
	"dual stack": { family: "dual" },
	"IPv6 pods": { family: "ipv6" },
	"dual stack, ptp pods": { family: "dual", podNetwork: "ptp" },
	bridged: { overlay: "bridged" },
	"bridged, learning, dual stack": { overlay: "bridged", fdb: "learning", family: "dual" },
	"bridged, dual stack": { overlay: "bridged", family: "dual", podNetwork: "hairpin" },
	Calico: { overlay: "calico" },
	"Calico, dual stack with two tunnels, CrossSubnet": {
		overlay: "calico",
		family: "dual",
		underlay: "dual",
		hosts: 3,
		pods: 2,
		direct: true,
	},
	"Flannel DirectRouting": { hosts: 3, pods: 2, direct: true },
	"Flannel dual stack with two tunnels": { family: "dual", underlay: "dual" },
	"IPv6 underlay": { underlay: "ipv6" },
	"IPv6 underlay with checksums, IPv6 pods": { underlay: "ipv6", family: "ipv6", udpChecksum: true },
	"outer checksums": { udpChecksum: true },
	"two tunnel devices": { hosts: 3, tunnels: 2 },
	"uplink on macvlan": { uplink: "macvlan" },
	"uplink with several addresses": { uplink: "aliased" },
	"uplink on a VLAN": { uplink: "vlan" },
	"bonded uplink": { uplink: "bond", hosts: 3 },
	Geneve: { overlay: "geneve", hosts: 3 },
	"Antrea, Open vSwitch in the kernel": { overlay: "antrea" },
	"Antrea, Open vSwitch in user space": { overlay: "antrea", datapath: "netdev" },
};

for (const [title, given] of Object.entries(VARIETIES))
	test(`${title}: pods reach each other on one host and on others, small and large`, async (t) => {
		const lab = await upOrSkip(specOf({ ...given, name: NAME }));
		if (typeof lab === "string") return t.skip(lab);
		const [host] = lab.hosts as [LabHost];
		const [from] = host.pods as [LabPod];
		const others = lab.hosts.map((peer) => ({ peer, pod: peer.pods[peer === host ? 1 : 0] as LabPod }));
		const servers = await Promise.all(others.map(({ pod }) => serve(pod, 8080)));
		try {
			for (const { peer, pod } of others)
				for (const [i, { family }] of host.subnets.entries()) {
					const ip = pod.addresses[i] as string;
					const isTunnelled = peer !== host && !isDirect(lab, host, peer);
					const earlier = await sentByTunnels(host);
					await inside(from, "ping", "-n", "-c", "2", "-i", "0.01", "-W", "1", ip);
					if (isTunnelled) {
						const { name } = tunnelTo(host, peer, family);
						assert.ok(((await sentByTunnels(host))[name] ?? 0) >= (earlier[name] ?? 0) + 2, `through ${name}`);
					} else if (lab.spec.family === "ipv4" && lab.spec.overlay !== "bridged")
						// A bridge floods what it does not know, and IPv6 speaks to its neighbours by itself.
						assert.deepEqual(await sentByTunnels(host), earlier, "past the tunnels");
					for (const [protocol, bytes] of [
						["udp", 8000],
						["tcp", 300_000],
					] as const)
						assert.deepEqual(await ask(from, protocol, ip, 8080, { bytes }), [
							{ name: pod.name, from: from.addresses[i], bytes },
						]);
				}
		} finally {
			await Promise.all(servers.map(end));
		}
	});

async function sentByTunnels(host: LabHost): Promise<Record<string, number>> {
	const names = host.tunnels.map(({ name }) => name);
	return Object.fromEntries(
		await Promise.all(names.map(async (name) => [name, (await deviceCounters(host, name)).tx] as const)),
	);
}

/** A reason where this kernel lacks a kind of device. */
async function upOrSkip(spec: LabSpec): Promise<Lab | string> {
	await labDown(NAME);
	try {
		return await labUp(spec);
	} catch (error) {
		const { message } = error as Error;
		if (/this kernel has none/.test(message)) return message;
		throw error;
	}
}
