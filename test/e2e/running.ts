// What tests have started beside themselves. A test that fails does not come to end it, and it would keep its file's process alive.
import type { ChildProcess } from "node:child_process";
import { once } from "node:events";
import { Worker } from "node:worker_threads";

const running = new Set<ChildProcess | Worker>();

/** Until it exits. */
export function noteStarted<Started extends ChildProcess | Worker>(started: Started): Started {
	running.add(started);
	const gone = (): boolean => running.delete(started);
	if (started instanceof Worker) started.once("exit", gone);
	else started.once("close", gone).once("error", gone);
	return started;
}

export async function endRunning(): Promise<void> {
	await Promise.all([...running].map((each) => (each instanceof Worker ? each.terminate() : kill(each))));
}

async function kill(child: ChildProcess): Promise<void> {
	const closed = once(child, "close");
	child.kill("SIGKILL");
	await closed;
}
