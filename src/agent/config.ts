// What the agent was told: a YAML file and flags, checked once here and trusted afterwards.
import { readFileSync } from "node:fs";
import { parse } from "yaml";
import { z } from "zod";
import { parseIp } from "../net/ip.js";
import { DEFAULT_BPFFS, DEFAULT_CNI_BIN_DIR, DEFAULT_MARK, DEFAULT_SOCKET } from "./api.js";
import { problemOfMark } from "./mark.js";

export const DEFAULT_CONFIG_FILE = "/etc/oncache/config.yaml";

/** The configuration is wrong; the message names file or flag, key, value and what is allowed. */
export class ConfigError extends Error {
	override name = "ConfigError";
	readonly exitCode = 2;
}

export interface Config {
	socket: string;
	/** Pin directory on a bpffs. */
	bpffs: string;
	logLevel: "trace" | "debug" | "info" | "warn" | "error";
	attach: "auto" | "tcx" | "clsact";
	markMode: "auto" | "metadata" | "dscp";
	/** One bit of skb->mark. */
	mark: number;
	maxStalenessMs: number;
	/** Between two comparisons of everything with the kernel; 0: none. */
	verifyIntervalMs: number;
	countFlows: boolean;
	/** Entries as they were asked for; resolveSizes() says what they become. */
	cache: { filter: number | "auto"; filter6: number | "auto"; egress: number; ingress: number };
	/** Names of tunnel devices; "auto": all that can be accelerated. */
	tunnels: "auto" | string[];
	/** Veths not to accelerate: names, or patterns with * and ?. */
	excludeInterfaces: string[];
	/** Keep the CNI plugin, which must be there, in the node's network configuration. */
	cni: boolean;
	cniBinDir: string;
	/** Directory of Open vSwitch's sockets. */
	ovsRunDir: "auto" | string;
	/** The bridge that the pods are on. */
	ovsBridge: "auto" | string;
	/** dscp mode: the table of that bridge in which connection tracking's answer is known; name or number. */
	ovsTable: "auto" | string;
	/** Of connection tracking, in which that bridge knows its flows. */
	ovsZone: "auto" | number;
	ovsZone6: "auto" | number;
	/** Whether the API server is asked: "auto", where this is a pod with a service account or $KUBECONFIG is set; "off"; or by a kubeconfig file. */
	kubernetes: "auto" | "off" | string;
	/** Which pods are asked for: all, or this node's and those that are opted out by label or namespace. */
	kubernetesPods: "cluster" | "node";
	/** Of this node, in the cluster; "auto": $NODE_NAME, else the host's name. */
	nodeName: "auto" | string;
	/** Where probes and metrics are served over TCP, HOST:PORT; the socket has them always. */
	metricsAddress: "off" | string;
	/** Directory of the CNI's configuration. */
	cniConfDir: "auto" | string;
}

export const DEFAULT_CONFIG: Config = {
	socket: DEFAULT_SOCKET,
	bpffs: DEFAULT_BPFFS,
	logLevel: "info",
	attach: "auto",
	markMode: "auto",
	mark: DEFAULT_MARK,
	maxStalenessMs: 2000,
	verifyIntervalMs: 0,
	countFlows: false,
	cache: { filter: "auto", filter6: "auto", egress: 4096, ingress: 1024 },
	tunnels: "auto",
	excludeInterfaces: [],
	cni: false,
	cniBinDir: DEFAULT_CNI_BIN_DIR,
	ovsRunDir: "auto",
	ovsBridge: "auto",
	ovsTable: "auto",
	ovsZone: "auto",
	ovsZone6: "auto",
	kubernetes: "auto",
	kubernetesPods: "cluster",
	nodeName: "auto",
	metricsAddress: "off",
	cniConfDir: "auto",
};

/** Every message below completes the sentence "... allowed: ". */
function wholeNumber(low: number, high: number, allowed = `a whole number from ${low} to ${high}`) {
	return z.int(allowed).min(low, allowed).max(high, allowed);
}

function oneOf<const Name extends string>(...names: Name[]) {
	return z.enum(names, names.join(", "));
}

