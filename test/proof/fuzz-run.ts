// One run of the fuzzing proof, in a process of its own: it moves into a network namespace. `fuzz-run.js SEED PACKETS` prints JSON.
import { flowKey } from "../../src/datapath/layout.js";
import type { TestContext } from "../../src/datapath/testrun.js";
import type { ProgramName } from "../../src/datapath/types.js";
import { parseIpv4 } from "../../src/net/ipv4.js";
import {
	DROP, ECHO_ID, enterNetns, fromPod, inbound, inner, type L4, LOCAL_PORT, MARK, NEXT, openWorld, outbound, POD, REDIRECT, REMOTE,
	REMOTE_PORT, toPod, type World,
} from "../kernel/world.js"; // biome-ignore format: a list
import { mutate } from "./mutation.js";
import { blankOuter, decapsulated, encapsulated } from "./oracle.js";
import { random } from "./proof.js";

const BATCH = 500;
const PROTOCOLS: L4[] = ["tcp", "udp", "icmp"];
const PROGRAMS: ProgramName[] = ["egress", "egress_init", "ingress", "ingress_init"];
const INIT: ProgramName[] = ["egress_init", "ingress_init"];
const HOOKS_OF = { all: PROGRAMS, init: INIT, main: PROGRAMS.filter((name) => !INIT.includes(name)) };
const MARKS = [0, MARK, 0xffffffff];
const MOST_FAILURES = 20;
const TOS_MARKS = 0x0c;

const TUPLE = [`${parseIpv4(POD)}:${LOCAL_PORT}`, `${parseIpv4(REMOTE)}:${REMOTE_PORT}`];
const ECHO = [`${parseIpv4(POD)}:${ECHO_ID}`, `${parseIpv4(REMOTE)}:0`];

const seen: Record<string, number> = {};
const failures: string[] = [];
const count = (what: string, by = 1): void => {
	seen[what] = (seen[what] ?? 0) + by;
};

const [, , seed, packets] = process.argv.map(Number);
const next = random(seed ?? 1);
enterNetns();
const warm: Record<ProgramName, Buffer[]> = {
	egress: PROTOCOLS.flatMap((l4) => [0, 1, 2, 3].map((tos) => fromPod(inner(l4, "egress", { tos })))),
	egress_init: PROTOCOLS.map((l4) => outbound(inner(l4, "egress", { ttl: 63 }))),
	ingress: PROTOCOLS.flatMap((l4) =>
		[0, 1, 2, 3].flatMap((tos) =>
			[0, 3].map((outer) => inbound(inner(l4, "ingress", { tos }), { ip: { tos: outer } })),
		),
	),
	ingress_init: PROTOCOLS.map((l4) => toPod(inner(l4, "ingress", { ttl: 62 }))),
};
const all = Object.values(warm).flat();
const share = Math.ceil((packets ?? 0) / 4);
fuzz(openWorld(), share, { phase: "warm flows", hooks: "all", initMarks: [0, ~MARK >>> 0] });
// A marked packet at an init hook is one that the fallback has carried: what it says may be learned.
fuzz(openWorld(), share, { phase: "marked", hooks: "init", initMarks: [MARK, 0xffffffff] });
fuzz(openWorld(), share, { phase: "nothing cached", hooks: "all", initMarks: [0, ~MARK >>> 0] });
fuzz(openWorld({ markMode: "dscp" }), share / 2, { phase: "dscp mode", hooks: "main", initMarks: [0] });
// Nobody has asked about anything here, whatever the packets' bits say.
fuzz(openWorld({ markMode: "dscp" }), share / 2, { phase: "dscp mode", hooks: "init", initMarks: [0] });
console.log(JSON.stringify({ seen, failures }));
process.exit();

interface Phase {
	phase: "warm flows" | "marked" | "nothing cached" | "dscp mode";
	hooks: keyof typeof HOOKS_OF;
	/** Of packets at init hooks; others carry any mark. */
	initMarks: number[];
}

function fuzz(world: World, amount: number, { phase, hooks, initMarks }: Phase): void {
	for (let done = 0; done < amount && failures.length < MOST_FAILURES; done += BATCH) {
		if (phase === "warm flows") warmUp(world);
		for (let n = 0; n < BATCH; n++) {
			const program = pick(HOOKS_OF[hooks]);
			one(world, program, pick(INIT.includes(program) ? initMarks : MARKS), phase === "dscp mode");
		}
		checkCaches(phase, world);
	}
	const { egress, ingress } = world.datapath.counters().packets;
	count("counted drops", (egress.fallback.drop ?? 0) + (ingress.fallback.drop ?? 0));
	if ((seen.drops ?? 0) !== (seen["counted drops"] ?? 0)) fail(`${phase}: a drop that was not counted`);
	world.close();
}

