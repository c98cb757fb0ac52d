// Connect, request, response, close: ab against nginx, one connection at a time, none kept open.
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { run as runCommand } from "../lab/command.js";
import { BenchError } from "./error.js";
import { Listener } from "./listener.js";
import { commandAt, type Workload } from "./workload.js";

const RESPONSE_BYTES = 100;
/** Without a limit of its own ab stops at 50000. */
const REQUESTS_MAX = 10_000_000;

export const connectRequestResponse: Workload = async ({ client, server, target, cpus, port, seconds, signal }) => {
	const dir = mkdtempSync(join(tmpdir(), "oncache-nginx-"));
	try {
		writeFileSync(join(dir, "nginx.conf"), nginxConfig(dir, server.ip, port));
		const serve = ["nginx", "-p", dir, "-e", "stderr", "-c", join(dir, "nginx.conf")];
		const argv = commandAt(server, cpus.server, seconds, serve);
		const listener = await Listener.start({ argv, ip: server.ip, port, protocol: "tcp", signal });
		try {
			const limits = ["-t", String(seconds), "-n", String(REQUESTS_MAX), "-c", "1"];
			const ask = ["ab", "-q", ...limits, `http://${target}:${port}/`];
			const { stdout } = await runCommand(commandAt(client, cpus.client, seconds, ask), { signal });
			return { value: parseAb(stdout), unit: "requests/s" };
		} finally {
			await listener.stop();
		}
	} finally {
		rmSync(dir, { recursive: true, force: true });
	}
};

/** One process in the foreground that writes nothing outside `dir`. */
export function nginxConfig(dir: string, ip: string, port: number): string {
	const temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
	return `daemon off;
master_process off;
pid ${dir}/pid;
error_log stderr;
events { worker_connections 64; }
http {
	access_log off;
${temporary.map((name) => `	${name}_temp_path ${dir}/${name};`).join("\n")}
	server {
		listen ${ip}:${port};
		location / { return 200 "${"x".repeat(RESPONSE_BYTES)}"; }
	}
}
`;
}

export function parseAb(text: string): number {
	const rate = Number(/^Requests per second:\s+([\d.]+)/m.exec(text)?.[1]);
	const failed = Number(/^Failed requests:\s+(\d+)/m.exec(text)?.[1] ?? 0);
	const refused = Number(/^Non-2xx responses:\s+(\d+)/m.exec(text)?.[1] ?? 0);
	if (failed + refused > 0) throw new BenchError(`Cannot use the result of ab: ${failed + refused} requests failed`);
	if (!(rate > 0))
		throw new BenchError(`Cannot read the result of ab: ${text.trim().split("\n").slice(-3).join("; ")}`);
	return rate;
}
