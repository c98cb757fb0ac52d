// Who asks the API server, and where it is, found without loading the client: a pod's service account or a kubeconfig file.
import { existsSync, readFileSync } from "node:fs";
import { parse } from "yaml";
import { z } from "zod";

/** Plain, so that it can be handed to a thread. What it names is read anew for every attempt to connect. */
export type Access = { kind: "cluster" } | { kind: "file"; path: string };

/** What was asked for explicitly cannot be used. */
export class AccessError extends Error {
	override name = "AccessError";
	readonly exitCode = 2;
}

const SERVICE_ACCOUNT_TOKEN = "/var/run/secrets/kubernetes.io/serviceaccount/token";

const kubeconfig = z.object({
	clusters: z.array(z.object({ name: z.string(), cluster: z.object({ server: z.url() }) })).min(1),
	contexts: z.array(z.object({ name: z.string(), context: z.object({ cluster: z.string() }) })).min(1),
	"current-context": z.string().min(1),
});

/**
 * @param wanted "auto": a service account's where there is one, else $KUBECONFIG's; "off"; or the path of a kubeconfig file
 * @returns undefined: not in a cluster, or off
 * @throws {AccessError} when a file was named that cannot be used
 */
export function findAccess(wanted: string, env: NodeJS.ProcessEnv = process.env): Access | undefined {
	if (wanted === "off") return undefined;
	if (wanted !== "auto") {
		const problem = problemOfKubeconfig(wanted);
		if (problem !== undefined) throw new AccessError(problem);
		return { kind: "file", path: wanted };
	}
	if (env.KUBERNETES_SERVICE_HOST && existsSync(SERVICE_ACCOUNT_TOKEN)) return { kind: "cluster" };
	const [file] = env.KUBECONFIG?.split(":") ?? [];
	if (file) return { kind: "file", path: file };
	// A pod whose service account is not mounted: it will be said in the status.
	return env.KUBERNETES_SERVICE_HOST ? { kind: "cluster" } : undefined;
}

/** Why a kubeconfig file cannot be used, one sentence; undefined: it can. */
export function problemOfKubeconfig(path: string): string | undefined {
	const cannot = `Cannot use kubeconfig "${path}"`;
	try {
		const { success, data, error } = kubeconfig.safeParse(parse(readFileSync(path, "utf8")));
		if (!success) {
			const [issue] = error.issues;
			return `${cannot}: ${issue?.path.length ? `"${issue.path.join(".")}": ` : ""}${issue?.message}`;
		}
		const name = data["current-context"];
		const context = data.contexts.find((each) => each.name === name);
		if (!context) return `${cannot}: its current-context "${name}" is not among its contexts`;
		const { cluster } = context.context;
		if (!data.clusters.some((each) => each.name === cluster))
			return `${cannot}: the cluster "${cluster}" of context "${name}" is not among its clusters`;
		return undefined;
	} catch (error) {
		const { code, message } = error as NodeJS.ErrnoException;
		return `${cannot}: ${code === "ENOENT" ? "there is no such file" : message.split("\n", 1)[0]}`;
	}
}
