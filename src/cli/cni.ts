// oncache cni: the CNI plugin on a node, and in its network configuration.

import { once } from "node:events";
import { existsSync, rmSync, statSync, writeFileSync } from "node:fs";
import { Command } from "commander";
import { DEFAULT_CNI_BIN_DIR, DEFAULT_CNI_CONF_DIR, DEFAULT_SOCKET } from "../agent/api.js";
import { agentRequest } from "../agent/client.js";
import type { Entry } from "../cni/conflist.js";
import { followNetworks } from "../cni/follow.js";
import { addPlugin, type Change, readNetworks, removePlugin } from "../cni/networks.js";
import {
	cachedAttachments,
	DEFAULT_CACHE_DIR,
	leavingMark,
	nodePath,
	pluginPath,
	programState,
	removeProgram,
	stageNode,
	stagePlugin,
} from "../cni/program.js";
import { run } from "../lab/command.js";
import { Failure, UsageError } from "./errors.js";
import { printJson } from "./place.js";
import type { CommandContext } from "./program.js";

interface Directories {
	confDir: string;
	binDir: string;
	json?: boolean;
}

interface InstallOptions extends Directories {
	socket: string;
	node?: string;
	copyNode?: boolean;
	hostBinDir?: string;
	watch?: boolean;
	pluginOnly?: boolean;
}

export function cniCommand({ signal }: CommandContext): Command {
	const cni = new Command("cni").description("the CNI plugin on a node, and in its network configuration");
	withDirectories(cni.command("install"))
		.description("copy the plugin to the node and add it to the network configuration that its runtime uses")
		.option("--socket <path>", "the agent's socket, as the plugin sees it", DEFAULT_SOCKET)
		.option(
			"--node <path>",
			"Node >= 20 that executes the plugin, as the node sees it (default: the one that runs this)",
		)
		.option("--copy-node", "copy the Node that runs this beside the plugin, for nodes that have none")
		.option("--host-bin-dir <dir>", "--bin-dir as the node sees it, where this runs in a container")
		.option("--plugin-only", "copy the plugin, and leave the configuration to an agent with cni: true")
		.option("--watch", "stay, and add it again whenever the CNI writes its configuration anew")
		.addHelpText(
			"after",
			`
The runtime uses the first valid file of the directory, in the order of names: that one gets the plugin as its last; a file
of one plugin becomes a list. Files are replaced at once, with their mode and all that they say. Safe to repeat. Pods that
run already need nothing; without the plugin the agent finds pods by itself, a moment later.

Examples:
  oncache cni install
  oncache cni install --watch --conf-dir /host/etc/cni/net.d --bin-dir /host/opt/cni/bin --host-bin-dir /opt/cni/bin --copy-node`,
		)
		.action((options: InstallOptions) => install(options, signal));
	withDirectories(cni.command("uninstall"))
		.description("take the plugin out of the network configuration and remove it from the node")
		.option("--cache-dir <dir>", "where the runtime keeps what pods were attached by", DEFAULT_CACHE_DIR)
		.option("--force", "remove the plugin's file even if runtimes may execute it once more for pods that run")
		.addHelpText(
			"after",
			`
The network configuration is as it was, to the byte, unless the CNI has written it anew. The plugin's file stays while pods
run that were attached with it: CRI-O and podman execute it when they remove these (containerd does not). Safe to repeat.

Examples:
  oncache cni uninstall
  oncache cni uninstall --force`,
		)
		.action(uninstall);
	withDirectories(cni.command("status"))
		.description("show whether runtimes execute the plugin for new pods")
		.option("--socket <path>", "the agent's socket", DEFAULT_SOCKET)
		.addHelpText(
			"after",
			"\nExit code 1 when they do not.\n\nExamples:\n  oncache cni status\n  oncache cni status --json",
		)
		.action(status);
	return cni;
}

function withDirectories(command: Command): Command {
	return command
		.option("--conf-dir <dir>", "directory of network configurations", DEFAULT_CNI_CONF_DIR)
		.option("--bin-dir <dir>", "directory of CNI plugins", DEFAULT_CNI_BIN_DIR)
		.option("--json", "machine-readable");
}

async function install(options: InstallOptions, signal: AbortSignal): Promise<void> {
	const { confDir, binDir, socket, watch, pluginOnly, json } = options;
	if (watch && pluginOnly) throw new UsageError("Use one of --watch and --plugin-only");
	if (options.node !== undefined && options.copyNode) throw new UsageError("Use one of --node and --copy-node");
	for (const [flag, path] of Object.entries({ socket, node: options.node, "host-bin-dir": options.hostBinDir }))
		if (path !== undefined && !path.startsWith("/"))
			throw new UsageError(`--${flag} "${path}" is not an absolute path`);
	if (!isDirectory(binDir))
		throw new Failure(`Cannot install: there is no directory "${binDir}"; name the node's with --bin-dir`);
	const entry: Entry = { type: "oncache-cni", ...(socket !== DEFAULT_SOCKET && { socket }), last: true };
	// Before anything is changed.
	if (!watch && !pluginOnly && !readNetworks(confDir).active) addPlugin(confDir, entry);
	const copied = await installProgram(options);
	const tell = ({ file, what }: Change): void => {
		if (json) printJson({ file, what, plugin: pluginPath(binDir), copied });
		else console.log(what === "unchanged" ? `"${file}" has the plugin already` : `Added to "${file}"`);
	};
	if (pluginOnly) {
		if (json) printJson({ file: null, what: null, plugin: pluginPath(binDir), copied });
		else console.log(copied ? `Copied to "${pluginPath(binDir)}"` : `"${pluginPath(binDir)}" is there already`);
		return;
	}
	if (!watch) return tell(addPlugin(confDir, entry));
	followNetworks({
		...{ confDir, binDir, entry, signal },
		onChange: tell,
		onProblem: (why) => void process.stderr.write(`oncache: ${why}\n`),
	});
	if (!signal.aborted) await once(signal, "abort");
}

