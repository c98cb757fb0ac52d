// Where what the tests of the delivery fetch and build is kept.
import { homedir } from "node:os";
import { join } from "node:path";

export const CACHE = join(process.env.XDG_CACHE_HOME || join(homedir(), ".cache"), "oncache", "deploy");
