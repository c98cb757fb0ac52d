// Debian's archive through apt-get, beside the system's own packages: a private configuration, nothing is ever installed.
import { mkdirSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { CommandError, run } from "../../src/lab/command.js";
import type { Series } from "./series.js";

const KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg";
/** Follows the newest kernel of a suite by its dependency. */
const LATEST = "linux-image-amd64";
/** What a kernel consists of; Debian's 7.x is split. */
const PARTS = /^linux-(image|binary|modules|base)-\d/;

/** The series is not in Debian any more: nobody's fault, and no reason to fail. */
export class GoneError extends Error {
	override readonly name = "GoneError";
}

export interface Downloaded {
	/** As `uname -r` says. */
	release: string;
	suite: string;
	/** Of the Debian package. */
	version: string;
	debs: string[];
}

/** @throws GoneError when no suite has a kernel of this series */
export async function download(series: Series, dir: string, signal: AbortSignal): Promise<Downloaded> {
	const found: string[] = [];
	const mirror = await findMirror(signal);
	for (const suite of series.suites) {
		const result = await fromSuite(series, { suite, mirror, dir: join(dir, suite), signal });
		if (typeof result !== "string") return result;
		found.push(result);
	}
	throw new GoneError(`Debian has no Linux ${series.name} any more: ${found.join("; ")}`);
}

/** Where this machine gets Debian's packages from. */
async function findMirror(signal: AbortSignal): Promise<string> {
	const { stdout } = await run(["apt-get", "update", "--print-uris"], { signal });
	const [, mirror] = /'(\S+\/debian)\/dists\/[^/]+\/InRelease'/.exec(stdout) ?? [];
	if (mirror) return mirror;
	throw new Error("Cannot find Debian's archive among the sources of apt-get: add Debian to /etc/apt/sources.list");
}

interface Place {
	suite: string;
	mirror: string;
	dir: string;
	signal: AbortSignal;
}

/** @returns what was downloaded, or why there is nothing */
async function fromSuite(series: Series, { suite, mirror, dir, signal }: Place): Promise<Downloaded | string> {
	const debs = join(dir, "debs");
	for (const folder of ["lists/partial", "cache/archives/partial", "debs"])
		mkdirSync(join(dir, folder), { recursive: true });
	writeFileSync(join(dir, "sources.list"), `deb [arch=amd64 signed-by=${KEYRING}] ${mirror} ${suite} main\n`);
	writeFileSync(join(dir, "status"), "");
	const options = Object.entries({
		"Dir::Etc::sourcelist": join(dir, "sources.list"),
		"Dir::Etc::sourceparts": "-",
		"Dir::Etc::preferences": "-",
		"Dir::Etc::preferencesparts": "-",
		"Dir::State::lists": join(dir, "lists"),
		"Dir::State::status": join(dir, "status"),
		"Dir::Cache": join(dir, "cache"),
		"APT::Architecture": "amd64",
		"APT::Sandbox::User": "root",
		"APT::Update::Error-Mode": "any",
		"Acquire::Languages": "none",
		"Acquire::Retries": "2",
	}).flatMap(([name, value]) => ["-o", `${name}=${value}`]);
	try {
		await run(["apt-get", ...options, "-q", "update"], { signal });
	} catch (error) {
		if (error instanceof CommandError && /does not have a Release file/.test(error.finished.stderr))
			return `${suite} is not in the archive`;
		throw new Error(`Cannot ask Debian's archive for Linux ${series.name}: ${(error as Error).message}`);
	}
	const show = async (name: string): Promise<Record<string, string>> =>
		fields((await run(["apt-cache", ...options, "--no-all-versions", "show", name], { signal })).stdout);
	const latest = await show(LATEST);
	if (!series.version.test(latest.Version ?? "")) return `${suite} has ${latest.Version ?? "none"}`;
	const image = dependencies(latest).find((name) => name.startsWith("linux-image-")) ?? "";
	const names = [image, ...dependencies(await show(image)).filter((name) => PARTS.test(name))];
	try {
		await run(["env", "-C", debs, "apt-get", ...options, "-q", "download", ...names], { signal });
	} catch (error) {
		throw new Error(`Cannot download Linux ${series.name} from Debian's archive: ${(error as Error).message}`);
	}
	for (const name of ["lists", "cache"]) rmSync(join(dir, name), { recursive: true });
	return {
		release: image.replace("linux-image-", ""),
		suite,
		version: latest.Version ?? "",
		debs: readdirSync(debs).map((name) => join(debs, name)),
	};
}

function fields(text: string): Record<string, string> {
	return Object.fromEntries(
		text.split("\n").flatMap((line) => (/^(\S+): (.*)$/.exec(line) ? [line.split(/: (.*)/)] : [])),
	);
}

/** Their names, without versions and alternatives. */
function dependencies({ Depends = "" }: Record<string, string>): string[] {
	return Depends.split(/,\s*/).map((dependency) => dependency.split(/[\s|]/)[0] ?? "");
}
