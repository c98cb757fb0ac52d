// What lies in deploy/ and is made from other files: the schema of the chart's values, with the agent's own configuration in it, and
// the manifests for kubectl, as the chart renders them with its defaults.
import { readFileSync, realpathSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { stringify } from "yaml";
import { configJsonSchema } from "../../src/agent/config.js";
import { CHART, type Manifest, render } from "./helm.js";

/** The chart sets them itself. */
const BY_CHART = ["socket", "bpffs", "metricsAddress", "nodeName", "cni", "cniConfDir", "cniBinDir", "ovsRunDir"];
const HOOK = "helm.sh/hook";
const MANAGER = "app.kubernetes.io/managed-by";

const INSTALL = `# ONCache for a cluster, without Helm: kubectl apply -f oncache.yaml
# Rendered from helm/oncache with its default values by "npm run generate". Set the images to where your cluster pulls them from.
# Removing it from all nodes: see oncache-uninstall.yaml.
`;
const UNINSTALL = `# Removes every trace of ONCache from all nodes. Rendered from helm/oncache by "npm run generate".
#   kubectl delete -f oncache.yaml
#   kubectl apply -f oncache-uninstall.yaml
#   kubectl -n kube-system rollout status daemonset/oncache-uninstall
#   kubectl delete -f oncache-uninstall.yaml
`;

/** Text by file, relative to the project's folder. */
export async function generated(): Promise<Record<string, string>> {
	// The schema comes first: Helm reads it.
	const manifests = await render();
	const isHook = ({ metadata }: Manifest): boolean => metadata.annotations?.[HOOK] !== undefined;
	return {
		"deploy/helm/oncache/values.schema.json": schemaText(),
		"deploy/oncache.yaml": INSTALL + text(manifests.filter((manifest) => !isHook(manifest))),
		"deploy/oncache-uninstall.yaml":
			UNINSTALL + text(manifests.filter((manifest) => isHook(manifest) && manifest.kind === "DaemonSet")),
	};
}

function schemaText(): string {
	const path = `${CHART}/values.schema.json`;
	const schema = JSON.parse(readFileSync(path, "utf8")) as { properties: { config: object } };
	const { description } = schema.properties.config as { description: string };
	const { properties, ...rest } = configJsonSchema();
	for (const key of BY_CHART) delete properties[key];
	schema.properties.config = { description, ...rest, properties };
	return `${JSON.stringify(schema, null, "\t")}\n`;
}

function text(manifests: readonly Manifest[]): string {
	return manifests.map((manifest) => stringify(withoutHelm(manifest), { lineWidth: 0 })).join("---\n");
}

/** Without what only Helm reads. */
function withoutHelm<Value>(value: Value): Value {
	if (Array.isArray(value)) return value.map(withoutHelm) as Value;
	if (typeof value !== "object" || value === null) return value;
	const entries = Object.entries(value)
		.filter(([key]) => !key.startsWith("helm.sh/") && key !== MANAGER)
		.map(([key, inner]) => [key, withoutHelm(inner)] as const)
		.filter(([key, inner]) => !(key === "annotations" && Object.keys(inner as object).length === 0));
	return Object.fromEntries(entries) as Value;
}

if (realpathSync(process.argv[1] ?? "") === fileURLToPath(import.meta.url)) {
	const root = fileURLToPath(new URL("../../..", import.meta.url));
	writeFileSync(`${CHART}/values.schema.json`, schemaText());
	for (const [file, content] of Object.entries(await generated())) writeFileSync(`${root}${file}`, content);
}
