// The part of the double that runs commands in pods: exec over a WebSocket, as the API server speaks it
// (v4.channel.k8s.io: one byte for the stream, then its data; stream 3 is a Status object at the end).
import { type WebSocket, WebSocketServer } from "ws";
import type { ApiServer } from "./api-server.js";

export interface Exec {
	namespace: string;
	pod: string;
	container: string | null;
	command: string[];
}

/** What a command does: its answer; or "silent", "dropped", "forbidden", and what it has said on stderr. */
export type Run = (exec: Exec) => { stdout: string } | { stderr: string } | "silent" | "dropped" | "forbidden";

const PATH = /^\/api\/v1\/namespaces\/([^/]+)\/pods\/([^/]+)\/exec$/;
const PROTOCOL = "v4.channel.k8s.io";
const [STDOUT, STDERR, STATUS] = [1, 2, 3];

export function serveExec(api: ApiServer, run: Run): void {
	const sockets = new WebSocketServer({ noServer: true, handleProtocols: () => PROTOCOL });
	api.onUpgrade = (request, socket, head) => {
		const url = new URL(request.url ?? "/", "http://api");
		const [, namespace = "", pod = ""] = PATH.exec(url.pathname) ?? [];
		const { searchParams: query } = url;
		const does = run({ namespace, pod, container: query.get("container"), command: query.getAll("command") });
		if (does === "forbidden") {
			socket.end("HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n");
			return;
		}
		sockets.handleUpgrade(request, socket, head, (connection) => answer(connection, does));
	};
}

function answer(connection: WebSocket, does: Exclude<ReturnType<Run>, "forbidden">): void {
	const send = (stream: number, text: string): void =>
		connection.send(Buffer.concat([Buffer.of(stream), Buffer.from(text)]));
	if (does === "silent") return;
	if (does === "dropped") {
		send(STDOUT, '{"state":');
		connection.terminate();
		return;
	}
	if ("stderr" in does) {
		send(STDERR, does.stderr);
		send(
			STATUS,
			JSON.stringify({ status: "Failure", message: "command terminated with non-zero exit code", code: 500 }),
		);
		return;
	}
	// In pieces, as a pipe is read.
	for (let at = 0; at < does.stdout.length; at += 1000) send(STDOUT, does.stdout.slice(at, at + 1000));
	send(STATUS, JSON.stringify({ status: "Success" }));
}
