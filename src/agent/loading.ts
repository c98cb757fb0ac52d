// Loading the datapath, with more rights than an agent has that runs: where connection tracking is a module, only
// CAP_SYS_ADMIN may ask for the types of its functions. What was loaded is handed over to the process without it.
import { totalmem } from "node:os";
import { Datapath, loadDatapath } from "../datapath/datapath.js";
import { BpfError } from "../datapath/error.js";
import { type Features, probeFeatures } from "../datapath/features.js";
import type { LoadedObject } from "../datapath/object.js";
import type { DatapathOptions } from "../datapath/types.js";
import { setInherited } from "../kernel/libc.js";
import { type Config, resolveSizes } from "./config.js";
import { needsZones, switchOptionsOf } from "./switch.js";
import { chooseWays, impossible, type Ways } from "./ways.js";

export interface Loading {
	features: Features;
	ways: Ways;
	object: LoadedObject;
}

const VARIABLE = "ONCACHE_LOADED";

/** @throws when the kernel lacks what was asked for */
export function loadFor(config: Config): Loading {
	const features = probeFeatures();
	const ways = chooseWays(config, features, needsZones(switchOptionsOf(config)));
	const refusal = impossible(ways, features);
	if (refusal) throw new Error(refusal);
	try {
		return { features, ways, object: loadDatapath(optionsOf(config, ways)) };
	} catch (error) {
		if (!(error instanceof BpfError && /failed to iterate BTF/.test(error.message))) throw error;
		throw new Error(
			"Cannot load the programs: finding the functions of kernel modules takes CAP_SYS_ADMIN: start the agent with it (it gives it up itself)",
		);
	}
}

export function openLoaded(config: Config, { ways, object }: Loading): Datapath {
	return Datapath.open(optionsOf(config, ways), object);
}

/** @returns variables for the environment of this process' next program */
export function handOver(loading: Loading): NodeJS.ProcessEnv {
	for (const fd of descriptors(loading)) setInherited(fd, true);
	return { [VARIABLE]: JSON.stringify(loading) };
}

/** What this process' last program has loaded. */
export function takeOver(): Loading | undefined {
	const text = process.env[VARIABLE];
	if (text === undefined) return undefined;
	delete process.env[VARIABLE];
	const loading = JSON.parse(text) as Loading;
	for (const fd of descriptors(loading)) setInherited(fd, false);
	return loading;
}

function descriptors({ object }: Loading): number[] {
	return [...Object.values(object.programs), ...Object.values(object.maps)];
}

function optionsOf(config: Config, { attach, markMode }: Ways): DatapathOptions {
	const { bpffs, mark, maxStalenessMs, countFlows } = config;
	return { bpffs, attach, markMode, mark, maxStalenessMs, countFlows, sizes: resolveSizes(config, totalmem()) };
}
