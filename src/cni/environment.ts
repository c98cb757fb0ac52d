// The parameters of a call, out of the environment (CNI specification, section 2).
import { CniCode, CniError } from "./error.js";
import { isAtLeast, type Version } from "./version.js";

export const COMMANDS = ["ADD", "DEL", "CHECK", "GC", "STATUS", "VERSION"] as const;
export type Command = (typeof COMMANDS)[number];

export interface Parameters {
	command: Command;
	/** Empty where the command has none. */
	containerId: string;
	/** Path of the network namespace; empty where there is none any more. */
	netns: string;
	/** Name of the interface inside the container. */
	ifname: string;
	/** CNI_ARGS: what else the runtime says, by name. */
	args: ReadonlyMap<string, string>;
}

/** The variables that each command must be given. */
const REQUIRED: Record<Command, readonly string[]> = {
	ADD: ["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"],
	CHECK: ["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"],
	DEL: ["CNI_CONTAINERID", "CNI_IFNAME"],
	GC: ["CNI_PATH"],
	STATUS: [],
	VERSION: [],
};

/** The first version of the specification that has the command, where that is not the first of all. */
const SINCE: Partial<Record<Command, Version>> = { CHECK: "0.4.0", GC: "1.1.0", STATUS: "1.1.0" };

const CONTAINER_ID = /^[a-zA-Z0-9][a-zA-Z0-9_.-]*$/;

/** @throws {CniError} 4, naming the variables */
export function readParameters(environment: NodeJS.ProcessEnv): Parameters {
	const of = (name: string): string => environment[name] ?? "";
	const command = COMMANDS.find((each) => each === of("CNI_COMMAND"));
	if (command === undefined)
		throw invalid(
			"CNI_COMMAND",
			of("CNI_COMMAND") === "" ? "is not set" : `is "${of("CNI_COMMAND")}"; known are ${COMMANDS.join(", ")}`,
		);
	const missing = REQUIRED[command].filter((name) => of(name) === "");
	if (missing.length > 0) throw invalid(missing.join(", "), `must be set for ${command}`);
	const containerId = of("CNI_CONTAINERID");
	const ifname = of("CNI_IFNAME");
	if (REQUIRED[command].includes("CNI_CONTAINERID") && !CONTAINER_ID.test(containerId))
		throw invalid("CNI_CONTAINERID", `is "${containerId}": a letter or digit, then letters, digits, "_", "." and "-"`);
	if (REQUIRED[command].includes("CNI_IFNAME") && !isInterfaceName(ifname))
		throw invalid("CNI_IFNAME", `is "${ifname}": at most 15 bytes without "/", ":" and spaces, not "." or ".."`);
	return { command, containerId, netns: of("CNI_NETNS"), ifname, args: readArgs(of("CNI_ARGS")) };
}

/** @throws {CniError} 1 where the configuration's version does not have the command */
export function checkCommand(command: Command, version: Version): void {
	const since = SINCE[command];
	if (since !== undefined && !isAtLeast(version, since))
		throw new CniError(
			CniCode.incompatibleVersion,
			`CNI version ${version} does not have ${command}`,
			`${command} exists since CNI version ${since}`,
		);
}

/** As the kernel has it (dev_valid_name() of net/core/dev.c). */
export function isInterfaceName(name: string): boolean {
	return /^[^\s/:]+$/.test(name) && Buffer.byteLength(name) < 16 && name !== "." && name !== "..";
}

/** "A=1;B=2". What is no pair is passed over: it is not for this plugin. */
function readArgs(text: string): Map<string, string> {
	const pairs = text.split(";").map((pair) => /^([^=]+)=(.*)$/s.exec(pair));
	return new Map(pairs.flatMap((match) => (match ? [[match[1] as string, match[2] as string] as const] : [])));
}

function invalid(names: string, why: string): CniError {
	return new CniError(CniCode.invalidEnvironment, "Invalid environment variables", `${names} ${why}`);
}
