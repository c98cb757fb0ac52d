// An agent's life: killed, upgraded, joined by a second one, meddled with, uninstalled, and what it may do meanwhile.
import assert from "node:assert/strict";
import { existsSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { after, before, describe, test } from "node:test";
import type { Status } from "../../src/agent/api.js";
import { Datapath } from "../../src/datapath/datapath.js";
import { control } from "../../src/datapath/layout.js";
import { ONCACHE, startAgent } from "../../src/lab/agent.js";
import { inNetns, run } from "../../src/lab/command.js";
import {
	bpfObjects,
	eventually,
	freed,
	inside,
	oncache,
	ping,
	statusOf,
	type TestLab,
	traces,
	upWithAgents,
} from "./world.js";

const NAME = "e2e-life";
let world: TestLab;
let clean: Record<string, string>;
let objects: string[];

before(async () => {
	world = await upWithAgents(NAME, undefined);
	clean = await traces(world.h1);
	objects = bpfObjects();
	for (const host of world.lab.hosts) world.agents.push(await startAgent(host));
});
after(() => world.down());

const warmUp = () => ping(world.p1, world.p2, "-c", "5", "-i", "0.01", "-W", "1");
const fastPackets = async (): Promise<number> => (await statusOf(world.h1)).packets.egress.fast;

describe("an upgrade", () => {
	/** The pinned maps as another version would have left them. */
	function asLeftByAnotherVersion(change: (view: DataView) => void): void {
		const datapath = Datapath.openPinned(world.h1.bpffs);
		assert.ok(datapath);
		change(datapath.maps.control.view);
		datapath.close();
	}

	for (const [what, args, contract] of [
		["with maps of another size", ["--cache-egress", "8192"], undefined],
		["with maps of another layout", [], 1],
		["back to the size before", [], undefined],
	] as const)
		test(`${what} starts cold, and loses no packet`, async () => {
			await warmUp();
			const pinging = ping(world.p1, world.p2, "-c", "300", "-i", "0.01", "-W", "1");
			await world.agents[0]?.kill();
			if (contract !== undefined)
				asLeftByAnotherVersion((view) => view.setUint32(control.offset.contract, contract, true));
			world.agents[0] = await startAgent(world.h1, { args });
			assert.deepEqual(await pinging, { sent: 300, received: 300 });
			const status = await statusOf(world.h1);
			assert.equal(status.state, "accelerating");
			assert.ok(status.packets.egress.fast > 0, "it has learned anew");
		});
});

describe("a second agent", () => {
	test("in the same network namespace is refused, whatever its socket and pin directory", async () => {
		const argv = [ONCACHE, "agent", "--socket", `${world.h1.socket}.other`, "--bpffs", `${world.h1.bpffs}-other`];
		const { code, stderr } = await run(inNetns(world.h1.netns, argv), { anyCode: true });
		assert.equal(code, 1);
		assert.match(
			stderr,
			new RegExp(`Another agent runs .*process ${world.agents[0]?.pid}, socket "${world.h1.socket}"`),
		);
		assert.ok(!existsSync(`${world.h1.bpffs}-other`));
	});

	test("does not start beside the programs of one that has died, pinned elsewhere", async () => {
		await world.agents[0]?.kill();
		const argv = [ONCACHE, "agent", "--socket", `${world.h1.socket}.other`, "--bpffs", `${world.h1.bpffs}-other`];
		const { code, stderr } = await run(inNetns(world.h1.netns, argv), { anyCode: true });
		assert.equal(code, 1);
		assert.match(stderr, /Programs of another ONCache run on "eth0" \(ingress, egress_init\).*oncache detach --bpffs/);
		world.agents[0] = await startAgent(world.h1);
	});
});

describe("what somebody else removes is there again, and counted", () => {
	const repaired = async (): Promise<number> => (await statusOf(world.h1)).coherency?.repaired ?? 0;
	const attachedAll = async (): Promise<boolean> => (await statusOf(world.h1)).pods.every(({ attached }) => attached);
	const ifindexOf = async (device: string): Promise<number> =>
		(JSON.parse(await inside(world.h1, "ip", "-j", "link", "show", device)) as [{ ifindex: number }])[0].ifindex;

	test("a link's pin, and with it the program", async () => {
		const before = await repaired();
		rmSync(`${world.h1.bpffs}/links/${await ifindexOf(world.p1.veth)}-ingress`);
		await eventually("the program is attached again", async () => (await repaired()) > before && (await attachedAll()));
	});

	test("a map's pin", async () => {
		const before = await repaired();
		rmSync(`${world.h1.bpffs}/maps/filter_cache`);
		await eventually("the pin is back", async () => (await repaired()) > before);
		assert.ok(existsSync(`${world.h1.bpffs}/maps/filter_cache`));
	});

	test("a device", async () => {
		const before = await fastPackets();
		await inside(world.h1, "ip", "link", "del", world.h1.tunnel);
		await eventually("it is missed", async () => (await statusOf(world.h1)).state === "off");
		const peer = world.h2;
		await inside(world.h1, "sh", "-ec", `
			ip link add ${world.h1.tunnel} address ${world.h1.tunnelMac} mtu 1450 type vxlan id 1 local ${world.h1.ip} \
				dev eth0 dstport 8472 nolearning noudpcsum
			ip link set ${world.h1.tunnel} up
			ip addr add ${world.h1.podCidr.replace("/24", "")}/32 dev ${world.h1.tunnel}
			ip route add ${peer.podCidr} via ${peer.podCidr.replace("/24", "")} dev ${world.h1.tunnel} onlink
			ip neigh add ${peer.podCidr.replace("/24", "")} lladdr ${peer.tunnelMac} dev ${world.h1.tunnel} nud permanent
			bridge fdb add ${peer.tunnelMac} dev ${world.h1.tunnel} dst ${peer.ip}`); // biome-ignore format: a script
		await eventually("it is accelerated again", async () => (await statusOf(world.h1)).state === "accelerating");
		await warmUp();
		assert.ok((await fastPackets()) > before);
	});
});

describe("rights", () => {
	const NOBODY = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", "--no-new-privs"];

	test("the agent keeps three capabilities, in every thread, and its voice", () => {
		const log = readFileSync(world.h1.socket.replace(/\.sock$/, ".log"), "utf8");
		assert.match(log, /"msg":"ready"/);
		const pid = world.agents[0]?.pid;
		const threads = readdirSync(`/proc/${pid}/task`);
		assert.ok(threads.length > 1);
		for (const thread of threads) {
			const status = readFileSync(`/proc/${pid}/task/${thread}/status`, "utf8");
			// CAP_NET_ADMIN (12), CAP_PERFMON (38), CAP_BPF (39)
			for (const set of ["CapPrm", "CapEff", "CapBnd"])
				assert.match(status, new RegExp(`^${set}:\\s*000000c000001000$`, "m"), `${set} of thread ${thread}`);
		}
	});

	test("others can neither read flows nor evict, by the socket, the pins or a program of their own", async () => {
		await warmUp();
		const before = (await statusOf(world.h1)).caches;
		for (const command of [["flows"], ["flush", "--all"], ["pause"], ["status"], ["verify"], ["apply"]] as const) {
			const place = ["--socket", world.h1.socket, "--bpffs", world.h1.bpffs];
			const rest = command[0] === "apply" ? ["--", "true"] : [];
			const argv = [...NOBODY, ONCACHE, ...command, ...place, ...rest];
			const { code, stdout } = await run(inNetns(world.h1.netns, argv), { anyCode: true });
			if (command[0] === "status") assert.doesNotMatch(stdout, new RegExp(world.p1.ip));
			else if (command[0] !== "apply") assert.equal(code, 1, command.join(" "));
		}
		const denied = await run([...NOBODY, "ls", `${world.h1.bpffs}/maps`], { anyCode: true });
		assert.notEqual(denied.code, 0);
		assert.deepEqual((await statusOf(world.h1)).caches, before);
	});

	test("pins, socket and lock are for root", () => {
		for (const path of [`${world.h1.bpffs}/maps`, `${world.h1.bpffs}/links`])
			assert.equal(statSync(path).mode & 0o777, 0o700, path);
		assert.equal(statSync(world.h1.socket).mode & 0o007, 0);
		const locks = readdirSync("/run/oncache").filter((name) => /^netns-\d+\.lock$/.test(name));
		assert.ok(locks.length > 0);
		for (const name of locks) assert.equal(statSync(`/run/oncache/${name}`).mode & 0o077, 0);
	});
});

describe("uninstall", () => {
	test("leaves nothing, and can be repeated", async () => {
		for (const host of world.lab.hosts) {
			const { code, stdout, stderr } = await oncache(host, "uninstall");
			assert.equal(code, 0, stderr);
			assert.match(stdout, /Removed: program at the ingress of interface \d+/);
			assert.ok(!existsSync(host.socket) && !existsSync(host.bpffs));
		}
		assert.deepEqual(await traces(world.h1), clean);
		await freed(objects);
		const ino = (await inside(world.h1, "stat", "-Lc", "%i", "/proc/self/ns/net")).trim();
		assert.ok(!existsSync(`/run/oncache/netns-${ino}.lock`));
		assert.match((await oncache(world.h1, "uninstall")).stdout, /There was nothing to remove/);
		assert.deepEqual(await ping(world.p1, world.p2, "-c", "3", "-i", "0.01", "-W", "1"), { sent: 3, received: 3 });
	});
});

describe("what is in the way", () => {
	const state = async (): Promise<Status> => JSON.parse((await oncache(world.h1, "status", "--json")).stdout) as Status;

	test("a sysctl that cannot be set: nothing is attached, status says why, and the overlay works", async () => {
		const argv = [
			"unshare",
			"-m",
			"sh",
			"-c",
			'mount --bind -o ro /proc/sys /proc/sys && mount -o remount,bind,ro /proc/sys && exec "$@"',
			"sh",
		];
		await inside(world.h1, "sysctl", "-qw", "net.netfilter.nf_conntrack_tcp_be_liberal=0");
		const agent = await startAgent(world.h1, { wrapper: argv });
		try {
			const { state: is, why } = await state();
			assert.equal(is, "off");
			assert.ok(
				why.some((line) => /nf_conntrack_tcp_be_liberal.*read-only file system/i.test(line)),
				why.join("; "),
			);
			assert.deepEqual(await ping(world.p1, world.p2, "-c", "3", "-i", "0.01", "-W", "1"), { sent: 3, received: 3 });
		} finally {
			await agent.stop();
			await oncache(world.h1, "uninstall");
		}
	});

	test("a bpffs that cannot be written: an error that says so, and the overlay works", async () => {
		const file = "/run/oncache-e2e-life-file";
		writeFileSync(file, "");
		const { code, stderr } = await run(
			inNetns(world.h1.netns, [ONCACHE, "agent", "--socket", world.h1.socket, "--bpffs", `${file}/below`]),
			{ anyCode: true },
		);
		rmSync(file);
		assert.equal(code, 1);
		assert.match(stderr, /\/run\/oncache-e2e-life-file/);
		assert.equal((await state()).state, "off");
		assert.deepEqual(await ping(world.p1, world.p2, "-c", "3", "-i", "0.01", "-W", "1"), { sent: 3, received: 3 });
	});
});
