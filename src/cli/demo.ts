// `oncache demo`, which is what `npm start` runs: two hosts, real traffic, with and without ONCache.
import { once } from "node:events";
import { resolve } from "node:path";
import { Command } from "commander";
import type { BenchResult } from "../bench/bench.js";
import { runBench } from "../bench/bench.js";
import { TITLES } from "../bench/measure.js";
import { WORLD_NAMES, type Worlds } from "../bench/worlds.js";
import { inNetns } from "../lab/command.js";
import { requireOncache, writeRaw } from "./bench.js";
import { barsText, LEGEND, meaning, scenarioText } from "./bench-report.js";
import { formatMs, painter, progress } from "./output.js";
import type { CommandContext } from "./program.js";

const SCENARIOS = ["tcp-rr", "udp-rr", "tcp-stream", "udp-stream"];
/** Two minutes and a bit. */
const ROUNDS = 5;
const RAW_FILE = "oncache-demo.json";

export function demoCommand({ signal }: CommandContext): Command {
	return new Command("demo")
		.description("two hosts, real traffic, with and without ONCache, in three minutes")
		.option("--keep", "leave the hosts and agents up until Ctrl-C, and say how to play with them")
		.option("--quick", "one round only: to see that it works, not how fast it is")
		.option("--json <file>", "where to write the raw data", RAW_FILE)
		.action(async (options: { keep?: boolean; quick?: boolean; json: string }) => {
			const paint = painter(process.stdout);
			const line = progress();
			const say = (text: string): void => {
				line.done();
				console.log(text);
			};
			say(
				`${paint("bold", "ONCache")}: an overlay network that remembers what it decided.\n` +
					"Two hosts as network namespaces with a VXLAN overlay as Flannel sets it up, and the same again with ONCache.\n",
			);
			const rounds = options.quick ? 1 : ROUNDS;
			const settings = { name: "demo", scenarios: SCENARIOS, worlds: WORLD_NAMES, rounds, seconds: 1, flows: 1 };
			const result = await runBench(settings, {
				signal,
				progress: line.update,
				onPing: (meanMs) => {
					const times = WORLD_NAMES.map((name) => `${TITLES[name]} ${formatMs(meanMs[name])}`);
					say(`Ping from end to end: ${times.join(", ")}\n`);
				},
				onScenario: (scenario) => say(`${scenarioText(scenario, paint)}\n`),
				beforeClose: async (measured, worlds) => {
					say(summary(measured, options.json));
					if (options.keep) await keep(worlds, signal, say);
				},
			}).finally(() => line.done());
			requireOncache(result);
			say(options.keep ? "Everything is removed." : `Everything is removed. ${NEXT}`);
		});

	function summary(result: BenchResult, file: string): string {
		const paint = painter(process.stdout);
		writeRaw(file, result);
		return [
			...result.scenarios.map((scenario) => `${barsText(scenario, paint)}\n`),
			LEGEND,
			"",
			paint("bold", meaning(result.scenarios)),
			`The raw data of every round: ${resolve(file)}`,
		].join("\n");
	}
}

const NEXT =
	"Next: npm start -- --keep leaves it up to play with; ./bin/oncache bench measures longer and more;\n" +
	"./bin/oncache agent accelerates a real host's overlay.";

async function keep(worlds: Worlds, signal: AbortSignal, say: (text: string) => void): Promise<void> {
	say(playText(worlds));
	if (!signal.aborted) await once(signal, "abort");
}

/** Commands as they can be pasted into another terminal. */
function playText({ accelerated, oncache, overlay }: Worlds): string {
	const program = resolve(process.argv[1] ?? "bin/oncache");
	const [first] = accelerated.hosts;
	if (first === undefined) return "";
	const { server } = oncache;
	const onHost = (...args: string[]): string => inNetns(first.netns, args).join(" ");
	const agent = ["--socket", first.socket, "--bpffs", first.bpffs];
	const lines: [string, string][] = [
		["what is accelerated, and what was counted", onHost(program, "status", ...agent)],
		["the cached flows", onHost(program, "flows", ...agent)],
		["forget everything; it is learned again at once", onHost(program, "flush", "--all", ...agent)],
		[
			"stop using the cache, and go on",
			`${onHost(program, "pause", ...agent)}; ${onHost(program, "resume", ...agent)}`,
		],
		["pod to pod with ONCache", inNetns(oncache.client.netns, ["ping", "-c", "5", server.ip]).join(" ")],
		[
			"a stream from pod to pod with ONCache",
			`${inNetns(server.netns, ["iperf3", "-s", "-1", "-D"]).join(" ")}; sleep 1; ` +
				inNetns(oncache.client.netns, ["iperf3", "-c", server.ip]).join(" "),
		],
		["pod to pod without ONCache", inNetns(overlay.client.netns, ["ping", "-c", "5", overlay.server.ip]).join(" ")],
		["a shell in a pod", inNetns(oncache.client.netns, ["bash"]).join(" ")],
		[
			"the tunnel device hardly counts packets while a warm flow runs",
			onHost("ip", "-s", "link", "show", first.tunnel),
		],
	];
	const body = lines.map(([what, command]) => `# ${what}\n${command}`).join("\n");
	return `\nThe hosts and agents stay up until Ctrl-C. To play with, in another terminal, as root:\n\n${body}\n`;
}
