// The thread that talks to the API server: parsing what ten thousand pods say keeps the agent from nothing, and its memory has
// a limit of its own.
import { parentPort, workerData } from "node:worker_threads";
import type { Assignment } from "./messages.js";
import { watchCluster } from "./watcher.js";

watchCluster(workerData as Assignment, {
	signal: new AbortController().signal, // the thread is ended from outside
	tell: (message) => parentPort?.postMessage(message),
});