function absolutePath(longest: number) {
	const allowed = `an absolute path of at most ${longest} characters`;
	return z.string(allowed).regex(/^\//, allowed).max(longest, allowed);
}

const FILTER = '"auto" or a whole number from 1024 to 4194304';
const TUNNELS = '"auto" or a list of device names';
const PATTERNS = "a list of device names, or of patterns with * and ?";
const BRIDGE = '"auto" or the name of a bridge';
const TABLE = '"auto", or the name or number of a table';
const ZONE = '"auto" or a whole number from 0 to 65535';
const KUBERNETES = '"auto", "off" or the absolute path of a kubeconfig file';
const NODE = '"auto" or the name of a node';
const ADDRESS = '"off" or an address and a port such as 127.0.0.1:9469, 0.0.0.0:9469 or [::]:9469';
const VERIFY = "0 (never) or a whole number from 1000 to 86400000";
const KEYS = Object.keys(DEFAULT_CONFIG).join(", ");
const CACHE_KEYS = Object.keys(DEFAULT_CONFIG.cache).join(", ");

const schema = z
	.strictObject(
		{
			// sun_path in struct sockaddr_un has 108 bytes, the last one is zero.
			socket: absolutePath(107),
			bpffs: absolutePath(1000),
			logLevel: oneOf("trace", "debug", "info", "warn", "error"),
			attach: oneOf("auto", "tcx", "clsact"),
			markMode: oneOf("auto", "metadata", "dscp"),
			mark: z.int("a single bit such as 0x1000").superRefine((mark, context) => {
				const message = problemOfMark(mark);
				if (message !== undefined) context.addIssue({ code: "custom", message });
			}),
			maxStalenessMs: wholeNumber(100, 60_000),
			verifyIntervalMs: z.union([z.literal(0), wholeNumber(1000, 86_400_000, VERIFY)], VERIFY),
			countFlows: z.boolean("true, false"),
			cache: z
				.strictObject(
					{
						filter: z.union([z.literal("auto"), wholeNumber(1024, 4_194_304, FILTER)], FILTER),
						filter6: z.union([z.literal("auto"), wholeNumber(1024, 4_194_304, FILTER)], FILTER),
						egress: wholeNumber(16, 65_536),
						ingress: wholeNumber(16, 65_536),
					},
					CACHE_KEYS,
				)
				.partial(),
			tunnels: z.union(
				[
					z.literal("auto"),
					z.array(z.string(TUNNELS).regex(/^[^\s/*?]{1,15}$/, "a device name"), TUNNELS).min(1, TUNNELS),
				],
				TUNNELS,
			),
			cni: z.boolean("true, false"),
			cniBinDir: absolutePath(1000),
			ovsRunDir: z.union([z.literal("auto"), absolutePath(90)], '"auto" or an absolute path of at most 90 characters'),
			ovsBridge: z.string(BRIDGE).regex(/^[^\s/]{1,15}$/, BRIDGE),
			ovsTable: z.string(TABLE).regex(/^\w{1,32}$/, TABLE),
			ovsZone: z.union([z.literal("auto"), wholeNumber(0, 65_535, ZONE)], ZONE),
			ovsZone6: z.union([z.literal("auto"), wholeNumber(0, 65_535, ZONE)], ZONE),
			kubernetes: z
				.string(KUBERNETES)
				.regex(/^(auto|off|\/.+)$/, KUBERNETES)
				.max(4000, KUBERNETES),
			kubernetesPods: oneOf("cluster", "node"),
			nodeName: z.string(NODE).regex(/^[a-z\d]([a-z\d.-]{0,251}[a-z\d])?$/, NODE),
			metricsAddress: z.string(ADDRESS).refine((text) => text === "off" || parseListen(text) !== undefined, ADDRESS),
			cniConfDir: z.union([z.literal("auto"), absolutePath(1000)], '"auto" or an absolute path'),
			excludeInterfaces: z.array(z.string(PATTERNS).regex(/^[^\s/]{1,15}$/, "a device name, or a pattern"), PATTERNS),
		},
		KEYS,
	)
	.partial();

type Layer = z.infer<typeof schema>;

/** Of the configuration file, for others that check it; what can only be said in code is not in there. */
export function configJsonSchema(): { properties: Record<string, unknown> } & Record<string, unknown> {
	const { $schema, ...rest } = z.toJSONSchema(schema, { target: "draft-7" });
	return { ...rest, properties: { ...rest.properties } };
}

/** Members of Config by the names that commander gives to their flags: --cache-filter is cacheFilter. */
export type ConfigFlags = Partial<
	Record<Exclude<keyof Config, "cache"> | "cacheFilter" | "cacheFilter6" | "cacheEgress" | "cacheIngress", unknown>
>;

export interface ConfigSources {
	/** Must exist; without it DEFAULT_CONFIG_FILE is read if there is one. */
	file?: string | undefined;
	/** Text as on the command line (numbers, lists with commas) or values; they win over the file. */
	flags?: ConfigFlags;
}

/** @throws {ConfigError} */
export function loadConfig({ file, flags = {} }: ConfigSources): Config {
	const fromFile = readFile(file ?? DEFAULT_CONFIG_FILE, file !== undefined);
	const fromFlags = check(
		readFlags(flags),
		"the command line",
		(path) => `--${path.join("-").replace(/[A-Z]/g, kebab)}`,
	);
	const cache = Object.assign({}, DEFAULT_CONFIG.cache, fromFile.cache, fromFlags.cache);
	return Object.assign({}, DEFAULT_CONFIG, fromFile, fromFlags, { cache });
}

function readFile(file: string, mustExist: boolean): Layer {
	let content: unknown;
	try {
		content = parse(readFileSync(file, "utf8"));
	} catch (error) {
		const { code, message } = error as NodeJS.ErrnoException;
		if (code === "ENOENT" && !mustExist) return {};
		throw new ConfigError(`Cannot read "${file}": ${message.split("\n", 1)[0]}`);
	}
	return check(content ?? {}, `"${file}"`, (path) => `"${path.join(".")}"`);
}

const NUMBERS = [
	"mark",
	"maxStalenessMs",
	"verifyIntervalMs",
	"cacheFilter",
	"cacheFilter6",
	"cacheEgress",
	"cacheIngress",
	"ovsZone",
	"ovsZone6",
];
const LISTS = ["tunnels", "excludeInterfaces"];

/** Flags in the shape of the file. */
function readFlags(flags: ConfigFlags): unknown {
	const layer: Record<string, unknown> = {};
	const cache: Record<string, unknown> = {};
	for (const [name, given] of Object.entries(flags)) {
		if (given === undefined) continue;
		let value = given;
		if (typeof given === "string" && NUMBERS.includes(name) && /^(0x[\da-f]+|\d+)$/i.test(given)) value = Number(given);
		if (typeof given === "string" && LISTS.includes(name) && given !== "auto") value = given.split(",");
		const cacheKey = /^cache([A-Z]\w*)$/.exec(name)?.[1]?.toLowerCase();
		if (cacheKey !== undefined) cache[cacheKey] = value;
		else if (name in DEFAULT_CONFIG) layer[name] = value;
	}
	return { ...layer, cache };
}

function check(content: unknown, source: string, nameOf: (path: PropertyKey[]) => string): Layer {
	const { success, data, error } = schema.safeParse(content);
	if (success) return data;
	const problems = error.issues.map(({ code, path, message, ...issue }) => {
		if (code === "unrecognized_keys" && "keys" in issue)
			return `unknown key ${issue.keys.map((key) => nameOf([...path, key])).join(", ")}; allowed: ${message}`;
		const value = path.reduce<unknown>((inner, key) => (inner as Record<PropertyKey, unknown>)[key], content);
		const what = path.length > 0 ? nameOf(path) : "the whole";
		return `${what} is ${describe(value, path)}; allowed: ${message}`;
	});
	throw new ConfigError(problems.map((problem) => `Cannot use ${source}: ${problem}`).join("\n"));
}

function describe(value: unknown, path: PropertyKey[]): string {
	return path[0] === "mark" && typeof value === "number" ? `0x${value.toString(16)}` : JSON.stringify(value);
}

function kebab(capital: string): string {
	return `-${capital.toLowerCase()}`;
}

/** "127.0.0.1:9469", "[::1]:9469"; undefined: no such thing. */
export function parseListen(text: string): { host: string; port: number } | undefined {
	const [, inBrackets, plain, port] = /^(?:\[([\da-f:]+)\]|([\d.]+)):(\d{1,5})$/i.exec(text) ?? [];
	const host = inBrackets ?? plain;
	if (host === undefined || Number(port) < 1 || Number(port) > 65_535) return undefined;
	try {
		parseIp(host);
	} catch {
		return undefined;
	}
	return { host, port: Number(port) };
}

export interface CacheSizes {
	filter: number;
	/** Of IPv6. */
	filter6: number;
	egress: number;
	ingress: number;
}

const FILTER_MEMORY_SHARE = 0.0025;
/** An LRU hash entry with its bookkeeping (48 bytes), key (16) and flow (128), and its bucket. */
const FILTER_ENTRY_BYTES = 208;
/** Entries are made with the map: those of IPv6 cost memory also where nobody uses it. */
const FILTER6_SHARE = 1 / 4;

/** Entries of the caches, each a power of two. */
export function resolveSizes({ cache }: Pick<Config, "cache">, totalMemoryBytes: number): CacheSizes {
	const affordable = 2 ** Math.floor(Math.log2((totalMemoryBytes * FILTER_MEMORY_SHARE) / FILTER_ENTRY_BYTES));
	const auto = Math.min(1_048_576, Math.max(16_384, affordable));
	return {
		filter: cache.filter === "auto" ? auto : roundUp(cache.filter),
		filter6: cache.filter6 === "auto" ? auto * FILTER6_SHARE : roundUp(cache.filter6),
		egress: roundUp(cache.egress),
		ingress: roundUp(cache.ingress),
	};
}

function roundUp(entries: number): number {
	return 2 ** Math.ceil(Math.log2(entries));
}

/** Whether a device is named by excludeInterfaces. */
export function isExcluded(name: string, { excludeInterfaces }: Pick<Config, "excludeInterfaces">): boolean {
	return excludeInterfaces.some((pattern) => {
		const literal = pattern.replace(/[.+^${}()|[\]\\]/g, "\\$&");
		return new RegExp(`^${literal.replaceAll("*", ".*").replaceAll("?", ".")}$`).test(name);
	});
}
