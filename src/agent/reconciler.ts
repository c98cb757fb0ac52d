// Makes what is into what should be, again and again: at the start, when the kernel reports a change, and as an audit.
import type { Datapath } from "../datapath/datapath.js";
import type { AttachKind, HookDirection } from "../datapath/types.js";
import { KernelError } from "../kernel/error.js";
import { Rtnetlink } from "../kernel/rtnetlink.js";
import { type Choice, type Desired, desiredState, NOTHING } from "./desired.js";
import { type Action, plan } from "./plan.js";
import { type Snapshot, takeSnapshot } from "./snapshot.js";

/** A burst of changes is answered once. */
const COALESCE_MS = 20;
const AUDIT_MS = 30_000;
const RETRY_MS = 1000;

export interface ReconcilerOptions {
	datapath: Datapath;
	kind: AttachKind;
	choice: Choice;
	/** Called before each round. @returns why nothing may be accelerated now; undefined when it may */
	precondition: () => string | undefined;
	onAction: (action: Action, error: Error | undefined) => void;
	onError: (error: unknown) => void;
}

export class Reconciler {
	readonly #options: ReconcilerOptions;
	readonly #rtnetlink = Rtnetlink.open();
	/** Hooks that run this process's programs. */
	readonly #own = new Set<string>();
	#isStopped = false;
	#soon: NodeJS.Timeout | undefined;
	#audit: NodeJS.Timeout | undefined;
	#state: { desired: Desired; snapshot: Snapshot | undefined; failures: string[]; blocked: string | undefined } = {
		desired: NOTHING,
		snapshot: undefined,
		failures: [],
		blocked: undefined,
	};

	constructor(options: ReconcilerOptions) {
		this.#options = options;
	}

	/** What the last round wanted, and what of it failed. */
	get state(): Readonly<{
		desired: Desired;
		snapshot: Snapshot | undefined;
		failures: string[];
		blocked: string | undefined;
	}> {
		return this.#state;
	}

	/** The first round, at once; throws what makes it impossible. Then audits go on until stop(). */
	start(): void {
		this.#round();
		this.#audit = setInterval(() => this.#guarded(), AUDIT_MS);
	}

	/** Look again, soon. */
	trigger(delayMs = COALESCE_MS): void {
		if (this.#isStopped) return;
		this.#soon ??= setTimeout(() => {
			this.#soon = undefined;
			this.#guarded();
		}, delayMs);
	}

	/** Safe to repeat. */
	stop(): void {
		if (this.#isStopped) return;
		this.#isStopped = true;
		clearTimeout(this.#soon);
		clearInterval(this.#audit);
		this.#rtnetlink.close();
	}

	#guarded(): void {
		try {
			this.#round();
		} catch (error) {
			// The lists changed while they were read, too often: look again.
			if (!(error instanceof KernelError && error.code === "EINTR")) this.#options.onError(error);
			this.trigger(RETRY_MS);
		}
	}

	#round(): void {
		const { datapath, kind, choice, precondition, onAction } = this.#options;
		const blocked = precondition();
		const snapshot = takeSnapshot(this.#rtnetlink);
		const desired = desiredState(snapshot, choice);
		const actions = plan(
			blocked === undefined ? desired : NOTHING,
			{
				attachments: datapath.attachments(),
				isOwn: (ifindex, direction) => this.#own.has(`${ifindex}-${direction}`),
				veths: datapath.veths(),
				tunnels: datapath.tunnels(),
			},
			kind,
		);
		const failures: string[] = [];
		for (const action of actions) {
			const error = this.#apply(action);
			if (error) failures.push(error.message);
			onAction(action, error);
		}
		this.#state = { desired, snapshot, failures, blocked };
		if (failures.length > 0) this.trigger(RETRY_MS);
	}

	/** One device that fails does not stop the others. */
	#apply(action: Action): Error | undefined {
		const { datapath, kind } = this.#options;
		try {
			switch (action.kind) {
				case "attach":
					datapath.attach(action.ifindex, action.direction, action.program, kind);
					this.#own.add(`${action.ifindex}-${action.direction satisfies HookDirection}`);
					break;
				case "detach":
					datapath.detach(action.ifindex, action.direction);
					this.#own.delete(`${action.ifindex}-${action.direction}`);
					break;
				case "setTunnels":
					datapath.setTunnels(action.tunnels);
					break;
				case "setVeths":
					datapath.setVeths(action.veths);
					break;
				case "flushVeth":
					datapath.flushVeth(action.ifindex);
					break;
				case "flushTunnel":
					datapath.flushTunnel(action.ifindex);
					break;
			}
			return undefined;
		} catch (error) {
			return error instanceof Error ? error : new Error(String(error));
		}
	}
}
