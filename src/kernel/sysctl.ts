// Kernel settings under /proc/sys; those below "net." are of the network namespace of the calling thread. In a container
// /proc/sys is read-only: there $ONCACHE_SYSCTL_NET names where the host's /proc/sys/net is.
import { readFileSync, writeFileSync } from "node:fs";

/** The value without its line end; undefined when this kernel has no such setting (yet: a module may bring it). */
export function readSysctl(name: string): string | undefined {
	try {
		return readFileSync(path(name), "utf8").trimEnd();
	} catch (error) {
		if ((error as NodeJS.ErrnoException).code === "ENOENT") return undefined;
		throw new Error(`Cannot read sysctl "${name}": ${(error as Error).message}`, { cause: error });
	}
}

export function writeSysctl(name: string, value: string | number): void {
	try {
		// Without O_CREAT and O_TRUNC: /proc/sys knows neither.
		writeFileSync(path(name), String(value), { flag: "r+" });
	} catch (error) {
		throw new Error(`Cannot set sysctl "${name}" to "${value}": ${(error as Error).message}`, { cause: error });
	}
}

/** As sysctl(8): dots separate; a name written with slashes may contain dots ("net/ipv4/conf/eth0.5/rp_filter"). */
function path(name: string): string {
	const path = `/proc/sys/${name.includes("/") ? name : name.replaceAll(".", "/")}`;
	const { ONCACHE_SYSCTL_NET: net } = process.env;
	return net ? path.replace(/^\/proc\/sys\/net(?=\/)/, net) : path;
}
