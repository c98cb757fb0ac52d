// oncache await-daemonset: what the chart's uninstallation waits with.
import { Command, InvalidArgumentError } from "commander";
import { findAccess } from "../kube/access.js";
import { awaitDaemonSet } from "../kube/daemonset.js";
import { UsageError } from "./errors.js";
import type { CommandContext } from "./program.js";

export function awaitDaemonSetCommand({ signal }: CommandContext): Command {
	return new Command("await-daemonset")
		.description("wait until a DaemonSet's pods are ready on every node")
		.argument("<name>", "of the DaemonSet")
		.option("--namespace <name>", "its namespace", "kube-system")
		.option("--timeout <seconds>", "after which it fails, and names the nodes", secondsArgument, 180)
		.option("--kubeconfig <file>", "default: the pod's service account, else $KUBECONFIG", "auto")
		.addHelpText(
			"after",
			`
The Helm chart's uninstallation waits with it until every node is clean.

Examples:
  oncache await-daemonset oncache-uninstall
  oncache await-daemonset oncache-uninstall --namespace net --timeout 60 --kubeconfig ~/.kube/config`,
		)
		.action(async (name: string, { namespace, timeout, kubeconfig }: Options) => {
			const access = findAccess(kubeconfig);
			if (!access) throw new UsageError("This is no pod, and $KUBECONFIG is not set: name a file with --kubeconfig");
			const onProgress = (ready: number, nodes: number): void => console.log(`ready on ${ready} of ${nodes} nodes`);
			await awaitDaemonSet(access, { namespace, name, timeoutMs: timeout * 1000, onProgress, signal });
		});
}

interface Options {
	namespace: string;
	timeout: number;
	kubeconfig: string;
}

function secondsArgument(text: string): number {
	const seconds = Number(text);
	if (!Number.isInteger(seconds) || seconds < 1 || seconds > 86_400)
		throw new InvalidArgumentError("Expected a whole number from 1 to 86400.");
	return seconds;
}