/** Every flow is warm, and every packet that is as it should be hits. */
function warmUp(world: World): void {
	for (const l4 of PROTOCOLS) world.teach(l4);
	for (const program of ["egress", "ingress"] as const) {
		const packet = pick(warm[program]);
		if (program === "ingress" && decapsulated(packet) === undefined) continue;
		if (world.run(program, packet).verdict !== REDIRECT)
			fail(`${program}: a packet of a warm flow did not hit: ${packet.toString("hex")}`);
	}
}

function one(world: World, program: ProgramName, mark: number, isDscp: boolean): void {
	const packet = mutate(next() < 0.8 ? warm[program] : all, next);
	const context: TestContext = { mark };
	if (next() < 0.05) context.ifindex = pick([1, world.pod0, world.up0, world.flannel]);
	if (next() < 0.05) context.ingressIfindex = pick([0, 1, world.pod0, world.up0]);
	if (next() < 0.03) Object.assign(context, { gsoSize: 1 + Math.floor(next() * 1400), gsoSegs: 2 });
	const what = (): string => `${program}, ${JSON.stringify(context)}: ${packet.toString("hex")}`;
	count("packets");
	const result = attempt(() => world.run(program, packet, context));
	if (result === undefined) {
		count("refused by the test run itself");
		return;
	}
	const isOut = program === "egress" || program === "ingress";
	switch (result.verdict) {
		case NEXT: {
			count("to the fallback");
			if (isDscp) unmark(packet, result.packet);
			if (!result.packet.equals(packet)) fail(`changed, and handed to the fallback: ${what()}`);
			if (!isOut && !isDscp && result.mark & MARK && mark & MARK) fail(`a mark was left on: ${what()}`);
			return;
		}
		case DROP:
			count("drops");
			return;
		case REDIRECT: {
			count("fast");
			const device = program === "egress" ? world.pod0 : world.up0;
			const isOurs = context.gsoSize === undefined && (context.ifindex ?? device) === device && isOut;
			const expected = isOurs ? (program === "egress" ? encapsulated(packet) : decapsulated(packet)) : undefined;
			const isSound = program !== "egress" || blankOuter(result.packet);
			if (expected === undefined) fail(`took the fast path, and must not: ${what()}`);
			else if (!isSound || !result.packet.equals(expected))
				fail(`came out wrong: ${what()} as ${result.packet.toString("hex")}`);
			return;
		}
		default:
			fail(`verdict ${result.verdict}: ${what()}`);
	}
}

/** The kernel's own refusals: a packet too short for its EtherType, a device that is not up. */
function attempt<T>(run: () => T): T | undefined {
	try {
		return run();
	} catch {
		return undefined;
	}
}

/** In dscp mode the programs may set and take off two bits of any IPv4 header here, and its checksum follows. */
function unmark(before: Buffer, after: Buffer): void {
	for (const at of [14, 64]) {
		if (after.length < at + 20 || before.length !== after.length) continue;
		const changed = before.readUInt8(at + 1) ^ after.readUInt8(at + 1);
		if (changed === 0 || changed & ~TOS_MARKS) continue;
		before.copy(after, at + 1, at + 1, at + 2);
		before.copy(after, at + 10, at + 10, at + 12);
	}
}

/** What is cached: of TCP and UDP nothing but what connection tracking knows; from unmarked packets nothing at all. */
function checkCaches(phase: Phase["phase"], world: World): void {
	const isLearner = phase === "warm flows" || phase === "marked";
	for (const { keys, count: entries } of world.datapath.maps.filter.chunks())
		for (let i = 0; i < entries; i++) {
			const { proto, localIp, localPort, remoteIp, remotePort } = flowKey.read(keys, i * flowKey.size);
			const ends = [`${localIp}:${localPort}`, `${remoteIp}:${remotePort}`];
			const isKnown =
				proto === 1 ? phase === "marked" || ends.join() === ECHO.join() : ends.every((end) => TUPLE.includes(end));
			const isTurned = phase === "warm flows" && localIp !== parseIpv4(POD);
			if (!isLearner || !isKnown || isTurned) fail(`${phase}: learned protocol ${proto}, ${ends.join(", ")}`);
		}
	if (isLearner) return;
	if (world.datapath.hosts().length > 0) fail(`${phase}: learned a host`);
	if (world.datapath.pods().length > 0) fail(`${phase}: learned a pod`);
}

function pick<T>(list: readonly T[]): T {
	return list[Math.floor(next() * list.length)] as T;
}

function fail(what: string): void {
	if (failures.length < MOST_FAILURES) failures.push(what);
}