/** @returns whether there was anything to do. @throws {Failure} where the node could not execute the plugin */
async function installProgram({ binDir, node, hostBinDir, ...options }: InstallOptions): Promise<boolean> {
	const interpreter = options.copyNode ? nodePath(hostBinDir ?? binDir) : (node ?? process.execPath);
	const newNode = options.copyNode ? stageNode(binDir) : undefined;
	const newPlugin = stagePlugin({ binDir, node: interpreter });
	const plugin = newPlugin?.path ?? pluginPath(binDir);
	// Where the interpreter is not there yet, or has another path in this container, the two are tried one by the other.
	const runner = options.copyNode
		? [newNode?.path ?? nodePath(binDir)]
		: hostBinDir === undefined
			? []
			: [process.execPath];
	const argv = [...runner, plugin];
	const { code, stdout, stderr } = await run(["env", "-i", "CNI_COMMAND=VERSION", ...argv], { anyCode: true });
	if (code !== 0 || !stdout.includes("supportedVersions")) {
		for (const staged of [newNode, newPlugin]) staged?.discard();
		throw new Failure(
			`Cannot install: the plugin does not run with "${runner[0] ?? interpreter}" (${(stderr || stdout).trim() || `exit code ${code}`}); name a Node >= 20 with --node, or use --copy-node. Nothing was changed`,
		);
	}
	for (const staged of [newNode, newPlugin]) staged?.commit();
	rmSync(leavingMark(binDir), { force: true });
	return newNode !== undefined || newPlugin !== undefined;
}

function uninstall({
	confDir,
	binDir,
	json,
	cacheDir,
	force,
}: Directories & { cacheDir: string; force?: boolean }): void {
	const mark = leavingMark(binDir);
	if (isDirectory(binDir)) writeFileSync(mark, "");
	const files = new Set(removePlugin(confDir).map(({ file }) => file));
	const needed = force ? [] : cachedAttachments(cacheDir);
	const removed = needed.length > 0 ? [] : removeProgram(binDir);
	// An agent or "install --watch" may have added it just before it saw the mark.
	for (const { file } of removePlugin(confDir)) files.add(file);
	if (needed.length === 0) rmSync(mark, { force: true });
	if (json) {
		printJson({ files: [...files], removed, neededBy: needed });
		return;
	}
	for (const file of files) console.log(`Taken out of "${file}"`);
	for (const file of removed) console.log(`Removed: "${file}"`);
	if (needed.length > 0)
		console.log(
			`"${pluginPath(binDir)}" stays: ${needed.length} attachments were made with it; repeat this when their pods have gone, or use --force`,
		);
	else if (files.size + removed.length === 0) console.log("There was nothing to remove");
}

async function status({ confDir, binDir, socket, json }: Directories & { socket: string }): Promise<void> {
	const { active, invalid } = readNetworks(confDir);
	const program = programState(binDir);
	const isIn = (active?.list.own.length ?? 0) > 0;
	const isLast = active?.list.types.at(-1) === "oncache-cni";
	const agent = await agentRequest<{ ready: boolean }>(socket, "GET", "/v1/cni/ready").then(
		({ ready }) => (ready ? "ready" : "not ready"),
		(error: Error) => error.message,
	);
	const installed = isIn && program !== "absent";
	if (!installed) process.exitCode = 1;
	if (json) {
		printJson({
			installed,
			file: active?.path ?? null,
			network: active?.list.name ?? null,
			plugins: active?.list.types ?? [],
			plugin: { path: pluginPath(binDir), state: program },
			agent,
			invalid,
		});
		return;
	}
	console.log(installed ? "installed" : "not installed");
	console.log(
		active
			? `  network "${active.list.name}" of "${active.path}": ${active.list.types.join(", ")}${isIn && !isLast ? " (it should be the last)" : ""}`
			: `  there is no valid network configuration in "${confDir}"`,
	);
	for (const { path, why } of invalid) console.log(`  "${path}" is not valid: ${why}`);
	console.log(`  plugin "${pluginPath(binDir)}": ${program}`);
	console.log(`  agent at "${socket}": ${agent}`);
}

const isDirectory = (path: string): boolean => existsSync(path) && statSync(path).isDirectory();
