// What container runtimes say of pods, through the CNI plugin: attached before a pod's first packet, evicted before its address
// goes to another. All of it the agent would find by itself, later: so nothing here needs to survive it.
import { closeSync, constants, openSync } from "node:fs";
import { isDeepStrictEqual } from "node:util";
import type { Logger } from "pino";
import type { Datapath } from "../datapath/datapath.js";
import type { Link } from "../kernel/link.js";
import type { Rtnetlink } from "../kernel/rtnetlink.js";
import { POD_DEVICES } from "../kernel/topology.js";
import { formatIp, parseIp } from "../net/ip.js";
import type { CniAnswer, CniGcRequest, CniRequest, CniStatus, PodName } from "./api.js";
import { flush } from "./flush.js";
import type { Reconciler } from "./reconciler.js";

/** A pod's interface, as it was announced. */
interface Attachment {
	network: string;
	containerId: string;
	ifname: string;
	/** ifindex of its device on the host. */
	veth: number | undefined;
	addresses: readonly string[];
	pod: PodName | null;
}

type Counts = Omit<CniStatus, "attachments" | "missed" | "lastMissed">;

export interface AttachmentsOptions {
	datapath: Datapath;
	reconciler: Reconciler;
	rtnetlink: Rtnetlink;
	log: Logger;
}

/** IFNAMSIZ without the end. */
const NAME_MAX_BYTES = 15;
const NO_DEVICE = "No device of the pod was found on the host: it is no veth, or is not there";

export class Attachments {
	readonly #options: AttachmentsOptions;
	readonly #known = new Map<string, Attachment>();
	readonly #podsByAddress = new Map<string, PodName>();
	readonly counts: Counts = { adds: 0, dels: 0, checks: 0, gcs: 0, notAttached: 0, failed: 0 };

	constructor(options: AttachmentsOptions) {
		this.#options = options;
	}

	get size(): number {
		return this.#known.size;
	}

	/** As Kubernetes called it when it was announced. */
	podAt(ip: string): PodName | null {
		return this.#podsByAddress.get(ip) ?? null;
	}

