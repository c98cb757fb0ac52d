// A namespace that holds the pod ends of many veths, where a namespace for each would take too long.
import { run } from "../../src/lab/command.js";

export interface Crowd {
	netns: string;
	close(): Promise<void>;
}

/** What a run that was killed left under this name goes first. */
export async function openCrowd(lab: string): Promise<Crowd> {
	const netns = `oc-${lab}-crowd`;
	const close = async () => {
		await run(["ip", "netns", "del", netns], { anyCode: true });
	};
	await close();
	await run(["ip", "netns", "add", netns]);
	return { netns, close };
}
