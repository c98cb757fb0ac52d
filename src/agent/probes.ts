// What anybody may ask: is it alive, is it ready, what does it count. On the socket, and over TCP where that is configured;
// nothing else is served there.
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";

export interface Probes {
	ready(): boolean;
	metrics(): Promise<{ contentType: string; text: string }>;
}

const CONNECTIONS = 64;
const REQUEST_LIMIT_MS = 10_000;
const METHODS = ["GET", "HEAD"];

/** @returns false when the path is none of these */
export async function answerProbe(
	path: string,
	request: IncomingMessage,
	response: ServerResponse,
	probes: Probes,
): Promise<boolean> {
	if (path !== "/livez" && path !== "/readyz" && path !== "/metrics") return false;
	if (!METHODS.includes(request.method ?? "")) {
		response.writeHead(405, { allow: METHODS.join(", ") }).end();
		return true;
	}
	if (path === "/metrics") {
		const { contentType, text } = await probes.metrics();
		response.writeHead(200, { "content-type": contentType }).end(text);
		return true;
	}
	const ok = path === "/livez" || probes.ready();
	response.writeHead(ok ? 200 : 503, { "content-type": "text/plain" }).end(ok ? "ok\n" : "not ready\n");
	return true;
}

/** Until `signal`. @throws when it cannot listen there */
export async function serveProbes(
	{ host, port }: { host: string; port: number },
	{ probes, signal }: { probes: Probes; signal: AbortSignal },
): Promise<void> {
	const server = createServer(
		{ requestTimeout: REQUEST_LIMIT_MS, headersTimeout: REQUEST_LIMIT_MS },
		(request, response) => {
			const { pathname } = new URL(request.url ?? "/", "http://agent");
			answerProbe(pathname, request, response, probes).then(
				(isAnswered) => isAnswered || response.writeHead(404).end(),
				(error: Error) => response.writeHead(500, { "content-type": "text/plain" }).end(`${error.message}\n`),
			);
		},
	);
	server.maxConnections = CONNECTIONS;
	await new Promise<void>((resolve, reject) => {
		server.once("error", (error) =>
			reject(new Error(`Cannot serve metrics at "${host}" port ${port} (metricsAddress): ${error.message}`)),
		);
		server.listen(port, host, resolve);
	});
	signal.addEventListener("abort", () => {
		server.close();
		server.closeAllConnections();
	});
}