	/** ifindex of the device that leads to an address. O(pods). */
	vethOf(ip: string): number | undefined {
		for (const { addresses, veth } of this.#known.values()) if (addresses.includes(ip)) return veth;
		return undefined;
	}

	/** Resolves when the pod's device is attached, or it is known why it is not. */
	async add(request: CniRequest): Promise<CniAnswer> {
		return this.#counted("adds", async () => {
			// What an earlier pod with this address has left, if nobody has withdrawn that one.
			for (const address of request.addresses) this.#options.datapath.flushPod(parseIp(address));
			return this.#attach(request);
		});
	}

	/** Likewise: what is not as it should be is repaired. */
	async check(request: CniRequest): Promise<CniAnswer> {
		return this.#counted("checks", () => this.#attach(request));
	}

	/** Resolves when nothing is cached that leads to the pod or comes from it, and nothing more will be. Safe to repeat. */
	async del(request: CniRequest): Promise<CniAnswer> {
		return this.#counted("dels", async () => {
			const known = this.#known.get(keyOf(request));
			const link = known ? undefined : this.#findByNamespace(request);
			const evicted = await this.#remove({
				...request,
				veth: known?.veth ?? link?.ifindex,
				addresses: [...(known?.addresses ?? []), ...request.addresses],
			});
			this.#options.log.info({ ...nameOf(request), evicted }, "pod withdrawn");
			return { veth: link?.name ?? null, attached: false, why: null };
		});
	}

	/** @returns attachments of the network that are gone */
	async gc({ network, valid }: CniGcRequest): Promise<{ removed: number }> {
		return this.#counted("gcs", async () => {
			const kept = new Set(valid.map((each) => keyOf({ network, ...each })));
			const stale = [...this.#known].filter(([key, each]) => each.network === network && !kept.has(key));
			for (const [, each] of stale) {
				await this.#remove(each);
				this.#options.log.info(nameOf(each), "pod withdrawn: its runtime does not know it any more");
			}
			return { removed: stale.length };
		});
	}

	async #attach(request: CniRequest): Promise<CniAnswer> {
		const { reconciler, log } = this.#options;
		const link = this.#findByName(request) ?? this.#findByNamespace(request);
		const { pod } = request;
		const addresses = request.addresses.map((address) => formatIp(parseIp(address)));
		this.#known.set(keyOf(request), { ...idOf(request), veth: link?.ifindex, addresses, pod });
		if (pod) for (const address of addresses) this.#podsByAddress.set(address, pod);
		const why = link ? await reconciler.attachNow(link.ifindex, request.last) : NO_DEVICE;
		if (why !== null) this.counts.notAttached++;
		log.info({ ...nameOf(request), veth: link?.name, addresses, ...(why !== null && { why }) }, "pod announced");
		return { veth: link?.name ?? null, attached: why === null, why };
	}

	/** @returns entries evicted */
	async #remove(attachment: Attachment): Promise<number> {
		const { datapath, reconciler } = this.#options;
		this.#known.delete(keyOf(attachment));
		const addresses = new Set(attachment.addresses);
		// Another pod may have one of them already.
		const isOwn = (pod: PodName | undefined): boolean => isDeepStrictEqual(pod, attachment.pod);
		for (const address of addresses) if (isOwn(this.#podsByAddress.get(address))) this.#podsByAddress.delete(address);
		const { veth } = attachment;
		// A DEL may come late: the device that had the name then, or the number, may be another pod's now.
		if (veth !== undefined && ![...this.#known.values()].some((other) => other.veth === veth)) {
			for (const pod of datapath.pods()) if (pod.veth === veth) addresses.add(formatIp(pod.ip));
			reconciler.release(veth);
		}
		let evicted = 0;
		for (const pod of addresses) {
			const { pods, flows } = await flush(datapath, { pod });
			evicted += pods + flows;
		}
		return evicted;
	}

	#findByName({ hostDevices }: CniRequest): Link | undefined {
		const { rtnetlink } = this.#options;
		return hostDevices
			.filter((name) => Buffer.byteLength(name) <= NAME_MAX_BYTES)
			.map((name) => rtnetlink.link(name))
			.find((link) => link && POD_DEVICES.includes(link.kind ?? "") && link.linkNetnsid !== undefined);
	}

	/** Where the plugins have not said (CNI before 0.3.0): the peer of the interface in the container. */
	#findByNamespace({ netns, ifname }: CniRequest): Link | undefined {
		const { rtnetlink } = this.#options;
		if (netns === null) return undefined;
		let fd: number;
		try {
			fd = openSync(netns, constants.O_RDONLY | constants.O_NONBLOCK);
		} catch {
			return undefined; // gone, or in a mount namespace that the agent does not see
		}
		try {
			// A number is given to a namespace when its devices are listed.
			const links = rtnetlink.links();
			const nsid = rtnetlink.nsidOf(fd);
			const inside = nsid === undefined ? undefined : rtnetlink.link(ifname, nsid);
			return links.find(
				({ ifindex, kind, linkNetnsid }) =>
					ifindex === inside?.link && linkNetnsid === nsid && POD_DEVICES.includes(kind ?? ""),
			);
		} finally {
			closeSync(fd);
		}
	}

	async #counted<T>(what: keyof Counts, work: () => Promise<T>): Promise<T> {
		this.counts[what]++;
		try {
			return await work();
		} catch (error) {
			this.counts.failed++;
			this.#options.log.error({ what, error: String(error) }, "a call of the CNI plugin failed");
			throw error;
		}
	}
}

type Named = Pick<Attachment, "network" | "containerId" | "ifname">;

const idOf = ({ network, containerId, ifname }: Named): Named => ({ network, containerId, ifname });
/** None of the three has a "/" in it. */
const keyOf = ({ network, containerId, ifname }: Named): string => `${network}/${containerId}/${ifname}`;

function nameOf(named: Named & { pod?: CniRequest["pod"] }): object {
	return { ...idOf(named), ...(named.pod && { pod: `${named.pod.namespace}/${named.pod.name}` }) };
}
