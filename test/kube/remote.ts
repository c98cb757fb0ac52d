// The double of the API server in a network namespace, from outside.
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { fileURLToPath } from "node:url";
import { inNetns } from "../../src/lab/command.js";
import type { ApiObject, Faults } from "./api-server.js";
import type { Call } from "./serve.js";

const SERVE = fileURLToPath(new URL("./serve.js", import.meta.url));

type Resource = "pods" | "namespaces" | "nodes" | "networkpolicies";

export class RemoteApiServer {
	readonly #child: ChildProcess;
	#calls = 0;

	private constructor(child: ChildProcess) {
		this.#child = child;
	}

	static async start(netns: string, port: number): Promise<RemoteApiServer> {
		const [file = "", ...args] = inNetns(netns, [process.execPath, SERVE, String(port)]);
		const child = spawn(file, args, { stdio: ["ignore", "inherit", "inherit", "ipc"] });
		await once(child, "message");
		return new RemoteApiServer(child);
	}

	put(resource: Resource, object: ApiObject): Promise<void> {
		return this.#call("put", resource, object);
	}

	remove(resource: Resource, name: string, namespace?: string): Promise<void> {
		return this.#call("remove", resource, name, namespace);
	}

	set(faults: Partial<Faults>): Promise<void> {
		return this.#call("set", faults);
	}

	async stop(): Promise<void> {
		if (this.#child.exitCode !== null || this.#child.signalCode !== null) return;
		const exited = once(this.#child, "exit");
		this.#child.kill("SIGKILL");
		await exited;
	}

	async #call(method: Call["method"], ...args: unknown[]): Promise<void> {
		const id = ++this.#calls;
		const answered = new Promise<void>((resolve) => {
			const onMessage = (message: { id: number }): void => {
				if (message.id !== id) return;
				this.#child.off("message", onMessage);
				resolve();
			};
			this.#child.on("message", onMessage);
		});
		this.#child.send({ id, method, args } satisfies Call);
		await answered;
	}
}
