// What the thread that talks to the API server tells the agent's own.
import type { Access } from "./access.js";
import type { AnyRecord, Kind, PodScope } from "./sources.js";

/** With what the thread is started. */
export interface Assignment {
	access: Access;
	scope: PodScope;
	node: string;
}

/** Of one source. */
export interface Health {
	objects: number;
	/** It was read completely once. */
	synced: boolean;
	/** When the server was last heard of it, ms of the machine's monotonic clock; null: never. */
	heardAt: number | null;
	/** Complete readings. */
	lists: number;
	/** Times that watching began. */
	watches: number;
	/** What is wrong now, one sentence; null: nothing. */
	problem: string | null;
}

export const NOT_HEARD: Health = { objects: 0, synced: false, heardAt: null, lists: 0, watches: 0, problem: null };

export type Message =
	| { type: "server"; server: string }
	/** All of a source: what is not among it is gone. */
	| { type: "replace"; kind: Kind; source: string; records: AnyRecord[] }
	| { type: "change"; kind: Kind; source: string; put: AnyRecord[]; gone: string[] }
	| { type: "health"; source: string; health: Health }
	/** A source is not read any more. */
	| { type: "end"; kind: Kind; source: string };
