// What a thread of thread.ts begins with: setns(2) is the calling thread's own, and so are the sockets that it opens then.
import { closeSync, openSync } from "node:fs";
import { workerData } from "node:worker_threads";
import koffi from "koffi";
import type { ThreadData } from "./thread.js";

const CLONE_NEWNET = 0x4000_0000;
const setns = koffi.load(null).func("int setns(int fd, int type)");

const { netns, script } = workerData as ThreadData;
const fd = openSync(netns, "r");
if (setns(fd, CLONE_NEWNET) < 0) throw new Error(`Cannot enter "${netns}": errno ${koffi.errno()}`);
closeSync(fd);
await import(script);
