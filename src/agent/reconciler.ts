// Makes what is into what should be, again and again: at the start, when the kernel reports a change, and as an audit.
// First the programs and devices, then what is cached: what the kernel would not do any more is evicted.
import { setImmediate } from "node:timers/promises";
import type { Attached } from "../datapath/attach.js";
import type { Datapath } from "../datapath/datapath.js";
import { BpfError } from "../datapath/error.js";
import type { AttachKind } from "../datapath/types.js";
import { KernelError } from "../kernel/error.js";
import { Forwarding } from "../kernel/forwarding.js";
import { Rtnetlink } from "../kernel/rtnetlink.js";
import { formatIp } from "../net/ip.js";
import type { Switch } from "../ovs/switch.js";
import type { PodName } from "./api.js";
import { type Comparison, compareFlows, compareSlots, type Difference } from "./coherency.js";
import { type Choice, type Desired, type DesiredVeth, desiredState, NOTHING } from "./desired.js";
import { OptedOutVeths } from "./opted-out.js";
import { type Action, plan } from "./plan.js";
import { type Snapshot, takeSnapshot } from "./snapshot.js";

/** A burst of changes is answered once. */
const COALESCE_MS = 5;
const AUDIT_MS = 30_000;
const RETRY_MS = 1000;
/** A storm of changes may cost so much of one CPU; rounds wait when they have used it up. */
const CPU_SHARE = 1 / 3;
/** CPU time that may be used at once when there was little to do before. */
const CPU_CREDIT_MS = 2000;
/** Attaching waits for the kernel's RCU, tens of milliseconds for each hook; after so long, what is cached has its turn. */
const TURN_MS = 50;

/** When what is listed changes while it is read. */
const LOOK_ATTEMPTS = 3;

/**
 * A clsact qdisc on a veth that has just come would be in the way of the CNI plugins that set the pod up (the bandwidth
 * plugin fails where an ingress qdisc is): by then they are done, or the last of them has told (attachNow). tcx is in nobody's
 * way.
 */
const SETTLE_MS = 2000;

/** What to look at again; each includes the ones before it. "audit": also what only somebody else can have changed. */
const LOOKS = ["caches", "devices", "audit"] as const;
export type Look = (typeof LOOKS)[number];

export interface LookOptions {
	/** The kernel was told to forget something. */
	strict?: boolean;
	/**
	 * Routes or neighbours may lead flows elsewhere, so each is looked at. Otherwise only when a device other than a pod's, or an
	 * address of this host, has changed: a pod that comes or goes does not move the flows of others.
	 */
	flows?: boolean;
}

export interface ReconcilerOptions {
	datapath: Datapath;
	kind: AttachKind;
	choice: Omit<Choice, "optedOut">;
	/** This host's pods that are opted out, by address. */
	readOptedOut: () => ReadonlyMap<string, PodName>;
	/** ifindex of the veth of a pod's address, where the CNI plugin has said it. */
	announcedVeth: (ip: string) => number | undefined;
	/** What is known of the host's switch now. */
	readSwitch: () => Switch | undefined;
	/** Called before each round. @returns why nothing may be accelerated now; undefined when it may */
	precondition: () => string | undefined;
	onAction: (action: Action, error: Error | undefined) => void;
	onEvicted: (differences: readonly Difference[], total: number) => void;
	/** A hook or pin of ours that somebody else has removed. */
	onRepaired: (what: string) => void;
	onError: (error: unknown) => void;
}

export interface ReconcilerState {
	desired: Desired;
	snapshot: Snapshot | undefined;
	failures: string[];
	blocked: string | undefined;
	/** Rounds so far. */
	rounds: number;
	/** Cached entries that were evicted because the kernel would do something else. */
	evicted: number;
	repaired: number;
	/** CPU time of the last round, ms. */
	tookMs: number;
}

