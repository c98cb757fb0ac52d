// The node's active network configuration, as the container runtime chooses it: the first file by name.
import { readdirSync, readFileSync } from "node:fs";
import { z } from "zod";

/** The usual one, and those of distributions that bring their own. */
const DIRECTORIES = [
	"/etc/cni/net.d",
	"/var/lib/rancher/k3s/agent/etc/cni/net.d",
	"/var/lib/rancher/rke2/agent/etc/cni/net.d",
];

const plugin = z.object({ type: z.string().max(100) });
const schema = z.union([z.object({ plugins: z.array(plugin).max(100) }), plugin]);

export interface NetworkConfiguration {
	dir: string | undefined;
	/** "type" of each plugin, in order. */
	plugins: string[];
}

/** @param confDir "auto": the first directory that has one. What cannot be read is left out: it only serves to give names */
export function readNetworkConfiguration(confDir: string): NetworkConfiguration {
	for (const dir of confDir === "auto" ? DIRECTORIES : [confDir]) {
		const plugins = pluginsIn(dir);
		if (plugins !== undefined) return { dir, plugins };
	}
	return { dir: undefined, plugins: [] };
}

function pluginsIn(dir: string): string[] | undefined {
	for (const file of filesIn(dir)) {
		try {
			const { success, data } = schema.safeParse(JSON.parse(readFileSync(`${dir}/${file}`, "utf8")));
			if (success) return "plugins" in data ? data.plugins.map(({ type }) => type) : [data.type];
		} catch {
			// It is being written, or no file at all: the runtime passes it over, too.
		}
	}
	return undefined;
}

function filesIn(dir: string): string[] {
	try {
		return readdirSync(dir)
			.filter((name) => /\.(conflist|conf|json)$/.test(name))
			.sort();
	} catch {
		return [];
	}
}
