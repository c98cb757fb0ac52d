// Tells the agent, within what is left of the time that a call may take.
import { statSync } from "node:fs";
import { agentRequest } from "../agent/client.js";

/** The whole call, from the start of its process. */
export const LIMIT_MS = 2000;

/** @throws whatever the reason, with words for the log */
export async function tellAgent<Answer>(socket: string, path: string, body: object): Promise<Answer> {
	checkOwner(socket);
	const timeoutMs = Math.floor(LIMIT_MS - performance.now()); // since the process began
	if (timeoutMs <= 0) throw new Error(`The agent was not asked: ${LIMIT_MS} ms were over before`);
	return agentRequest<Answer>(socket, "POST", path, body, { timeoutMs });
}

export async function isAgentReady(socket: string): Promise<boolean> {
	checkOwner(socket);
	const timeoutMs = Math.max(1, Math.floor(LIMIT_MS - performance.now()));
	return (await agentRequest<{ ready: boolean }>(socket, "GET", "/v1/cni/ready", undefined, { timeoutMs })).ready;
}

/** Whoever else could make a socket there must not hear of pods, nor hold them up. A missing one is the client's to report. */
function checkOwner(socket: string): void {
	const found = statSync(socket, { throwIfNoEntry: false });
	if (found && found.uid !== 0 && found.uid !== process.geteuid?.())
		throw new Error(`The socket "${socket}" belongs to user ${found.uid}, not to root: it is not used`);
}
