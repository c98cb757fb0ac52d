// One call of the plugin: checks what the runtime says, tells the agent, answers. What fails of ONCache is logged and counted,
// and never the runtime's concern; what is wrong about the call itself is an error by the specification.
import { statSync } from "node:fs";
import type { CniAnswer, CniRequest } from "../agent/api.js";
import { isAgentReady, tellAgent } from "./agent.js";
import { decode, type PluginConfig, readConfig, versionOf } from "./configuration.js";
import { checkCommand, type Parameters, readParameters } from "./environment.js";
import { CniCode, CniError, errorResult } from "./error.js";
import { noteMissed } from "./missed.js";
import { inVersion, readResult } from "./result.js";
import { NEWEST, VERSIONS, type Version } from "./version.js";

export interface Call {
	environment: NodeJS.ProcessEnv;
	/** Reads standard input to its end. */
	read: () => Promise<string>;
	/** A line for the runtime's log. */
	log: (line: string) => void;
}

export interface Outcome {
	/** For standard output; undefined: nothing. */
	output: object | undefined;
	exitCode: 0 | 1;
}

export async function runPlugin({ environment, read, log }: Call): Promise<Outcome> {
	let version: Version = NEWEST;
	try {
		const parameters = readParameters(environment);
		const text = await read().catch((error: Error) => {
			throw new CniError(CniCode.ioFailure, "Cannot read the network configuration", error.message);
		});
		if (parameters.command === "VERSION") return success(versionResult(text));
		const content = decode(text);
		version = versionOf(content);
		const config = readConfig(content);
		checkCommand(parameters.command, version);
		return success(await COMMANDS[parameters.command](config, parameters, log));
	} catch (error) {
		return { output: errorResult(error, version), exitCode: 1 };
	}
}

const success = (output: object | undefined): Outcome => ({ output, exitCode: 0 });

/** Whoever asks may be older than every version here, and is answered in its own. */
function versionResult(text: string): object {
	const { cniVersion } = text.trim() === "" ? {} : decode(text);
	return { cniVersion: typeof cniVersion === "string" ? cniVersion : NEWEST, supportedVersions: VERSIONS };
}

type Work = (config: PluginConfig, parameters: Parameters, log: Call["log"]) => Promise<object | undefined>;

const COMMANDS: Record<Exclude<Parameters["command"], "VERSION">, Work> = {
	ADD: async (config, parameters, log) => {
		const prevResult = needPrevResult(config);
		needContainer(parameters);
		const result = inVersion(prevResult, config.cniVersion);
		await tell(config, parameters, "add", log);
		return result;
	},
	CHECK: async (config, parameters, log) => {
		needPrevResult(config);
		needContainer(parameters);
		// Repaired if it must be; a container without acceleration is not a broken one.
		await tell(config, parameters, "check", log);
		return undefined;
	},
	DEL: async (config, parameters, log) => {
		await tell(config, parameters, "del", log);
		return undefined;
	},
	GC: async ({ name: network, socket, valid }) => {
		// Not told is not "none".
		if (valid === undefined) return undefined;
		try {
			await tellAgent(socket, "/v1/cni/gc", { network, valid });
		} catch (error) {
			throw new CniError(CniCode.tryAgainLater, "Cannot remove what is stale now", (error as Error).message);
		}
		return undefined;
	},
	STATUS: async ({ socket, agentRequired }, _, log) => {
		// ADD is served without an agent too: only who wants it otherwise is told that there is none.
		const why = await isAgentReady(socket).then(
			(ready) => (ready ? undefined : "The agent is not ready yet"),
			(error: Error) => error.message,
		);
		if (why === undefined) return undefined;
		if (agentRequired) throw new CniError(CniCode.notAvailable, "Pods would not be accelerated", why);
		log(`pods are not accelerated: ${why}`);
		return undefined;
	},
};

/** Resolves whatever happens. */
async function tell(
	config: PluginConfig,
	parameters: Parameters,
	what: "add" | "check" | "del",
	log: Call["log"],
): Promise<void> {
	const { containerId, ifname } = parameters;
	const subject = `${parameters.command} ${containerId}/${ifname}`;
	try {
		const answer = await tellAgent<CniAnswer>(config.socket, `/v1/cni/${what}`, requestOf(config, parameters));
		if (what !== "del" && answer.why !== null) log(`${subject}: not accelerated: ${answer.why}`);
	} catch (error) {
		const words = `${subject}: ${(error as Error).message}`;
		log(words);
		try {
			noteMissed(config.socket, words);
		} catch (cause) {
			log(`cannot count it: ${(cause as Error).message}`);
		}
	}
}

function requestOf({ name, last, prevResult }: PluginConfig, parameters: Parameters): CniRequest {
	const { containerId, ifname, netns, args } = parameters;
	const { hostDevices, addresses } = readResult(prevResult ?? {});
	const [namespace, pod] = [args.get("K8S_POD_NAMESPACE"), args.get("K8S_POD_NAME")];
	return {
		network: name,
		containerId,
		ifname,
		netns: netns === "" ? null : netns,
		hostDevices,
		addresses,
		last,
		pod: namespace && pod ? { namespace, name: pod } : null,
	};
}

function needPrevResult({ prevResult }: PluginConfig): NonNullable<PluginConfig["prevResult"]> {
	if (prevResult !== undefined) return prevResult;
	throw new CniError(
		CniCode.invalidConfig,
		"Invalid network configuration",
		'There is no "prevResult": oncache-cni makes no interface, it must come after a plugin that does',
	);
}

/** Namespaces of another kind than files are taken on trust. */
function needContainer({ netns }: Parameters): void {
	if (netns.startsWith("/") && !statSync(netns, { throwIfNoEntry: false }))
		throw new CniError(
			CniCode.unknownContainer,
			"The container does not exist",
			`There is no network namespace "${netns}"`,
		);
}
