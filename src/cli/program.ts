// The command line as a table. Only the module of the chosen command is loaded: start-up is what every call pays.
import { Command } from "commander";
import { programVersion } from "./version.js";

export interface CommandContext {
	/** Fires when the user or the system asks the command to end. */
	signal: AbortSignal;
}

interface Entry {
	group: string;
	summary: string;
	load: () => Promise<(context: CommandContext) => Command>;
}

const ACCELERATE = "On a host:";
const OBSERVE = "Ask and steer its agent:";
const CLUSTER = "In a cluster:";
const TRY = "Try and measure:";

const COMMANDS: Record<string, Entry> = {
	agent: {
		group: ACCELERATE,
		summary: "accelerate this network namespace's overlay, and keep up with its changes",
		load: async () => (await import("./agent.js")).agentCommand,
	},
	cni: {
		group: ACCELERATE,
		summary: "add the CNI plugin to a node, or remove it",
		load: async () => (await import("./cni.js")).cniCommand,
	},
	doctor: {
		group: ACCELERATE,
		summary: "try what the kernel can do and look for conflicts",
		load: async () => (await import("./doctor.js")).doctorCommand,
	},
	detach: {
		group: ACCELERATE,
		summary: "remove everything that is ONCache's",
		load: async () => (await import("./detach.js")).detachCommand,
	},
	uninstall: {
		group: ACCELERATE,
		summary: "detach, and remove socket and lock too",
		load: async () => (await import("./uninstall.js")).uninstallCommand,
	},
	status: {
		group: OBSERVE,
		summary: "show what is accelerated, how much, and why not the rest",
		load: async () => (await import("./status.js")).statusCommand,
	},
	flows: {
		group: OBSERVE,
		summary: "list the cached flows",
		load: async () => (await import("./flows.js")).flowsCommand,
	},
	flush: {
		group: OBSERVE,
		summary: "evict cached decisions",
		load: async () => (await import("./flush.js")).flushCommand,
	},
	apply: {
		group: OBSERVE,
		summary: "run a command that changes the network, with what it affects evicted",
		load: async () => (await import("./apply.js")).applyCommand,
	},
	verify: {
		group: OBSERVE,
		summary: "compare what is cached with what the kernel would do",
		load: async () => (await import("./verify.js")).verifyCommand,
	},
	pause: {
		group: OBSERVE,
		summary: "stop learning and using the cache",
		load: async () => (await import("./pause.js")).pauseCommand,
	},
	resume: {
		group: OBSERVE,
		summary: "go on learning and using the cache",
		load: async () => (await import("./pause.js")).resumeCommand,
	},
	"await-daemonset": {
		group: CLUSTER,
		summary: "wait until a DaemonSet is ready on every node",
		load: async () => (await import("./await-daemonset.js")).awaitDaemonSetCommand,
	},
	demo: {
		group: TRY,
		summary: "two hosts, real traffic, with and without ONCache, in three minutes",
		load: async () => (await import("./demo.js")).demoCommand,
	},
	bench: {
		group: TRY,
		summary: "measure host network, plain overlay and ONCache",
		load: async () => (await import("./bench.js")).benchCommand,
	},
	lab: {
		group: TRY,
		summary: "hosts and pods as network namespaces, with a real overlay",
		load: async () => (await import("./lab.js")).labCommand,
	},
	version: {
		group: TRY,
		summary: "print the versions of ONCache, the kernel and Node",
		load: async () => (await import("./version.js")).versionCommand,
	},
};

/** The program with all commands named, and the one that `args` (without node and script) chooses loaded. */
export async function buildProgram(args: string[], context: CommandContext): Promise<Command> {
	const program = new Command("oncache")
		.description("Accelerates container overlay networks by caching what the overlay decides")
		.version(programVersion())
		.option("--verbose", "show where an error came from")
		.enablePositionalOptions()
		.commandsGroup(TRY)
		.helpCommand("help [command]", "show help for a command")
		.configureHelp({ showGlobalOptions: true })
		.configureOutput({ outputError: (text, write) => write(text.replace(/^error: /, "oncache: ")) })
		.exitOverride();
	const chosen = args.filter((arg) => !arg.startsWith("-")).find((arg) => arg !== "help");
	for (const [name, { group, summary, load }] of Object.entries(COMMANDS)) {
		const command = name === chosen ? (await load())(context) : new Command(name);
		inheritSettings(command, program);
		program.addCommand(command.summary(summary).helpGroup(group));
	}
	return program;
}

function inheritSettings(command: Command, parent: Command): void {
	command.copyInheritedSettings(parent);
	for (const child of command.commands) inheritSettings(child, command);
}
