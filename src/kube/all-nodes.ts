// The whole cluster from the operator's machine: each agent is asked by "oncache status --json" in its own pod, as kubectl exec
// does it. No agent needs a port for that, and it takes the operator's rights, not the agent's.
import { existsSync } from "node:fs";
import { homedir } from "node:os";
import { join } from "node:path";
import { Writable } from "node:stream";
import { CoreV1Api, Exec, KubeConfig, type V1Pod, type V1Status } from "@kubernetes/client-node";
import type { Status } from "../agent/api.js";
import { AccessError, problemOfKubeconfig } from "./access.js";

export interface NodeReport {
	node: string;
	/** "namespace/name" of the agent's pod; null: there is none. */
	pod: string | null;
	/** null: it could not be asked. */
	status: Status | null;
	/** Why not, one sentence; null when it could. */
	problem: string | null;
}

export interface AllNodesOptions {
	/** Else $KUBECONFIG, or that of the home directory. */
	kubeconfig?: string | undefined;
	/** Of the kubeconfig; else its current one. */
	context?: string | undefined;
	/** Of the agents' pods; else all are looked through. */
	namespace?: string | undefined;
	selector?: string | undefined;
	/** For one node. */
	timeoutMs?: number;
	signal: AbortSignal;
	onProgress?: (done: number, all: number) => void;
}

/** As the chart labels and names them. */
const SELECTOR = "app.kubernetes.io/name=oncache,app.kubernetes.io/component=agent";
const CONTAINER = "agent";
const COMMAND = ["oncache", "status", "--json"];
const TIMEOUT_MS = 15_000;
/** Asked at the same time. */
const AT_ONCE = 16;
const LONGEST_ANSWER_BYTES = 16 << 20;

/** One line per node, by name; a node that cannot be asked does not hide the others. @throws when the API server cannot be asked */
export async function statusOfAllNodes(options: AllNodesOptions): Promise<NodeReport[]> {
	const config = load(options);
	const core = config.makeApiClient(CoreV1Api);
	const { namespace, selector: labelSelector = SELECTOR } = options;
	const pods = await asked("list the agents' pods", async () =>
		namespace === undefined
			? core.listPodForAllNamespaces({ labelSelector })
			: core.listNamespacedPod({ namespace, labelSelector }),
	);
	// Whoever may not list nodes still sees those that have an agent.
	const nodes = await core.listNode().then(
		({ items }) => items.map(({ metadata }) => metadata?.name ?? ""),
		() => [],
	);
	const agents = new Map(pods.items.map((pod) => [pod.spec?.nodeName ?? "", pod]));
	const names = [...new Set([...nodes, ...agents.keys()])].filter((name) => name !== "").sort();
	if (names.length === 0) throw new Error(`Cannot find an agent: no pod has the labels ${labelSelector}`);
	const reports: NodeReport[] = [];
	const waiting = [...names];
	let done = 0;
	const work = async (): Promise<void> => {
		for (let name = waiting.shift(); name !== undefined; name = waiting.shift()) {
			options.signal.throwIfAborted();
			reports.push(await reportOf(name, agents.get(name), config, options));
			options.onProgress?.(++done, names.length);
		}
	};
	await Promise.all(Array.from({ length: AT_ONCE }, work));
	return reports.sort((a, b) => (a.node < b.node ? -1 : 1));
}

function load({ kubeconfig, context }: AllNodesOptions): KubeConfig {
	const config = new KubeConfig();
	if (kubeconfig !== undefined) {
		const problem = problemOfKubeconfig(kubeconfig);
		if (problem !== undefined) throw new AccessError(problem);
		config.loadFromFile(kubeconfig);
	} else {
		const { KUBECONFIG, KUBERNETES_SERVICE_HOST } = process.env;
		if (!KUBECONFIG && !KUBERNETES_SERVICE_HOST && !existsSync(join(homedir(), ".kube", "config")))
			throw new AccessError("Cannot find the cluster: name a kubeconfig file with --kubeconfig, or set KUBECONFIG");
		try {
			config.loadFromDefault();
		} catch (error) {
			throw new AccessError(`Cannot use the kubeconfig: ${(error as Error).message.split("\n", 1)[0]}`);
		}
	}
	if (context !== undefined) {
		const known = config.getContexts().map(({ name }) => name);
		if (!known.includes(context))
			throw new AccessError(`Cannot use context "${context}": the kubeconfig has ${known.join(", ") || "none"}`);
		config.setCurrentContext(context);
	}
	return config;
}

