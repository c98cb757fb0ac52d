// oncache agent: runs in the network namespace it is started in, until it is told to end.
import { Command } from "commander";
import pino, { type Logger } from "pino";
import { prepareHost, runAgent } from "../agent/agent.js";
import { DEFAULT_CNI_CONF_DIR, DEFAULT_SOCKET } from "../agent/api.js";
import { type Config, type ConfigFlags, loadConfig } from "../agent/config.js";
import { type FollowOptions, followNetworks } from "../cni/follow.js";
import { findAccess } from "../kube/access.js";
import type { CommandContext } from "./program.js";
import { programVersion } from "./version.js";

export function agentCommand({ signal }: CommandContext): Command {
	return new Command("agent")
		.description("accelerate this network namespace's overlay, and keep up with its changes")
		.option("--config <file>", "configuration file, YAML (default: /etc/oncache/config.yaml, if there is one)")
		.option("--socket <path>", "socket of its API (default: /run/oncache/agent.sock)")
		.option("--bpffs <dir>", "pin directory (default: /sys/fs/bpf/oncache)")
		.option("--log-level <level>", "trace, debug, info, warn or error (default: info)")
		.option("--attach <way>", "auto, tcx or clsact (default: auto)")
		.option("--mark-mode <mode>", "auto, metadata or dscp (default: auto)")
		.option("--mark <bit>", "bit of skb->mark (default: 0x1000)")
		.option("--max-staleness-ms <ms>", "how long a decision may be used unconfirmed (default: 2000)")
		.option("--verify-interval-ms <ms>", "compare everything cached with the kernel so often (default: 0, never)")
		.option("--count-flows", "count packets per flow")
		.option("--cache-filter <n>", "flows to remember, or auto: by memory (default: auto)")
		.option("--cache-filter6 <n>", "likewise over IPv6 (default: auto, a quarter of those over IPv4)")
		.option("--cache-egress <n>", "remote hosts to remember (default: 4096)")
		.option("--cache-ingress <n>", "local pods to remember (default: 1024)")
		.option("--tunnels <names>", "tunnel devices, with commas, or auto (default: auto)")
		.option("--exclude-interfaces <names>", "veths to leave alone; * and ? allowed")
		.option("--cni", "keep the CNI plugin in the node's network configuration (oncache cni install copies it there)")
		.option("--cni-bin-dir <dir>", "directory of CNI plugins (default: /opt/cni/bin)")
		.option("--ovs-run-dir <dir>", "where Open vSwitch's sockets are, or auto (default: auto)")
		.option("--ovs-bridge <name>", "its bridge that the pods are on, or auto (default: auto)")
		.option("--ovs-table <table>", "dscp mode: its table where ct_state is known, or auto (default: auto)")
		.option("--ovs-zone <zone>", "its connection tracking zone, or auto (default: auto)")
		.option("--ovs-zone6 <zone>", "its zone for IPv6, or auto (default: auto)")
		.option("--kubernetes <how>", "auto, off, or a kubeconfig file (default: auto: as a pod's service account)")
		.option("--kubernetes-pods <which>", "cluster or node: which pods are watched (default: cluster)")
		.option("--node-name <name>", "of this node in the cluster (default: $NODE_NAME, else the host's name)")
		.option("--metrics-address <address>", "probes and metrics over TCP as well, such as 0.0.0.0:9469 (default: off)")
		.option("--cni-conf-dir <dir>", "where the CNI's configuration is, or auto (default: auto)")
		.option("--check", "check the configuration and end")
		.addHelpText(
			"after",
			`
It needs no configuration. Ended by SIGTERM or Ctrl-C it leaves the fast path running; "oncache detach" removes it.

Examples:
  oncache agent
  oncache agent --log-level debug --max-staleness-ms 500
  nsenter --net=/run/netns/host1 oncache agent --socket /run/host1.sock --bpffs /sys/fs/bpf/host1`,
		)
		.action(async ({ config: file, check, ...flags }: ConfigFlags & { config?: string; check?: boolean }) => {
			const config = loadConfig({ file, flags });
			findAccess(config.kubernetes);
			if (check) {
				console.log("The configuration is right");
				return;
			}
			const loading = await prepareHost(config);
			const log = pino({ level: config.logLevel }, pino.destination({ dest: 2, sync: true }));
			if (config.cni) followNetworks(cniOptions(config, log, signal));
			await runAgent({ config, version: programVersion(), log, signal, loading });
		});
}

function cniOptions({ cniConfDir, cniBinDir, socket }: Config, log: Logger, signal: AbortSignal): FollowOptions {
	return {
		confDir: cniConfDir === "auto" ? DEFAULT_CNI_CONF_DIR : cniConfDir,
		binDir: cniBinDir,
		entry: { type: "oncache-cni", ...(socket !== DEFAULT_SOCKET && { socket }), last: true },
		signal,
		onChange: (change) => log.info(change, "CNI plugin"),
		onProblem: (why) => log.warn(why),
	};
}
