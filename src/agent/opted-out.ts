// Which veths are those of pods that are opted out. The API server knows their addresses only; the CNI plugin, where it was
// asked, or else routes, neighbours and forwarding entries know the veths. Behind a switch nobody does: then the programs
// stay on the veth, and learn nothing.
import type { Forwarding } from "../kernel/forwarding.js";
import { parseIp } from "../net/ip.js";
import type { PodName } from "./api.js";

export class OptedOutVeths {
	/** ifindex of what was found. A veth stays its pod's as long as both are there; what the kernel knows of it comes and goes. */
	#found = new Map<number, string>();

	/** O(addresses). @param forwarding asked only when there are some @param announced ifindex, as the CNI plugin said */
	find(
		wanted: ReadonlyMap<string, PodName>,
		forwarding: () => Pick<Forwarding, "links" | "hops" | "portOf">,
		announced: (ip: string) => number | undefined,
	): ReadonlyMap<number, PodName> {
		if (wanted.size === 0) {
			this.#found.clear();
			return new Map();
		}
		const kernel = forwarding();
		for (const [ifindex, ip] of this.#found)
			if (!wanted.has(ip) || !kernel.links.has(ifindex)) this.#found.delete(ifindex);
		const texts = [...wanted.keys()];
		for (const [i, [, hop]] of kernel.hops(texts.map(parseIp)).entries()) {
			const text = texts[i] as string;
			const known = announced(text);
			if (known !== undefined) this.#found.set(known, text);
			if (known !== undefined || !hop) continue;
			const isBridge = kernel.links.get(hop.device)?.bridge !== undefined;
			const mac = hop.mac === "failed" ? undefined : hop.mac;
			const veth = isBridge ? mac && kernel.portOf(hop.device, mac) : hop.device;
			if (veth !== undefined) this.#found.set(veth, text);
		}
		return new Map([...this.#found].map(([ifindex, ip]) => [ifindex, wanted.get(ip) as PodName]));
	}
}
