// Decides what to change so that what is becomes what should be; never changes anything. Pure.
import { isDeepStrictEqual } from "node:util";
import type { Attached } from "../datapath/attach.js";
import {
	type AttachKind,
	type DeviceRole,
	HOOKS,
	type HookDirection,
	type ProgramName,
	type TunnelEntry,
	type VethEntry,
} from "../datapath/types.js";
import { type Desired, tunnelEntries, vethEntries } from "./desired.js";

export type Action =
	| { kind: "attach"; ifindex: number; direction: HookDirection; program: ProgramName }
	| { kind: "detach"; ifindex: number; direction: HookDirection }
	| { kind: "setTunnels"; tunnels: TunnelEntry[] }
	| { kind: "setVeths"; veths: VethEntry[] }
	| { kind: "flushVeth"; ifindex: number }
	| { kind: "flushTunnel"; ifindex: number };

export interface Actual {
	attachments: readonly Attached[];
	/** Hooks whose program this agent has loaded; what an earlier one left is replaced once. */
	isOwn: (ifindex: number, direction: HookDirection) => boolean;
	veths: readonly VethEntry[];
	tunnels: readonly TunnelEntry[];
}

/**
 * In an order that is safe at every step: programs go before what they rely on is taken away, and come after it is there;
 * what is cached of something that changed is evicted when the new state can be learned, and before what may wait.
 */
export function plan(desired: Desired, actual: Actual, kind: AttachKind): Action[] {
	const wanted = [
		...desired.uplinks.flatMap((ifindex) => hooksOf("uplink", ifindex)),
		...vethEntries(desired).flatMap(({ ifindex }) => hooksOf("veth", ifindex)),
	];
	const unwanted = actual.attachments.filter(
		(is) =>
			is.gone ||
			// What an earlier agent has left may have no name; it is replaced in place.
			!wanted.some((hook) => isSameHook(hook, is) && (is.program ?? hook.program) === hook.program),
	);
	const missing = wanted.filter(
		(hook) =>
			!actual.isOwn(hook.ifindex, hook.direction) ||
			!actual.attachments.some(
				(is) => isSameHook(hook, is) && !is.gone && is.kind === kind && is.program === hook.program,
			),
	);
	const tunnels = tunnelEntries(desired);
	const veths = vethEntries(desired);
	return [
		...unwanted.map(({ ifindex, direction }) => ({ kind: "detach" as const, ifindex, direction })),
		...(isDeepStrictEqual(tunnels, actual.tunnels) ? [] : [{ kind: "setTunnels" as const, tunnels }]),
		...(isDeepStrictEqual(byIfindex(veths), byIfindex(actual.veths)) ? [] : [{ kind: "setVeths" as const, veths }]),
		...changed(actual.veths, veths).map((ifindex) => ({ kind: "flushVeth" as const, ifindex })),
		...changed(actual.tunnels, tunnels).map((ifindex) => ({ kind: "flushTunnel" as const, ifindex })),
		...missing.map((hook) => ({ kind: "attach" as const, ...hook })),
	];
}

function hooksOf(
	role: DeviceRole,
	ifindex: number,
): { ifindex: number; direction: HookDirection; program: ProgramName }[] {
	// The init program (egress side) comes before the one that marks, so that every mark is taken off.
	return (["egress", "ingress"] as const).map((direction) => ({ ifindex, direction, program: HOOKS[role][direction] }));
}

function isSameHook(a: { ifindex: number; direction: string }, b: { ifindex: number; direction: string }): boolean {
	return a.ifindex === b.ifindex && a.direction === b.direction;
}

/** Devices that were there and are not any more, or not as they were. */
function changed<T extends { ifindex: number }>(before: readonly T[], after: readonly T[]): number[] {
	return before.filter((old) => !after.some((now) => isDeepStrictEqual(old, now))).map(({ ifindex }) => ifindex);
}

function byIfindex<T extends { ifindex: number }>(entries: readonly T[]): T[] {
	return [...entries].sort((a, b) => a.ifindex - b.ifindex);
}
