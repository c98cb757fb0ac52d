// Executes CNI plugins as a container runtime does (CNI specification, section 3, as libcni keeps it): in the host's network
// namespace, with nothing of this process's environment, each result checked against the schema of its version.
import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { z } from "zod";
import { type Finished, inNetns, run } from "../../src/lab/command.js";

/** The project's own plugin, and Debian's package containernetworking-plugins. */
export const PLUGIN_DIRS = [fileURLToPath(new URL("../../../bin", import.meta.url)), "/usr/lib/cni"];

export interface Network {
	cniVersion: string;
	name: string;
	plugins: ({ type: string } & Record<string, unknown>)[];
}

export interface Container {
	id: string;
	/** Path of its network namespace. */
	netns: string;
	ifname?: string;
	/** What libcni calls capability arguments. */
	capabilities?: Record<string, unknown>;
	args?: string;
}

export type Result = Record<string, unknown>;

/** A plugin ended with an exit code other than 0. */
export class PluginError extends Error {
	readonly finished: Finished;
	/** The error structure that it printed. */
	readonly answer: { code: number; msg: string; details?: string; cniVersion?: string };

	constructor(type: string, finished: Finished) {
		super(`Plugin "${type}" ended with ${finished.code}: ${finished.stdout || finished.stderr}`);
		this.finished = finished;
		this.answer = JSON.parse(finished.stdout || "{}") as PluginError["answer"];
	}
}

export class CniRuntime {
	readonly #host: string;
	/** As libcni caches them, by container. */
	readonly #results = new Map<string, Result>();
	/** What the plugins said on standard error, all of it. */
	said = "";
	/** Of the last ADD: each plugin's. */
	results: Result[] = [];

	readonly #path: readonly string[];

	/** @param host path of the network namespace that the plugins run in */
	constructor(host: string, path: readonly string[] = PLUGIN_DIRS) {
		this.#host = host;
		this.#path = path;
	}

	/** All plugins in order, each with the result of the one before. @returns the last one's result */
	async add(network: Network, container: Container): Promise<Result> {
		this.results = [];
		for (const plugin of network.plugins)
			this.results.push(
				resultOf(await this.#execute("ADD", network, plugin, container, this.results.at(-1)), network.cniVersion),
			);
		const result = this.results.at(-1);
		assert.ok(result);
		this.#results.set(keyOf(network, container), result);
		return result;
	}

	/** All plugins in reverse order, each with the final result of ADD, as far as the version has that. */
	async del(network: Network, container: Container): Promise<void> {
		const cached = this.#results.get(keyOf(network, container));
		const known = network.cniVersion >= "0.4.0" ? cached : undefined;
		for (const plugin of network.plugins.toReversed())
			assert.equal(await this.#execute("DEL", network, plugin, container, known), "");
		this.#results.delete(keyOf(network, container));
	}

	/** The last plugin only: the first that DEL comes to. */
	async delLast(network: Network, container: Container): Promise<void> {
		const cached = this.#results.get(keyOf(network, container));
		await this.#execute("DEL", network, network.plugins.at(-1) as Network["plugins"][number], container, cached);
	}

	async check(network: Network, container: Container): Promise<void> {
		const cached = this.#results.get(keyOf(network, container));
		for (const plugin of network.plugins)
			assert.equal(await this.#execute("CHECK", network, plugin, container, cached), "");
	}

	/** One plugin, with any configuration and environment. @returns its standard output */
	async call(type: string, environment: Record<string, string>, input: string): Promise<string> {
		const path = this.#path.map((dir) => `${dir}/${type}`).find((file) => existsSync(file));
		assert.ok(path, `a plugin "${type}" in ${this.#path.join(", ")}`);
		const variables = Object.entries({ PATH: process.env.PATH ?? "", CNI_PATH: this.#path.join(":"), ...environment });
		const argv = ["env", "-i", ...variables.map(([name, value]) => `${name}=${value}`), path];
		const finished = await run(inNetns(this.#host, argv), { input, anyCode: true });
		this.said += finished.stderr;
		if (finished.code !== 0) throw new PluginError(type, finished);
		return finished.stdout;
	}

	#execute(
		command: string,
		{ cniVersion, name }: Network,
		{ capabilities, ...plugin }: Network["plugins"][number],
		container: Container,
		prevResult: Result | undefined,
	): Promise<string> {
		const wanted = Object.keys((capabilities as object | undefined) ?? {});
		const given = Object.entries(container.capabilities ?? {}).filter(([key]) => wanted.includes(key));
		const config = {
			...plugin,
			...(capabilities !== undefined && { capabilities }),
			name,
			cniVersion,
			...(prevResult && { prevResult }),
			...(given.length > 0 && { runtimeConfig: Object.fromEntries(given) }),
		};
		return this.call(plugin.type, environmentOf(command, container), JSON.stringify(config));
	}
}

export function environmentOf(
	command: string,
	{ id, netns, ifname = "eth0", args }: Container,
): Record<string, string> {
	return {
		CNI_COMMAND: command,
		CNI_CONTAINERID: id,
		CNI_NETNS: netns,
		CNI_IFNAME: ifname,
		...(args !== undefined && { CNI_ARGS: args }),
	};
}

const keyOf = ({ name }: Network, { id, ifname }: Container): string => `${name}-${id}-${ifname ?? "eth0"}`;

const cidr = z.union([z.cidrv4(), z.cidrv6()]);
const address = z.union([z.ipv4(), z.ipv6()]);
const route = z.strictObject({ dst: cidr, gw: address.optional() });
const dns = z.strictObject({
	nameservers: z.array(address).optional(),
	domain: z.string().optional(),
	search: z.array(z.string()).optional(),
	options: z.array(z.string()).optional(),
});
const device = { name: z.string(), mac: z.mac().optional(), sandbox: z.string().optional() };
const single = z.strictObject({ ip: cidr, gateway: address.optional(), routes: z.array(route).optional() });
const ip = { address: cidr, gateway: address.optional(), interface: z.int().min(0).optional() };
const singles = z.strictObject({
	cniVersion: z.string(),
	ip4: single.optional(),
	ip6: single.optional(),
	dns: dns.optional(),
});
const lists = z.strictObject({
	cniVersion: z.string(),
	interfaces: z.array(z.strictObject(device)).optional(),
	ips: z.array(z.strictObject({ version: z.enum(["4", "6"]), ...ip })).optional(),
	routes: z.array(route).optional(),
	dns: dns.optional(),
});
const unversioned = lists.extend({ ips: z.array(z.strictObject(ip)).optional() });
const number = z.int().min(0).optional();
const newest = unversioned.extend({
	interfaces: z
		.array(z.strictObject({ ...device, mtu: number, socketPath: z.string().optional(), pciID: z.string().optional() }))
		.optional(),
	routes: z
		.array(route.extend({ mtu: number, advmss: number, priority: number, table: number, scope: number }))
		.optional(),
});

/** By the specification's own texts, of each version. */
export const RESULT_SCHEMAS: Record<string, z.ZodType<Result>> = {
	"0.1.0": singles,
	"0.2.0": singles,
	"0.3.0": lists,
	"0.3.1": lists,
	"0.4.0": lists,
	"1.0.0": unversioned,
	"1.1.0": newest,
};

function resultOf(output: string, cniVersion: string): Result {
	const result = RESULT_SCHEMAS[cniVersion]?.parse(JSON.parse(output));
	assert.equal(result?.cniVersion, cniVersion);
	return result;
}
