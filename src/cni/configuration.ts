// The plugin's configuration as the runtime passes it on standard input (CNI specification, section 3). Checked by hand: a
// validation package would take longer to load than all the rest of the plugin.
import { DEFAULT_SOCKET } from "../agent/api.js";
import { CniCode, CniError } from "./error.js";
import type { Result } from "./result.js";
import { isVersion, OLDEST, VERSIONS, type Version } from "./version.js";

/** Keys that are ONCache's own; every other one belongs to the specification or to somebody else, and is none of its business. */
export interface PluginConfig {
	cniVersion: Version;
	/** Of the network. */
	name: string;
	/** Of the agent. */
	socket: string;
	/** No plugin comes after this one: nothing will be changed about the pod's devices any more. */
	last: boolean;
	/** STATUS is an error while no agent is ready. ADD is served all the same. */
	agentRequired: boolean;
	/** What the plugins before this one have made. */
	prevResult: Result | undefined;
	/** GC: attachments that are still there; undefined: not told. */
	valid: { containerId: string; ifname: string }[] | undefined;
}

const NETWORK_NAME = /^[a-zA-Z0-9][a-zA-Z0-9_.-]*$/;
/** sun_path in struct sockaddr_un has 108 bytes, the last one is zero. */
const SOCKET_MAX = 107;

/** What was given, as an object. @throws {CniError} 6 */
export function decode(text: string): Record<string, unknown> {
	let content: unknown;
	try {
		content = JSON.parse(text);
	} catch (error) {
		throw new CniError(CniCode.decodingFailure, "Cannot decode the network configuration", (error as Error).message);
	}
	if (!isObject(content))
		throw new CniError(CniCode.decodingFailure, "Cannot decode the network configuration", "It is not a JSON object");
	return content;
}

/** Of the configuration. @throws {CniError} 6 where it is no text, 1 where this plugin does not know it */
export function versionOf({ cniVersion = OLDEST }: Record<string, unknown>): Version {
	if (typeof cniVersion !== "string")
		throw new CniError(
			CniCode.decodingFailure,
			"Cannot decode the network configuration",
			'"cniVersion" is not a string',
		);
	const version = cniVersion === "" ? OLDEST : cniVersion;
	if (!isVersion(version))
		throw new CniError(
			CniCode.incompatibleVersion,
			"Incompatible CNI version",
			`The configuration has "${version}"; this plugin knows ${VERSIONS.join(", ")}`,
		);
	return version;
}

/** @throws {CniError} 7 where the specification is not kept, 2 where a key of ONCache has a value that it cannot have */
export function readConfig(content: Record<string, unknown>): PluginConfig {
	const cniVersion = versionOf(content);
	const { name, prevResult } = content;
	if (typeof name !== "string" || !NETWORK_NAME.test(name))
		throw invalid(
			name === undefined || name === ""
				? "The network has no name"
				: `The network's name ${JSON.stringify(name)} is not allowed: a letter or digit, then letters, digits, "_", "." and "-"`,
		);
	if (prevResult !== undefined && prevResult !== null && !isObject(prevResult))
		throw invalid(`"prevResult" is ${JSON.stringify(prevResult)}: expected an object`);
	return {
		cniVersion,
		name,
		socket: readSocket(content.socket),
		last: readBoolean(content, "last"),
		agentRequired: readBoolean(content, "agentRequired"),
		prevResult: isObject(prevResult) ? prevResult : undefined,
		// Early texts of version 1.1.0 had the second name; runtimes may send either.
		valid: readValid(content["cni.dev/valid-attachments"] ?? content["cni.dev/attachments"]),
	};
}

function readSocket(socket: unknown = DEFAULT_SOCKET): string {
	if (typeof socket === "string" && socket.startsWith("/") && Buffer.byteLength(socket) <= SOCKET_MAX) return socket;
	throw unsupported("socket", socket, `an absolute path of at most ${SOCKET_MAX} bytes`);
}

function readBoolean(content: Record<string, unknown>, key: string): boolean {
	const value = content[key] ?? false;
	if (typeof value !== "boolean") throw unsupported(key, value, "true or false");
	return value;
}

function readValid(list: unknown): PluginConfig["valid"] {
	if (list === undefined || list === null) return undefined;
	const problem = '"cni.dev/valid-attachments" is not a list of objects with "containerID" and "ifname"';
	if (!Array.isArray(list)) throw invalid(problem);
	return list.map((each: unknown) => {
		const { containerID, ifname } = isObject(each) ? each : {};
		if (typeof containerID !== "string" || typeof ifname !== "string") throw invalid(problem);
		return { containerId: containerID, ifname };
	});
}

function invalid(details: string): CniError {
	return new CniError(CniCode.invalidConfig, "Invalid network configuration", details);
}

function unsupported(key: string, value: unknown, allowed: string): CniError {
	return new CniError(
		CniCode.unsupportedField,
		`Unsupported field "${key}": ${JSON.stringify(value)}`,
		`Allowed: ${allowed}`,
	);
}

export function isObject(value: unknown): value is Record<string, unknown> {
	return typeof value === "object" && value !== null && !Array.isArray(value);
}
