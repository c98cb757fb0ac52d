// Attackers in the lab, each attack in a plain overlay and in one with ONCache: what arrives where must be the same, no attack
// may be fast, and none may teach the caches anything.
import { type Attack, nextAttack, tunnelled } from "./attacks.js";
import { type Random, randomOf } from "./choice.js";
import { CABLE_MAC, countedIn, type Field, flowsOf, forgetConnections, openField, PLACES, type Place, podFrame, podOf, STRANGER, sendAndAwait, strayPacket, warm } from "./field.js"; // biome-ignore format: a list
import { type Proof, random } from "./proof.js";

const BATCH = 20;
/** One batch in so many is a single packet that opens or closes the connection. */
const CONTROL_EVERY = 6;
const FAILURES_MAX = 10;
const SIGN_BYTES = 16;
/** Bytes of a frame that a report shows. */
const SHOWN = 120;
const LABS = { plain: "spoof-p", cached: "spoof-c" };

const FIGURES = ["attacks", "kinds", "delivered", "dropped", "on the connection itself", "not to be told from the flow's own", "of these fast where they arrive", "evictions, as the bridge was deceived", "dscp mode: other mark bits"] as const; // biome-ignore format: a list
type Figures = Record<(typeof FIGURES)[number], number>;

interface Round {
	plain: Field;
	cached: Field;
	mode: string;
	random: Random;
	figures: Figures;
	failures: string[];
	kinds: Set<string>;
}

export const spoofing: Proof = {
	name: "spoofing",
	claim: "a forged packet fares with ONCache as without it, is never fast out of a pod, and moves no flow",
	unit: "attacks",
	small: 200,
	full: 5000,
	run: async ({ seed, amount, signal, progress }) => {
		const figures = Object.fromEntries(FIGURES.map((name) => [name, 0])) as Figures;
		const failures: string[] = [];
		const source = randomOf(random(seed));
		const kinds = new Set<string>();
		const plain = await openField(LABS.plain, undefined);
		try {
			for (const mode of ["metadata", "dscp"]) {
				const cached = await openField(LABS.cached, ["--mark-mode", mode, "--max-staleness-ms", "60000"]);
				try {
					const round = { plain, cached, mode, random: source, figures, failures, kinds };
					const end = figures.attacks + amount / 2;
					for (let i = 0; figures.attacks < end && failures.length < FAILURES_MAX; i++) {
						signal.throwIfAborted();
						await batch(round, { isControl: i % CONTROL_EVERY === 0, isPerfect: source.chance(0.3) });
						progress(`${figures.attacks} of ${amount} attacks, ${mode} mode`);
					}
				} finally {
					await cached.down();
				}
			}
		} finally {
			await plain.down();
		}
		figures.kinds = kinds.size;
		return { figures: { ...figures }, failures };
	},
};

async function batch(
	round: Round,
	{ isControl, isPerfect }: { isControl: boolean; isPerfect: boolean },
): Promise<void> {
	const { plain, cached, figures, failures, random, mode, kinds } = round;
	await Promise.all([warm(plain), warm(cached)]);
	const attacks = Array.from({ length: isControl ? 1 : BATCH }, (_, i) =>
		nextAttack(plain.lab, random, signOf(figures.attacks + i), isPerfect, isControl),
	);
	const before = { flows: await flowsOf(cached), counted: await countedIn(cached) };
	const [expected, got] = await Promise.all([carryOut(plain, attacks), carryOut(cached, attacks)]);
	const after = { flows: await flowsOf(cached), counted: await countedIn(cached) };
	for (const [i, { kind, frame, isUnseen }] of attacks.entries()) {
		const sign = signOf(figures.attacks + i);
		const [without, withCache] = [expected, got].map((seen) => arrivals(seen, sign)) as [string[], string[]];
		figures[without.length > 0 ? "delivered" : "dropped"]++;
		kinds.add(kind);
		const isKnown = mode === "dscp" && isUnseen && withoutMarks(without) === withoutMarks(withCache);
		if (without.join() === withCache.join()) continue;
		if (isKnown) figures["dscp mode: other mark bits"]++;
		else
			failures.push(
				`${mode} mode, ${kind} (${frame.toString("hex", 0, SHOWN)}): without ONCache [${without.join(" ")}], with it [${withCache.join(" ")}]`,
			);
	}
	const problems: string[] = [];
	for (const [i, then] of before.counted.entries()) {
		const now = after.counted[i] as (typeof before.counted)[number];
		const fast = { egress: now.egressFast - then.egressFast, ingress: now.ingressFast - then.ingressFast };
		if (isPerfect) figures["of these fast where they arrive"] += fast.ingress;
		if (fast.egress > 0) problems.push(`${fast.egress} fast from pods of ${now.host}`);
		if (fast.ingress > (isPerfect ? attacks.length : 0)) problems.push(`${fast.ingress} fast into ${now.host}`);
		if (now.evicted > then.evicted) figures["evictions, as the bridge was deceived"] += now.evicted - then.evicted;
		else if (now.learned > then.learned) problems.push(`${now.learned - then.learned} lessons on ${now.host}`);
	}
	// What opens or closes a connection ends its flow; what was evicted is void, but nothing refers to somebody else now.
	const known = new Map(before.flows.map((flow) => [keyOf(flow), flow]));
	const lost = isControl ? [] : before.flows.filter((flow) => !after.flows.some((each) => keyOf(each) === keyOf(flow)));
	const moved = after.flows.filter((flow) => !isSameOrVoid(known.get(keyOf(flow)), flow));
	if (lost.length + moved.length > 0)
		problems.push(`flows [${lost.join(", ")}] are lost, [${moved.join(", ")}] new or moved`);
	const names = attacks.map(({ kind }) => kind).join("; ");
	failures.push(...problems.map((problem) => `${mode} mode, ${problem}, by one of: ${names}`));
	figures.attacks += attacks.length;
	if (isPerfect) figures["not to be told from the flow's own"] += attacks.length;
	if (!isControl) return;
	figures["on the connection itself"]++;
	await Promise.all([forgetConnections(plain), forgetConnections(cached)]);
}