export class Reconciler {
	readonly #options: ReconcilerOptions;
	readonly #rtnetlink = Rtnetlink.open();
	/** Hooks that run this process's programs. */
	readonly #own = new Set<string>();
	/** Said by the CNI plugin: nobody is at work on them any more; to be attached before all others; about to go. */
	readonly #complete = new Set<number>();
	readonly #urgent = new Set<number>();
	readonly #leaving = new Set<number>();
	/** The look at the devices that was last to begin, and one that has not begun. */
	#lastLook: Promise<unknown> = Promise.resolve();
	#nextLook: Promise<boolean> | undefined;
	#isStopped = false;
	#running: Promise<void> | undefined;
	/** What is to be looked at in the next round; undefined: nothing. */
	#wanted: ({ look: Look } & Required<LookOptions>) | undefined;
	readonly #optedOut = new OptedOutVeths();
	/** When each veth was first seen, ms; those of the first round are old. */
	#seenAt = new Map<number, number>();
	#credit = { ms: CPU_CREDIT_MS, at: performance.now() };
	/** As of the last audit, and what was attached and detached since. */
	#attached: Attached[] | undefined;
	#soon: NodeJS.Timeout | undefined;
	#audit: NodeJS.Timeout | undefined;
	#settle: NodeJS.Timeout | undefined;
	/** What the flows were last looked at with. */
	#foundation: string | undefined;
	/** The flows are being gone through. */
	#isScanning = false;
	#between: NodeJS.Timeout | undefined;
	#state: ReconcilerState = {
		desired: NOTHING,
		snapshot: undefined,
		failures: [],
		blocked: undefined,
		rounds: 0,
		evicted: 0,
		repaired: 0,
		tookMs: 0,
	};

	constructor(options: ReconcilerOptions) {
		this.#options = options;
	}

	/** What the last round wanted, and what of it failed. */
	get state(): Readonly<ReconcilerState> {
		return this.#state;
	}

	/** The first round, complete when it resolves; throws what makes it impossible. Then audits go on until stop(). */
	async start(): Promise<void> {
		this.#running = this.#allDevices();
		await this.#running.finally(() => {
			this.#running = undefined;
		});
		if (this.#isStopped) return;
		this.trigger("caches", { flows: true });
		this.#audit = setInterval(() => this.trigger("audit", { flows: true }), AUDIT_MS);
	}

	async #allDevices(): Promise<void> {
		while (!this.#isStopped && !(await this.#devices()));
	}

	/** Look again, soon. */
	trigger(look: Look, { strict = false, flows = false }: LookOptions = {}): void {
		const before = this.#wanted;
		this.#wanted = {
			look: before && LOOKS.indexOf(before.look) > LOOKS.indexOf(look) ? before.look : look,
			strict: strict || (before?.strict ?? false),
			flows: flows || (before?.flows ?? false),
		};
		if (this.#isScanning) this.#slotsBetween();
		this.#schedule(COALESCE_MS);
	}

	/**
	 * Attaches to a pod's device now, whatever else there is to do. `complete`: no CNI plugin will work on it any more.
	 * @returns why it is not attached; null when it is
	 */
	async attachNow(ifindex: number, complete: boolean): Promise<string | null> {
		this.#leaving.delete(ifindex);
		this.#urgent.add(ifindex);
		if (complete) this.#complete.add(ifindex);
		await this.#lookNow();
		return this.#whyNot(ifindex);
	}

	/**
	 * A device whose pod is being removed: from now on nothing is learned there, and nothing delivered to it or taken from it
	 * past the overlay. Its programs go with it: to detach them would take the kernel tens of milliseconds.
	 */
	release(ifindex: number): void {
		const { datapath } = this.#options;
		this.#leaving.add(ifindex);
		datapath.setVeths(datapath.veths().filter((veth) => veth.ifindex !== ifindex));
		datapath.flushVeth(ifindex);
		this.trigger("devices");
	}

	/** Nothing is attached or evicted any more from now on; resolves when nothing is read either. Safe to repeat. */
	async stop(): Promise<void> {
		const wasStopped = this.#isStopped;
		this.#isStopped = true;
		clearTimeout(this.#soon);
		clearTimeout(this.#settle);
		clearTimeout(this.#between);
		clearInterval(this.#audit);
		await this.#running?.catch(() => {}); // whoever started it hears of it
		await this.#lastLook.catch(() => {});
		if (!wasStopped) this.#rtnetlink.close();
	}

	#schedule(delayMs: number): void {
		if (this.#isStopped || this.#running || this.#wanted === undefined) return;
		this.#soon ??= setTimeout(
			() => {
				this.#soon = undefined;
				this.#running = this.#run();
			},
			Math.max(delayMs, this.#restMs()),
		);
	}

	async #run(): Promise<void> {
		const wanted = this.#wanted;
		if (wanted === undefined) return;
		this.#wanted = undefined;
		const cpu = process.cpuUsage();
		let delayMs = COALESCE_MS;
		try {
			await this.#caches(wanted);
			if (wanted.look === "audit") this.#audited();
			if (wanted.look !== "caches" && !(await this.#devices())) this.trigger("devices");
		} catch (error) {
			// The lists changed while they were read, too often: look again.
			if (!(error instanceof KernelError && error.code === "EINTR") && !this.#isStopped) {
				this.#options.onError(error);
				this.#state = { ...this.#state, failures: [`Looking again failed: ${(error as Error).message}`] };
			}
			this.#wanted = { ...wanted, look: "devices" };
			delayMs = RETRY_MS;
		}
		const { user, system } = process.cpuUsage(cpu);
		const tookMs = (user + system) / 1000;
		this.#state = { ...this.#state, rounds: this.#state.rounds + 1, tookMs };
		this.#credit = { ms: this.#creditMs() - tookMs, at: performance.now() };
		this.#running = undefined;
		if (this.#state.failures.length > 0) {
			this.#wanted = { look: "devices", strict: false, flows: false };
			this.#schedule(RETRY_MS);
		} else this.#schedule(delayMs);
	}

	#creditMs(): number {
		return Math.min(CPU_CREDIT_MS, this.#credit.ms + (performance.now() - this.#credit.at) * CPU_SHARE);
	}

	/** Until a round may begin. */
	#restMs(): number {
		return Math.max(0, -this.#creditMs() / CPU_SHARE);
	}

	/** What no notification tells: somebody else removed a program or a pin. O(devices). */
	#audited(): void {
		this.#attached = undefined;
		for (const name of this.#options.datapath.repairPins()) this.#repaired(`the pin of map "${name}"`);
	}

	/** Asks for a look at the devices; who asks before it begins shares it. @returns whether all is done */
	#devices(): Promise<boolean> {
		this.#nextLook ??= this.#lastLook
			.catch(() => {}) // whoever asked for it hears of it
			.then(() => {
				this.#nextLook = undefined;
				return this.#look();
			});
		this.#lastLook = this.#nextLook;
		return this.#nextLook;
	}

	async #lookNow(): Promise<void> {
		for (let attempt = 1; ; attempt++)
			try {
				if (!(await this.#devices())) this.trigger("devices");
				return;
			} catch (error) {
				// The lists changed while they were read.
				if (!(error instanceof KernelError && error.code === "EINTR") || attempt === LOOK_ATTEMPTS) throw error;
			}
	}

	#whyNot(ifindex: number): string | null {
		const { desired, blocked, failures } = this.#state;
		const veth = desired.veths.find(({ link }) => link.ifindex === ifindex);
		if (!veth) return "It has gone, or is not the device of a pod";
		if (veth.why !== null || blocked !== undefined) return veth.why ?? blocked ?? null;
		const isAttached = ["ingress", "egress"].every((direction) => this.#own.has(hookKey({ ifindex, direction })));
		return isAttached ? null : (failures[0] ?? "The agent is ending");
	}

	/** O(devices + routes). @returns whether all is done; else what is left follows in another look */
	async #look(): Promise<boolean> {
		if (this.#isStopped) return true;
		const started = performance.now();
		const { datapath, kind, choice, readOptedOut, announcedVeth, precondition, onAction } = this.#options;
		const blocked = precondition();
		const snapshot = takeSnapshot(this.#rtnetlink, this.#options.readSwitch());
		const optedOut = this.#optedOut.find(
			readOptedOut(),
			() => new Forwarding(this.#rtnetlink, snapshot.links, snapshot.switch?.remotes),
			announcedVeth,
		);
		const desired = this.#settled(this.#withoutLeaving(desiredState(snapshot, { ...choice, optedOut })));
		const urgent = new Set(this.#urgent);
		this.#urgent.clear();
		const isUrgent = ({ link }: DesiredVeth): boolean => urgent.has(link.ifindex);
		const veths = [...desired.veths.filter(isUrgent), ...desired.veths.filter((each) => !isUrgent(each))];
		const planned = plan(
			blocked === undefined ? { ...desired, veths } : NOTHING,
			{
				attachments: this.#attachments(snapshot),
				isOwn: (ifindex, direction) => this.#own.has(hookKey({ ifindex, direction })),
				veths: datapath.veths(),
				tunnels: datapath.tunnels(),
			},
			kind,
		);
		// release() says why.
		const actions = planned.filter((action) => action.kind !== "detach" || !this.#leaving.has(action.ifindex));
		// Known before it is done: who asks in between is told why something is not attached any more.
		this.#state = { ...this.#state, desired, snapshot, blocked };
		const failures: string[] = [];
		const least = 1 + actions.findLastIndex((action) => action.kind === "attach" && urgent.has(action.ifindex));
		let isDone = true;
		for (const [i, action] of actions.entries()) {
			await setImmediate();
			if (this.#isStopped) return true;
			// At least one: reading alone may take that long.
			if (i > 0 && i >= least && (this.#wanted || this.#nextLook) && performance.now() - started > TURN_MS) {
				isDone = false;
				break;
			}
			if (action.kind === "attach" && this.#own.has(hookKey(action)))
				this.#repaired(`the program at the ${action.direction} of interface ${action.ifindex}`);
			const error = this.#apply(action);
			// The device has gone since the list was read: the next round follows.
			if (error instanceof BpfError && error.code === "ENODEV") continue;
			if (error) failures.push(error.message);
			onAction(action, error);
		}
		this.#state = { ...this.#state, failures };
		return isDone;
	}

	/** O(slots + flows + neighbours), in slices. */
	async #caches({ strict, flows }: Required<LookOptions>): Promise<void> {
		const forwarding = this.#slots(strict);
		const foundation = foundationOf(forwarding);
		if (!flows && foundation === this.#foundation) return;
		this.#foundation = foundation;
		this.#isScanning = true;
		try {
			const isOver = () => this.#isStopped;
			this.#evicted(await compareFlows(this.#options.datapath, forwarding, { strict, evict: true, isOver }));
		} finally {
			this.#isScanning = false;
			clearTimeout(this.#between);
			this.#between = undefined;
		}
	}

	/** Hosts and pods, at once. */
	#slots(strict: boolean): Forwarding {
		const { datapath, readSwitch } = this.#options;
		const forwarding = new Forwarding(this.#rtnetlink, this.#rtnetlink.links(), readSwitch()?.remotes);
		this.#evicted(compareSlots(datapath, forwarding, { strict, evict: true }));
		return forwarding;
	}

	/** What is told while flows are gone through: hosts and pods do not wait for the end of it. */
	#slotsBetween(): void {
		this.#between ??= setTimeout(() => {
			this.#between = undefined;
			if (!this.#isScanning || this.#isStopped) return;
			try {
				this.#slots(this.#wanted?.strict ?? false);
			} catch {
				// The round that follows says so, if it is still so.
			}
		}, COALESCE_MS);
	}

	#evicted({ total, differences }: Comparison): void {
		if (total === 0) return;
		this.#state = { ...this.#state, evicted: this.#state.evicted + total };
		this.#options.onEvicted(differences, total);
	}

	#withoutLeaving(desired: Desired): Desired {
		const there = new Set(desired.veths.map(({ link }) => link.ifindex));
		for (const known of [this.#leaving, this.#complete])
			for (const ifindex of known) if (!there.has(ifindex)) known.delete(ifindex);
		const why = "The container runtime is removing its pod";
		return {
			...desired,
			veths: desired.veths.map((each) =>
				this.#leaving.has(each.link.ifindex) ? { ...each, why: each.why ?? why, excluded: true } : each,
			),
		};
	}

	#settled(desired: Desired): Desired {
		if (this.#options.kind === "tcx") return desired;
		const now = performance.now();
		const isFirst = this.#state.snapshot === undefined;
		this.#seenAt = new Map(
			desired.veths.map(({ link: { ifindex } }) => [
				ifindex,
				this.#seenAt.get(ifindex) ?? (isFirst ? -SETTLE_MS : now),
			]),
		);
		const isNew = (ifindex: number): boolean =>
			!this.#complete.has(ifindex) && now - (this.#seenAt.get(ifindex) ?? now) < SETTLE_MS;
		if (desired.veths.some(({ link }) => isNew(link.ifindex)))
			this.#settle ??= setTimeout(() => {
				this.#settle = undefined;
				this.trigger("devices");
			}, SETTLE_MS);
		const why = `Made less than ${SETTLE_MS / 1000} s ago: CNI plugins may still be at work on it`;
		return {
			...desired,
			veths: desired.veths.map((each) => (each.why === null && isNew(each.link.ifindex) ? { ...each, why } : each)),
		};
	}

	#attachments({ links }: Snapshot): Attached[] {
		this.#attached ??= this.#options.datapath.attachments();
		const known = new Set(links.map(({ ifindex }) => ifindex));
		return this.#attached.map((each) => ({ ...each, gone: each.gone || !known.has(each.ifindex) }));
	}

	#repaired(what: string): void {
		this.#state = { ...this.#state, repaired: this.#state.repaired + 1 };
		this.#options.onRepaired(what);
	}

	/** One device that fails does not stop the others. */
	#apply(action: Action): Error | undefined {
		const { datapath, kind } = this.#options;
		try {
			switch (action.kind) {
				case "attach":
					datapath.attach(action.ifindex, action.direction, action.program, kind);
					this.#own.add(hookKey(action));
					this.#attached = [
						...(this.#attached ?? []).filter((each) => hookKey(each) !== hookKey(action)),
						{ ...action, kind, gone: false },
					];
					break;
				case "detach":
					datapath.detach(action.ifindex, action.direction);
					this.#own.delete(hookKey(action));
					this.#attached = this.#attached?.filter((each) => hookKey(each) !== hookKey(action));
					break;
				case "setTunnels":
					datapath.setTunnels(action.tunnels);
					break;
				case "setVeths":
					// One of them may have been released since it was planned.
					datapath.setVeths(action.veths.filter(({ ifindex }) => !this.#leaving.has(ifindex)));
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

/** The state of everything but pods' devices that decides, besides routes and neighbours, where flows lead to. */
function foundationOf({ links, addresses }: Forwarding): string {
	const own = [...links.values()].filter(({ linkNetnsid }) => linkNetnsid === undefined);
	const isOwn = new Set(own.map(({ ifindex }) => ifindex));
	return JSON.stringify([
		own.map(({ ifindex, name, up, mac, master }) => [ifindex, name, up, mac, master]),
		addresses.filter(({ ifindex }) => isOwn.has(ifindex)).map(({ ifindex, ip }) => [ifindex, formatIp(ip)]),
	]);
}

function hookKey({ ifindex, direction }: { ifindex: number; direction: string }): string {
	return `${ifindex}-${direction}`;
}