async function asked<T>(what: string, ask: () => Promise<T>): Promise<T> {
	try {
		return await ask();
	} catch (error) {
		const { code, body, message } = error as { code?: number; body?: unknown; message: string };
		throw new Error(`Cannot ${what}: ${typeof code === "number" ? `${code} ${statusMessage(body)}`.trim() : message}`);
	}
}

function statusMessage(body: unknown): string {
	try {
		const { message } = (typeof body === "string" ? JSON.parse(body) : body) as { message?: string };
		return message ?? "";
	} catch {
		return "";
	}
}

async function reportOf(
	node: string,
	pod: V1Pod | undefined,
	config: KubeConfig,
	{ timeoutMs = TIMEOUT_MS, signal }: AllNodesOptions,
): Promise<NodeReport> {
	const { namespace = "", name = "" } = pod?.metadata ?? {};
	if (!pod) return { node, pod: null, status: null, problem: "No agent runs there" };
	const report = { node, pod: `${namespace}/${name}` };
	const phase = pod.status?.phase;
	if (phase !== "Running") return { ...report, status: null, problem: `Its pod is ${phase ?? "in no known phase"}` };
	const timeout = AbortSignal.timeout(timeoutMs);
	try {
		const said = await execute(config, namespace, name, AbortSignal.any([signal, timeout]));
		return { ...report, status: JSON.parse(said) as Status, problem: null };
	} catch (error) {
		signal.throwIfAborted();
		const why = timeout.aborted
			? `no answer within ${timeoutMs / 1000} s`
			: error instanceof SyntaxError
				? "its answer is no JSON"
				: ((error as Error).message ?? String(error));
		const right = /: 403$/.test(why) ? ": it takes the right to get and create pods/exec" : "";
		return { ...report, status: null, problem: `Cannot ask it: ${why}${right}` };
	}
}

/** @returns what the command has written */
function execute(config: KubeConfig, namespace: string, pod: string, signal: AbortSignal): Promise<string> {
	const out = new Text();
	const errors = new Text();
	return new Promise((resolve, reject) => {
		const fail = (error: Error): void => reject(error);
		signal.addEventListener("abort", () => fail(signal.reason as Error), { once: true });
		const onStatus = ({ status, message }: V1Status): void => {
			if (status === "Success") resolve(out.text());
			else fail(new Error(errors.text().trim().split("\n").at(-1) || message || "the command failed"));
		};
		new Exec(config).exec(namespace, pod, CONTAINER, COMMAND, out, errors, null, false, onStatus).then(
			(socket) => {
				signal.addEventListener("abort", () => socket.close(), { once: true });
				// Without a status: the connection was lost.
				socket.onclose = () => fail(new Error("the connection was lost"));
				if (signal.aborted) socket.close();
			},
			({ message }: { message?: string }) => fail(new Error(message ?? "no connection")),
		);
	});
}

class Text extends Writable {
	readonly #chunks: Buffer[] = [];
	#length = 0;

	override _write(chunk: Buffer, _: unknown, done: (error?: Error) => void): void {
		this.#length += chunk.length;
		if (this.#length > LONGEST_ANSWER_BYTES) {
			done(new Error(`The answer is longer than ${LONGEST_ANSWER_BYTES} bytes`));
			return;
		}
		this.#chunks.push(chunk);
		done();
	}

	text(): string {
		return Buffer.concat(this.#chunks).toString("utf8");
	}
}
