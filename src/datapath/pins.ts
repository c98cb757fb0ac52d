// Where things are pinned below the agent's directory on the bpffs.
import { existsSync, readdirSync, rmdirSync, rmSync } from "node:fs";
import type { HookDirection } from "./types.js";

export interface Hook {
	ifindex: number;
	direction: HookDirection;
}

export const mapsDir = (bpffs: string): string => `${bpffs}/maps`;
/** tcx: a link. */
export const linkPin = (bpffs: string, hook: Hook): string => `${bpffs}/links/${hook.ifindex}-${hook.direction}`;
/** clsact: a filter cannot be pinned, so the program's pin records that it is there. */
export const filterPin = (bpffs: string, hook: Hook): string => `${bpffs}/filters/${hook.ifindex}-${hook.direction}`;
/** clsact: the qdisc was created by ONCache. */
export const qdiscPin = (bpffs: string, ifindex: number): string => `${bpffs}/filters/${ifindex}-qdisc`;

export function pinnedHooks(bpffs: string, folder: "links" | "filters"): Hook[] {
	return list(`${bpffs}/${folder}`).flatMap((name) => {
		const match = /^(\d+)-(ingress|egress)$/.exec(name);
		return match ? [{ ifindex: Number(match[1]), direction: match[2] as HookDirection }] : [];
	});
}

export function pinnedQdiscs(bpffs: string): number[] {
	return list(`${bpffs}/filters`).flatMap((name) => (name.endsWith("-qdisc") ? [Number.parseInt(name, 10)] : []));
}

export function list(dir: string): string[] {
	return existsSync(dir) ? readdirSync(dir) : [];
}

/** @returns whether there was one */
export function unpin(path: string): boolean {
	const found = existsSync(path);
	rmSync(path, { force: true });
	return found;
}

/** Removes a directory with everything pinned in it. */
export function removeTree(dir: string): void {
	if (!existsSync(dir)) return;
	for (const entry of readdirSync(dir, { withFileTypes: true }))
		if (entry.isDirectory()) removeTree(`${dir}/${entry.name}`);
		else rmSync(`${dir}/${entry.name}`);
	rmdirSync(dir);
}
