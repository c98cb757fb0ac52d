// Is what is cached what the kernel would decide now? The comparison of coherency.ts, and connection tracking besides.
import { setTimeout } from "node:timers/promises";
import type { Datapath } from "../datapath/datapath.js";
import { trackedFlows } from "../kernel/conntrack.js";
import { Forwarding } from "../kernel/forwarding.js";
import { Rtnetlink } from "../kernel/rtnetlink.js";
import type { VerifyResult } from "./api.js";
import { compare, type Difference } from "./coherency.js";

const AGAIN_MS = 200;
const [TCP, UDP] = [6, 17];

/** Reads only. What differs twice, shortly one after the other, differs: once may be a change that is under way. */
export async function verify(datapath: Datapath): Promise<VerifyResult> {
	const first = await compareNow(datapath);
	if (first.differences.length === 0) return first;
	await setTimeout(AGAIN_MS);
	const second = await compareNow(datapath);
	const seen = new Set(first.differences.map(keyOf));
	return { ...second, differences: second.differences.filter((difference) => seen.has(keyOf(difference))) };
}

const keyOf = ({ cache, entry, why }: Difference): string => `${cache} ${entry} ${why}`;

async function compareNow(datapath: Datapath): Promise<VerifyResult> {
	const rtnetlink = Rtnetlink.open();
	try {
		const knows = trackedFlows();
		const forwarding = new Forwarding(rtnetlink, rtnetlink.links());
		const { checked, differences } = await compare(datapath, forwarding, {
			limit: Number.POSITIVE_INFINITY,
			isTracked: (chunk, i) => {
				const { proto, localIp, localPort, remoteIp, remotePort } = chunk.tuple(i);
				if ((proto !== TCP && proto !== UDP) || chunk.isBridged(i)) return true;
				const [local, remote] = [
					{ ip: localIp, port: localPort },
					{ ip: remoteIp, port: remotePort },
				];
				return knows(proto, local, remote) || knows(proto, remote, local);
			},
		});
		return { checked, differences };
	} finally {
		rtnetlink.close();
	}
}
