// All reflectors of one agent, and what they say put together: changes in batches, health now and then.
import type { KubeConfig } from "@kubernetes/client-node";
import { connect, serverOf } from "./connection.js";
import type { Assignment, Health, Message } from "./messages.js";
import type { NamespaceRecord } from "./records.js";
import { Reflector, TIMING, type Timing } from "./reflector.js";
import { type AnyRecord, type Kind, podsOfNamespace, type Source, sourcesFor } from "./sources.js";

/** Changes of so long go together. */
const BATCH_MS = 10;
/** Health that says the same but for the time is told so often. */
const HEALTH_MS = 1000;

/** Until `signal`. */
export function watchCluster(
	{ access, scope, node }: Assignment,
	options: { signal: AbortSignal; tell: (message: Message) => void; timing?: Timing },
): void {
	const { signal, tell, timing = TIMING } = options;
	const ofNamespaces = new Map<string, AbortController>();
	let server: string | undefined;
	const connectNow = (): KubeConfig => {
		const connection = connect(access);
		const now = serverOf(connection);
		if (now !== server) {
			server = now;
			tell({ type: "server", server });
		}
		return connection;
	};
	const start = (source: Source, until: AbortSignal, onChange: () => void = () => {}): Copy => {
		const copy = new Copy(source, tell, onChange);
		const { kind, name } = source;
		const reflector = new Reflector({
			source,
			connect: connectNow,
			timing,
			onReplace: (records) => copy.replace(records),
			onPut: (record) => copy.put(record),
			onGone: (uid) => copy.gone(uid),
			onHealth: (health) => copy.health(health),
		});
		void reflector.run(until).then(() => {
			copy.end();
			if (!signal.aborted) tell({ type: "end", kind, source: name });
		});
		return copy;
	};
	for (const source of sourcesFor(scope, node)) {
		const isAsked = source.kind === "namespaces" && scope === "node";
		const copy = start(source, signal, isAsked ? () => followNamespaces(copy.records()) : undefined);
	}

	function followNamespaces(records: Iterable<AnyRecord>): void {
		const optedOut = new Set(
			[...(records as Iterable<NamespaceRecord>)]
				.filter(({ accelerate }) => accelerate === false)
				.map(({ name }) => name),
		);
		for (const [name, controller] of ofNamespaces)
			if (!optedOut.has(name)) {
				controller.abort();
				ofNamespaces.delete(name);
			}
		for (const name of optedOut) {
			if (ofNamespaces.has(name)) continue;
			const controller = new AbortController();
			ofNamespaces.set(name, controller);
			start(podsOfNamespace(name), AbortSignal.any([signal, controller.signal]));
		}
	}
}

/** What goes from one reflector to the other side. */
class Copy {
	readonly #kind: Kind;
	readonly #source: string;
	readonly #tell: (message: Message) => void;
	readonly #onChange: () => void;
	/** Only kept where somebody here asks. */
	readonly #records = new Map<string, AnyRecord>();
	#put = new Map<string, AnyRecord>();
	#gone = new Set<string>();
	#batch: NodeJS.Timeout | undefined;
	#health: Health | undefined;
	#told: { text: string; at: number } = { text: "", at: Number.NEGATIVE_INFINITY };
	#again: NodeJS.Timeout | undefined;
	#isOver = false;

	constructor({ kind, name }: Source, tell: (message: Message) => void, onChange: () => void) {
		this.#kind = kind;
		this.#source = name;
		this.#tell = tell;
		this.#onChange = onChange;
	}

	records(): Iterable<AnyRecord> {
		return this.#records.values();
	}

	replace(records: AnyRecord[]): void {
		this.#put.clear();
		this.#gone.clear();
		if (this.#kind === "namespaces") {
			this.#records.clear();
			for (const record of records) this.#records.set(record.uid, record);
		}
		this.#tell({ type: "replace", kind: this.#kind, source: this.#source, records });
		this.#onChange();
	}

	put(record: AnyRecord): void {
		if (this.#kind === "namespaces") this.#records.set(record.uid, record);
		this.#gone.delete(record.uid);
		this.#put.set(record.uid, record);
		this.#soon();
	}

	gone(uid: string): void {
		this.#records.delete(uid);
		this.#put.delete(uid);
		this.#gone.add(uid);
		this.#soon();
	}

	health(health: Health): void {
		this.#health = health;
		const { heardAt: _, ...rest } = health;
		const now = performance.now();
		if (JSON.stringify(rest) !== this.#told.text || now - this.#told.at >= HEALTH_MS) this.#tellHealth();
		else
			this.#again ??= setTimeout(() => {
				this.#again = undefined;
				this.#tellHealth();
			}, HEALTH_MS);
	}

	end(): void {
		this.#isOver = true;
		clearTimeout(this.#batch);
		clearTimeout(this.#again);
	}

	#soon(): void {
		this.#batch ??= setTimeout(() => {
			this.#batch = undefined;
			const [put, gone] = [[...this.#put.values()], [...this.#gone]];
			this.#put = new Map();
			this.#gone = new Set();
			if (put.length + gone.length === 0) return;
			this.#tell({ type: "change", kind: this.#kind, source: this.#source, put, gone });
			this.#onChange();
		}, BATCH_MS);
	}

	#tellHealth(): void {
		if (!this.#health || this.#isOver) return;
		const { heardAt: _, ...rest } = this.#health;
		this.#told = { text: JSON.stringify(rest), at: performance.now() };
		this.#tell({ type: "health", source: this.#source, health: this.#health });
	}
}
