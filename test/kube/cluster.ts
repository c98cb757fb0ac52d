// What the tests of this folder share: a watcher on a double, with times short enough for a test.
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout } from "node:timers/promises";
import type { Health, Message } from "../../src/kube/messages.js";
import type { Timing } from "../../src/kube/reflector.js";
import type { PodScope } from "../../src/kube/sources.js";
import { View } from "../../src/kube/view.js";
import { watchCluster } from "../../src/kube/watcher.js";
import { patiently } from "../../src/lab/patience.js";
import { ApiServer } from "./api-server.js";
import { writeKubeconfig } from "./objects.js";

export const QUICK: Timing = {
	pageSize: 500,
	listIdleMs: patiently(400),
	watchIdleMs: patiently(800),
	watchSeconds: 300,
	relistMs: 3_600_000,
	backoff: { firstMs: 10, longestMs: 100 },
};

export interface Watched {
	api: ApiServer;
	view: View;
	/** Of each source. */
	health: Map<string, Health>;
	messages: Message[];
	/** What the view made of it, one line each, since it was last emptied. */
	consequences: string[];
	kubeconfig: string;
	server: string;
}

export interface WatchOptions {
	scope?: PodScope;
	timing?: Partial<Timing>;
	/** Before anybody asks. */
	prepare?: (api: ApiServer) => void;
	user?: { token?: string };
	tls?: { key: string; cert: string };
}

/** A double, and an agent's reading side of it, for the time of `use`. */
export async function inCluster(options: WatchOptions, use: (watched: Watched) => Promise<void>): Promise<void> {
	const dir = mkdtempSync(join(tmpdir(), "oncache-kube-"));
	const api = new ApiServer(options.tls);
	const ending = new AbortController();
	try {
		options.prepare?.(api);
		const server = `${options.tls ? "https" : "http"}://127.0.0.1:${await api.listen()}`;
		const kubeconfig = join(dir, "kubeconfig");
		writeKubeconfig(kubeconfig, server, options.user, options.tls?.cert);
		const consequences: string[] = [];
		const view = new View("n1", {
			onPolicies: (why) => consequences.push(why),
			onGone: (ips) => consequences.push(`gone ${ips.join(" ")}`),
			onRelabelled: (ips) => consequences.push(`relabelled ${ips.join(" ")}`),
			onNodesGone: (ips) => consequences.push(`nodes gone ${ips.join(" ")}`),
			onOptedOut: (ips) => consequences.push(`opted out ${[...ips].sort().join(" ")}`.trim()),
		});
		const health = new Map<string, Health>();
		const messages: Message[] = [];
		watchCluster(
			{ access: { kind: "file", path: kubeconfig }, scope: options.scope ?? "cluster", node: "n1" },
			{
				signal: ending.signal,
				timing: { ...QUICK, ...options.timing },
				tell: (message) => {
					messages.push(message);
					if (message.type === "health") health.set(message.source, message.health);
					else if (message.type === "end") health.delete(message.source);
					if (message.type !== "health" && message.type !== "server") view.apply(message);
				},
			},
		);
		await use({ api, view, health, messages, consequences, kubeconfig, server });
	} finally {
		ending.abort();
		await api.close();
		rmSync(dir, { recursive: true });
	}
}

/** Awaits what the test is about; what is said if it does not come names what there was. */
export async function eventually(what: string, isSo: () => boolean, told?: () => unknown): Promise<void> {
	const deadline = performance.now() + patiently(10_000);
	while (!isSo()) {
		if (performance.now() > deadline)
			throw new Error(`Not in time: ${what}${told ? `; ${JSON.stringify(told())}` : ""}`);
		await setTimeout(5);
	}
}

export async function synced({ health }: Watched, sources = 4): Promise<void> {
	const all = (): Health[] => [...health.values()];
	await eventually(
		"everything is read and watched",
		() => all().length >= sources && all().every(({ synced, watches }) => synced && watches > 0),
		() => [...health],
	);
}