/** Of a line of flowsOf(): host, protocol, addresses and ports; then come veth and remote host. */
const keyOf = (flow: string): string => flow.split(" ").slice(0, 6).join(" ");

function isSameOrVoid(before: string | undefined, after: string): boolean {
	if (before === undefined) return false;
	const [veth, peer] = before.split(" ").slice(6, 8);
	const [vethNow, peerNow] = after.split(" ").slice(6, 8);
	return (vethNow === veth || vethNow === "") && (peerNow === peer || peerNow === "");
}

/**
 * In dscp mode, while ONCache is asking about a flow, a packet of the same flow that comes by another way with the two bits set
 * is taken for one that it has marked (ARCHITECTURE.md, dscp mode).
 */
function withoutMarks(frames: readonly string[]): string {
	return frames
		.map((text) => {
			const [place = "", frame = ""] = text.split(":");
			const tos = (Number.parseInt(frame.slice(30, 32), 16) & ~0x0c).toString(16).padStart(2, "0");
			return `${place}:${frame.slice(0, 30)}${tos}${frame.slice(32, 48)}${frame.slice(52)}`;
		})
		.sort()
		.join();
}

const signOf = (number: number): string => `attack${String(number).padStart(SIGN_BYTES - 7, "0")}.`;

/** Where frames with this sign arrived, as what. */
function arrivals(seen: ReadonlyMap<Place, string[]>, sign: string): string[] {
	const hex = Buffer.from(sign).toString("hex");
	return PLACES.flatMap((place) =>
		(seen.get(place) ?? []).filter((frame) => frame.includes(hex)).map((frame) => `${place}:${comparable(frame)}`),
	).sort();
}

const IP_ID = [36, 40] as const;
const IP_CHECKSUM = [48, 52] as const;

/** An ICMP error is a packet of the host's own: its IP ID, and with it the checksum, are the host's choice. */
function comparable(frame: string): string {
	const isError = frame.slice(24, 28) === "0800" && frame.slice(46, 48) === "01" && ["03", "0b", "0c"].includes(frame.slice(68, 70)); // biome-ignore format: a condition
	if (!isError) return frame;
	const masked = ([from, to]: readonly [number, number], text: string): string =>
		text.slice(0, from) + "-".repeat(to - from) + text.slice(to);
	return masked(IP_CHECKSUM, masked(IP_ID, frame));
}

/** One attack after the other has run its course; then the robbed get their own back by saying something. */
async function carryOut(field: Field, attacks: readonly Attack[]): Promise<Map<Place, string[]>> {
	const { stations, lab } = field;
	for (const place of PLACES) await stations[place].exchange([]);
	const seen = new Map<Place, string[]>(PLACES.map((place) => [place, []]));
	const keep = (place: Place, frames: readonly string[]): void => void seen.get(place)?.push(...frames);
	for (const { from, frame, robbed } of attacks) {
		keep(from, await stations[from].exchange([frame]));
		const { to, frame: last, sign } = fence(field, from);
		keep(to, await sendAndAwait(field, from, [last], to, sign));
		if (robbed) await stations[robbed].exchange([podFrame(lab, robbed, stray(field, robbed, "h3p1", "own again"))]);
	}
	for (const place of PLACES) keep(place, await stations[place].exchange([]));
	return seen;
}

let fences = 0;

/** A harmless packet by the way that attacks from here take: when it has arrived, so have they. */
function fence(field: Field, from: Place): { to: Place; frame: Buffer; sign: string } {
	const sign = `fence${String(fences++).padStart(10, "0")}.`;
	if (from.includes("p")) {
		const to = from === "h1p2" ? "h2p1" : "h1p1";
		return { to, sign, frame: podFrame(field.lab, from, stray(field, from, to, sign)) };
	}
	const packet = stray(field, "h3p1", "h1p1", sign);
	const outer =
		from === "cable"
			? { source: STRANGER.ip, mac: STRANGER.cableMac, destinationMac: CABLE_MAC }
			: { source: STRANGER.ip, mac: STRANGER.mac };
	return { to: "h1p1", sign, frame: tunnelled(field.lab, packet, outer) };
}

function stray({ lab }: Field, from: Place, to: Place, text: string): Buffer {
	return strayPacket(podOf(lab, from).ip, podOf(lab, to).ip, text);
}
