// The double of the API server as a process of its own, so that it can be in a network namespace; what it holds and does is
// said to it over IPC.
import { ApiServer } from "./api-server.js";

export interface Call {
	id: number;
	method: "put" | "remove" | "set" | "dropConnections" | "compact";
	args: unknown[];
}

const api = new ApiServer();
await api.listen("0.0.0.0", Number(process.argv[2]));
process.on("message", ({ id, method, args }: Call) => {
	(api[method] as (...args: unknown[]) => unknown)(...args);
	process.send?.({ id });
});
process.once("disconnect", () => process.exit());
process.send?.({ id: 0 });
