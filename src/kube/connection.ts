// The official client's configuration, made anew for each attempt: tokens, certificates and kubeconfig files are replaced
// while an agent runs.
import { KubeConfig } from "@kubernetes/client-node";
import { type Access, problemOfKubeconfig } from "./access.js";

/** Until an answer begins. The client's Watch cannot be aborted before that. */
const ANSWER_LIMIT_MS = 30_000;

class Connection extends KubeConfig {
	override async applyToFetchOptions(
		options: Parameters<KubeConfig["applyToFetchOptions"]>[0],
	): ReturnType<KubeConfig["applyToFetchOptions"]> {
		return { ...(await super.applyToFetchOptions(options)), timeout: ANSWER_LIMIT_MS };
	}
}

/** @throws with a sentence for the user */
export function connect(access: Access): KubeConfig {
	const connection = new Connection();
	if (access.kind === "cluster") connection.loadFromCluster();
	else {
		const problem = problemOfKubeconfig(access.path);
		if (problem !== undefined) throw new Error(problem);
		connection.loadFromFile(access.path);
	}
	return connection;
}

export function serverOf(connection: KubeConfig): string {
	const server = connection.getCurrentCluster()?.server;
	if (server === undefined) throw new Error("Cannot connect to the API server: the current context names no cluster");
	return server.replace(/\/$/, "");
}
