// One run of the fuzzing proof, in a process of its own: it moves into a network namespace. `fuzz-run.js SEED PACKETS` prints JSON.
import { FLOW_LAYOUTS } from "../../src/datapath/flows.js";
import type { TestContext } from "../../src/datapath/testrun.js";
import type { ProgramName } from "../../src/datapath/types.js";
import { DROP, enterNetns, MARK, NEXT, openWorld, REDIRECT } from "../kernel/world.js";
import {
	addOther, entering, FLOWS, type FlowWorld, KNOWN, LEGS, type Leg, leaving, nameOfFlow, OWN_PODS, type Place, prepare, setPods,
	teach,
} from "./fuzz-flows.js"; // biome-ignore format: a list
import { mutate } from "./mutation.js";
import { blankOuter, expected } from "./oracle.js";
import { random } from "./proof.js";

const BATCH = 500;
const PROGRAMS: ProgramName[] = ["egress", "egress_init", "ingress", "ingress_init"];
const INIT: ProgramName[] = ["egress_init", "ingress_init"];
const HOOKS_OF = { all: PROGRAMS, init: INIT, main: PROGRAMS.filter((name) => !INIT.includes(name)) };
const MARKS = [0, MARK, 0xffffffff];
const MOST_FAILURES = 20;
const TOS_MARKS = 0x0c;

const seen: Record<string, number> = {};
const failures: string[] = [];
const count = (what: string, by = 1): void => {
	seen[what] = (seen[what] ?? 0) + by;
};

const [, , seed, packets] = process.argv.map(Number);
const next = random(seed ?? 1);
enterNetns();
const pod1 = prepare();
const legsAt = (...places: Place[]) => LEGS.filter(({ from }) => places.includes(from));
const legsTo = (...places: Place[]) => LEGS.filter(({ to }) => places.includes(to));

/** A good packet, and the leg that it is of. */
interface Model {
	leg: Leg;
	packet: Buffer;
}
const ECNS = [0, 1, 2, 3];
const warm: Record<ProgramName, Model[]> = {
	egress: legsAt("pod", "other").flatMap((leg) => ECNS.map((tos) => ({ leg, packet: entering(leg, tos) }))),
	egress_init: legsTo("wire").map((leg) => ({ leg, packet: leaving(leg) })),
	ingress: legsAt("wire").flatMap((leg) =>
		ECNS.flatMap((tos) => [0, 3].map((outer) => ({ leg, packet: entering(leg, tos, outer) }))),
	),
	ingress_init: legsTo("pod", "other").map((leg) => ({ leg, packet: leaving(leg) })),
};
const all = Object.values(warm).flat();
const packetsOfAll = all.map(({ packet }) => packet);
const open = (...options: Parameters<typeof openWorld>): FlowWorld => addOther(openWorld(...options), pod1);
const share = Math.ceil((packets ?? 0) / 4);
fuzz(open(), share, { phase: "warm flows", hooks: "all", initMarks: [0, ~MARK >>> 0] });
// A marked packet at an init hook is one that the fallback has carried: what it says may be learned.
fuzz(open(), share, { phase: "marked", hooks: "init", initMarks: [MARK, 0xffffffff] });
fuzz(open(), share, { phase: "nothing cached", hooks: "all", initMarks: [0, ~MARK >>> 0] });
fuzz(open({ markMode: "dscp" }), share / 2, { phase: "dscp mode", hooks: "main", initMarks: [0] });
// Nobody has asked about anything here, whatever the packets' bits say.
fuzz(open({ markMode: "dscp" }), share / 2, { phase: "dscp mode", hooks: "init", initMarks: [0] });
console.log(JSON.stringify({ seen, failures }));
process.exit();

interface Phase {
	phase: "warm flows" | "marked" | "nothing cached" | "dscp mode";
	hooks: keyof typeof HOOKS_OF;
	/** Of packets at init hooks; others carry any mark. */
	initMarks: number[];
}

