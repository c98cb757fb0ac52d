// Waits until a DaemonSet's pods are ready on every node that they belong to: what has to be done everywhere is done.
import { setTimeout } from "node:timers/promises";
import { ApiException, AppsV1Api, CoreV1Api, type KubeConfig, type V1DaemonSet } from "@kubernetes/client-node";
import type { Access } from "./access.js";
import { connect } from "./connection.js";

export interface DaemonSetOptions {
	namespace: string;
	name: string;
	timeoutMs: number;
	/** Of how many nodes how many are ready; at each change. */
	onProgress: (ready: number, nodes: number) => void;
	signal: AbortSignal;
}

/** Not all are ready in time; the message names the nodes. */
export class NotReadyError extends Error {
	override name = "NotReadyError";
	readonly exitCode = 1;
}

const POLL_MS = 1000;
/** Asking again would not help. */
const FINAL = [400, 401, 403, 404];

/** @returns on how many nodes. What fails on the way is tried again. @throws {NotReadyError} */
export async function awaitDaemonSet(access: Access, options: DaemonSetOptions): Promise<number> {
	const { namespace, name, timeoutMs, onProgress, signal } = options;
	const deadline = performance.now() + timeoutMs;
	let told = "";
	let problem = "nothing was heard of it";
	for (;;) {
		try {
			const daemonSet = await connect(access).makeApiClient(AppsV1Api).readNamespacedDaemonSet({ namespace, name });
			const { ready, nodes, isObserved } = progressOf(daemonSet);
			if (isObserved && told !== `${ready}/${nodes}`) onProgress(ready, nodes);
			if (isObserved) told = `${ready}/${nodes}`;
			if (isObserved && ready === nodes) return nodes;
			problem = `it is ready on ${ready} of ${nodes} nodes`;
		} catch (error) {
			problem = error instanceof ApiException ? messageOf(error) : (error as Error).message;
			if (error instanceof ApiException && FINAL.includes(error.code))
				throw new NotReadyError(`Cannot ask for DaemonSet "${name}" of namespace "${namespace}": ${problem}`);
		}
		if (performance.now() > deadline) {
			const missing = await missingNodes(connect(access), options).catch(() => []);
			const where = missing.length > 0 ? `; not on ${missing.join(", ")}` : "";
			throw new NotReadyError(
				`DaemonSet "${name}" of namespace "${namespace}" has not become ready within ${timeoutMs / 1000} s: ${problem}${where}`,
			);
		}
		await setTimeout(POLL_MS, undefined, { signal });
	}
}

function progressOf({ metadata, status }: V1DaemonSet): { ready: number; nodes: number; isObserved: boolean } {
	return {
		ready: status?.numberReady ?? 0,
		nodes: status?.desiredNumberScheduled ?? 0,
		// Before that the numbers are of nothing.
		isObserved: (status?.observedGeneration ?? 0) >= (metadata?.generation ?? 1),
	};
}

/** Where a pod is, but not ready. */
async function missingNodes(connection: KubeConfig, { namespace, name }: DaemonSetOptions): Promise<string[]> {
	const { items } = await connection.makeApiClient(CoreV1Api).listNamespacedPod({ namespace });
	return items
		.filter(({ metadata }) => metadata?.ownerReferences?.some((owner) => owner.name === name))
		.filter(({ status }) => !status?.conditions?.some(({ type, status }) => type === "Ready" && status === "True"))
		.map(({ spec }) => spec?.nodeName ?? "a node that has no room for it");
}

/** The client puts the whole answer into its message. */
function messageOf(error: ApiException<unknown>): string {
	try {
		return (JSON.parse(String(error.body)) as { message: string }).message;
	} catch {
		return `the API server answered ${error.code}`;
	}
}
