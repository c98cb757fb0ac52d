// A connection tracking entry that ends takes its flow with it: the socket filter at work in the kernel.
import assert from "node:assert/strict";
import { after, test } from "node:test";
import { watchConntrack } from "../../src/kernel/monitor.js";
import {
	enterNetns,
	fromPod,
	inbound,
	inner,
	LOCAL_PORT,
	MARK,
	NEXT,
	openWorld,
	outbound,
	POD,
	REDIRECT,
	REMOTE,
	REMOTE_PORT,
	tool,
	toPod,
	track,
} from "./world.js";

enterNetns();
const stop = new AbortController();
const world = openWorld();
watchConntrack({
	signal: stop.signal,
	keepAlive: false,
	filterFd: world.datapath.programFd("forget"),
	onChange: () => assert.fail("the filter did not understand an event"),
});
after(() => {
	stop.abort();
	world.close();
});

for (const l4 of ["tcp", "udp"] as const)
	test(`a deleted ${l4} entry: its flow, and only that, leaves the cache at once, in whichever direction it began`, () => {
		const isFast = (): boolean => {
			return (
				world.run("egress", fromPod(inner(l4, "egress"))).verdict === REDIRECT &&
				world.run("ingress", inbound(inner(l4, "ingress"))).verdict === REDIRECT
			);
		};
		world.teach(l4);
		assert.ok(isFast());
		const before = world.datapath.forgotten;
		tool("conntrack", "-I", "-p", l4, "-s", POD, "-d", REMOTE, "--sport", "1", "--dport", "2", "--timeout", "60",
			"--status", "SEEN_REPLY", ...(l4 === "tcp" ? ["--state", "ESTABLISHED"] : [])); // biome-ignore format: one command
		tool("conntrack", "-D", "-p", l4, "--sport", "1");
		assert.ok(isFast(), "another entry's end");
		tool("conntrack", "-D", "-p", l4, "-s", POD, "--sport", String(LOCAL_PORT));
		assert.equal(world.run("egress", fromPod(inner(l4, "egress"))).verdict, NEXT);
		assert.equal(world.datapath.forgotten, before + 1);

		// Begun by the remote pod.
		tool("conntrack", "-I", "-p", l4, "-s", REMOTE, "-d", POD, "--sport", String(REMOTE_PORT), "--dport", String(LOCAL_PORT),
			"--timeout", "60", "--status", "SEEN_REPLY,ASSURED", ...(l4 === "tcp" ? ["--state", "ESTABLISHED"] : [])); // biome-ignore format: one command
		world.run("egress_init", outbound(inner(l4, "egress", { ttl: 63 })), { mark: MARK });
		world.run("ingress_init", toPod(inner(l4, "ingress", { ttl: 62 })), { mark: MARK });
		assert.ok(isFast());
		tool("conntrack", "-F");
		assert.equal(world.run("ingress", inbound(inner(l4, "ingress"))).verdict, NEXT);
		assert.equal(world.datapath.forgotten, before + 2);
	});

test("entries of other protocols, and of IPv6, are none of its business", () => {
	const before = world.datapath.forgotten;
	track("udp", "SEEN_REPLY", { local: 9, remote: 9 });
	tool("conntrack", "-I", "-p", "sctp", "-s", POD, "-d", REMOTE, "--sport", "5", "--dport", "6", "--timeout", "60",
		"--state", "ESTABLISHED", "--orig-vtag", "1", "--reply-vtag", "2"); // biome-ignore format: one command
	tool("conntrack", "-I", "-p", "udp", "-s", "fd00::1", "-d", "fd00::2", "--sport", "5", "--dport", "6",
		"--timeout", "60"); // biome-ignore format: one command
	tool("conntrack", "-F");
	assert.equal(world.datapath.forgotten, before);
});
