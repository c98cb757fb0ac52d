// What is known of the cluster, from messages to answers, and what a change means for what is cached. Pure.
import type { PodName } from "../agent/api.js";
import type { Message } from "./messages.js";
import type { NamespaceRecord, NodeRecord, PodRecord, PolicyRecord } from "./records.js";
import type { AnyRecord, Kind, Records } from "./sources.js";

/** What must be evicted, or not be learned. Addresses as the API has them. */
export interface Consequences {
	/** A policy, or what policies select by, has changed. */
	onPolicies(why: string): void;
	/** Pods that are gone from these addresses. */
	onGone(ips: string[]): void;
	/** The policies that these addresses are under may be others now. */
	onRelabelled(ips: string[]): void;
	/** Nodes that are gone. */
	onNodesGone(ips: string[]): void;
	/** The addresses of all pods that are left to the overlay; told once pods and namespaces are known, and when it changes. */
	onOptedOut(ips: ReadonlySet<string>): void;
}

interface Held<R> {
	record: R;
	/** A pod may be in several sources. */
	sources: Set<string>;
}

type Table<K extends Kind> = Map<string, Held<Records[K]>>;

export class View {
	readonly #node: string;
	readonly #consequences: Consequences;
	readonly #tables: { [K in Kind]: Table<K> } = {
		pods: new Map(),
		namespaces: new Map(),
		nodes: new Map(),
		networkpolicies: new Map(),
	};
	readonly #synced = new Set<string>();
	readonly #podAt = new Map<string, PodRecord>();
	readonly #nodeAt = new Map<string, string>();
	readonly #wishes = new Map<string, boolean | null>();
	readonly #optedOut = new Map<string, PodRecord>();
	#optedOutChanged = true;
	#effects = { gone: new Set<string>(), relabelled: new Set<string>(), nodesGone: new Set<string>(), why: "" };

	constructor(node: string, consequences: Consequences) {
		this.#node = node;
		this.#consequences = consequences;
	}

	podAt(ip: string): PodName | null {
		const pod = this.#podAt.get(ip);
		return pod ? { namespace: pod.namespace, name: pod.name } : null;
	}

	/** Name of the node that has this address. */
	nodeAt(ip: string): string | null {
		return this.#nodeAt.get(ip) ?? null;
	}

	/** Addresses that are opted out, and of those the ones of this node's pods. */
	optedOut(): { total: number; local: ReadonlyMap<string, PodName> } {
		const local = new Map<string, PodName>();
		for (const [ip, { node, namespace, name }] of this.#optedOut)
			if (node === this.#node) local.set(ip, { namespace, name });
		return { total: this.#optedOut.size, local };
	}

	/** O(what changed), but for a namespace that opts out or in: O(pods). */
	apply(message: Message): void {
		if (message.type === "replace") this.#replace(message.kind, message.source, message.records);
		else if (message.type === "change") {
			const isNews = this.#synced.has(message.source);
			for (const record of message.put) this.#put(message.kind, message.source, record, isNews);
			for (const uid of message.gone) this.#remove(message.kind, message.source, uid);
		} else if (message.type === "end") this.#replace(message.kind, message.source, []);
		this.#tell();
	}

	#replace(kind: Kind, source: string, records: readonly AnyRecord[]): void {
		const isNews = this.#synced.has(source);
		const now = new Set(records.map(({ uid }) => uid));
		const gone = [...this.#tables[kind]].filter(([uid, { sources }]) => sources.has(source) && !now.has(uid));
		for (const [uid] of gone) this.#remove(kind, source, uid);
		for (const record of records) this.#put(kind, source, record, isNews);
		this.#synced.add(source);
	}

	/** @param isNews what it says is a change, not how things were when reading began */
	#put(kind: Kind, source: string, record: AnyRecord, isNews: boolean): void {
		const table = this.#tables[kind] as Map<string, Held<AnyRecord>>;
		const held = table.get(record.uid);
		table.set(record.uid, { record, sources: (held?.sources ?? new Set<string>()).add(source) });
		switch (kind) {
			case "pods":
				this.#changePod(held?.record as PodRecord | undefined, record as PodRecord);
				break;
			case "namespaces":
				this.#changeNamespace(held?.record as NamespaceRecord | undefined, record as NamespaceRecord);
				break;
			case "nodes":
				this.#changeNode(held?.record as NodeRecord | undefined, record as NodeRecord);
				break;
			case "networkpolicies": {
				const before = held?.record as PolicyRecord | undefined;
				if (isNews && before?.generation !== (record as PolicyRecord).generation)
					this.#effects.why = `policy ${record.namespace}/${record.name} ${before ? "changed" : "came"}`;
			}
		}
	}

	#remove(kind: Kind, source: string, uid: string): void {
		const table = this.#tables[kind] as Map<string, Held<AnyRecord>>;
		const held = table.get(uid);
		if (!held?.sources.delete(source) || held.sources.size > 0) return;
		table.delete(uid);
		switch (kind) {
			case "pods":
				this.#changePod(held.record as PodRecord, undefined);
				break;
			case "namespaces":
				this.#changeNamespace(held.record as NamespaceRecord, undefined);
				break;
			case "nodes":
				this.#changeNode(held.record as NodeRecord, undefined);
				break;
			case "networkpolicies":
				this.#effects.why = `policy ${held.record.namespace}/${held.record.name} is gone`;
		}
	}

	#changePod(before: PodRecord | undefined, after: PodRecord | undefined): void {
		for (const ip of before?.ips ?? []) {
			if (this.#podAt.get(ip)?.uid !== before?.uid) continue; // another pod has it already
			if (after?.ips.includes(ip)) continue;
			this.#podAt.delete(ip);
			if (this.#optedOut.delete(ip)) this.#optedOutChanged = true;
			this.#effects.gone.add(ip);
		}
		if (!after) return;
		for (const ip of after.ips) {
			const other = this.#podAt.get(ip);
			if (other !== undefined && other.uid !== after.uid) this.#effects.gone.add(ip);
			this.#podAt.set(ip, after);
			this.#judge(ip, after);
			if (before && before.labels !== after.labels) this.#effects.relabelled.add(ip);
		}
	}

	#changeNamespace(before: NamespaceRecord | undefined, after: NamespaceRecord | undefined): void {
		if (before && after && before.labels !== after.labels)
			this.#effects.why = `labels of namespace ${after.name} changed`;
		const { name } = (after ?? before) as NamespaceRecord;
		const wish = after?.accelerate ?? null;
		if ((this.#wishes.get(name) ?? null) === wish) return;
		if (after) this.#wishes.set(name, wish);
		else this.#wishes.delete(name);
		for (const [ip, pod] of this.#podAt) if (pod.namespace === name) this.#judge(ip, pod);
	}

	#changeNode(before: NodeRecord | undefined, after: NodeRecord | undefined): void {
		for (const ip of before?.ips ?? []) {
			if (after?.ips.includes(ip)) continue;
			if (this.#nodeAt.get(ip) !== before?.name) continue;
			this.#nodeAt.delete(ip);
			this.#effects.nodesGone.add(ip);
		}
		if (after) for (const ip of after.ips) this.#nodeAt.set(ip, after.name);
	}

	/** The pod's own wish, else its namespace's. */
	#judge(ip: string, pod: PodRecord): void {
		const isOptedOut = !(pod.accelerate ?? this.#wishes.get(pod.namespace) ?? true);
		if (isOptedOut !== this.#optedOut.has(ip)) this.#optedOutChanged = true;
		if (isOptedOut) this.#optedOut.set(ip, pod);
		else this.#optedOut.delete(ip);
	}

	#tell(): void {
		const { gone, relabelled, nodesGone, why } = this.#effects;
		this.#effects = { gone: new Set(), relabelled: new Set(), nodesGone: new Set(), why: "" };
		// What must not be learned comes before what is evicted.
		if (this.#optedOutChanged && this.#synced.has("pods") && this.#synced.has("namespaces")) {
			this.#optedOutChanged = false;
			this.#consequences.onOptedOut(new Set(this.#optedOut.keys()));
		}
		if (gone.size > 0) this.#consequences.onGone([...gone]);
		if (relabelled.size > 0) this.#consequences.onRelabelled([...relabelled]);
		if (nodesGone.size > 0) this.#consequences.onNodesGone([...nodesGone]);
		if (why !== "") this.#consequences.onPolicies(why);
	}
}