function fuzz(world: FlowWorld, amount: number, { phase, hooks, initMarks }: Phase): void {
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
function warmUp(world: FlowWorld): void {
	setPods(world, world.pod1);
	for (const leg of FLOWS.flat()) teach(world, leg);
	for (const program of ["egress", "ingress"] as const) {
		const { leg, packet } = pick(warm[program]);
		if (expected(packet, leg.from) === undefined) continue;
		if (world.run(program, packet, contextOf(world, program, leg)).verdict !== REDIRECT)
			fail(`${program}: a packet of a warm flow did not hit: ${packet.toString("hex")}`);
	}
}

/** Where a program sees a packet of this leg. */
function contextOf(world: FlowWorld, program: ProgramName, { from, to }: Leg): TestContext {
	const devices = { pod: world.pod0, other: world.pod1, wire: world.up0 };
	if (program === "ingress_init")
		return { ifindex: devices[to], ingressIfindex: from === "wire" ? world.flannel : devices[from] };
	return { ifindex: program === "egress" ? devices[from] : world.up0, ingressIfindex: 0 };
}

function one(world: FlowWorld, program: ProgramName, mark: number, isDscp: boolean): void {
	const model = pick(next() < 0.8 ? warm[program] : all);
	const packet = mutate(model.packet, packetsOfAll, next);
	const usual = contextOf(world, program, model.leg);
	const context: TestContext = { ...usual, mark };
	if (next() < 0.05) context.ifindex = pick([1, world.pod0, world.pod1, world.up0, world.flannel]);
	if (next() < 0.05) context.ingressIfindex = pick([0, 1, world.pod0, world.pod1, world.up0]);
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
			const place = isOut ? placeOf(world, program, context.ifindex) : undefined;
			const right = place && expected(packet, place, context.gsoSize);
			const isTunnelled = right !== undefined && program === "egress" && right.length !== packet.length;
			if (right === undefined) fail(`took the fast path, and must not: ${what()}`);
			else if ((isTunnelled && !blankOuter(result.packet)) || !result.packet.equals(right))
				fail(`came out wrong: ${what()} as ${result.packet.toString("hex")}, not ${right.toString("hex")}`);
			else count(`fast, ${kindOf(packet, right)}`);
			return;
		}
		default:
			fail(`verdict ${result.verdict}: ${what()}`);
	}
}

function placeOf(world: FlowWorld, program: ProgramName, ifindex: number | undefined): Place | undefined {
	if (program === "ingress") return ifindex === world.up0 ? "wire" : undefined;
	return ifindex === world.pod0 ? "pod" : ifindex === world.pod1 ? "other" : undefined;
}

/** For the figures: "IPv6 on the same host". */
function kindOf(before: Buffer, after: Buffer): string {
	const pod = before.length >= after.length ? after : before;
	return `${pod.readUInt16BE(12) === 0x86dd ? "IPv6" : "IPv4"}${before.length === after.length ? " on the same host" : ""}`;
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
function checkCaches(phase: Phase["phase"], world: FlowWorld): void {
	const isLearner = phase === "warm flows" || phase === "marked";
	const { filter, filter6 } = world.datapath.maps;
	for (const [family, map] of [["ipv4", filter], ["ipv6", filter6]] as const) // biome-ignore format: a table
		for (const { keys, count: entries } of map.chunks())
			for (let i = 0; i < entries; i++) {
				const { key } = FLOW_LAYOUTS[family];
				const { proto, localIp, localPort, remoteIp, remotePort } = key.read(keys, i * key.size);
				const ends = { source: localIp, sourcePort: localPort, destination: remoteIp, destinationPort: remotePort };
				const name = nameOfFlow(proto, ends);
				const isEcho = proto === 1 || proto === 58;
				const isKnown = KNOWN.has(name) || (isEcho && phase === "marked");
				const isTurned = phase === "warm flows" && !OWN_PODS.includes(localIp);
				if (!isLearner || !isKnown || isTurned) fail(`${phase}: learned ${name}`);
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
