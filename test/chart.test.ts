// The Helm chart: what the real Helm makes of it is right by Kubernetes' own schemas, wrong values are refused, and what is generated is current.
import assert from "node:assert/strict";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, describe, test } from "node:test";
import { fileURLToPath } from "node:url";
import { dumpYaml, loadYaml } from "@kubernetes/client-node";
import * as monitoring from "@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1";
import * as apps from "kubernetes-models/apps/v1";
import * as batch from "kubernetes-models/batch/v1";
import * as rbac from "kubernetes-models/rbac.authorization.k8s.io/v1";
import * as core from "kubernetes-models/v1";
import { parse, stringify } from "yaml";
import { DEFAULT_CONFIG, loadConfig } from "../src/agent/config.js";
import { generated } from "./deploy/generate.js";
import { CHART, helm, type Manifest, render, whyNoHelm } from "./deploy/helm.js";

const root = fileURLToPath(new URL("../..", import.meta.url));
const folder = mkdtempSync(join(tmpdir(), "oncache-chart-"));
after(() => rmSync(folder, { recursive: true }));

const MODELS: Record<string, object> = {
	v1: core,
	"apps/v1": apps,
	"batch/v1": batch,
	"rbac.authorization.k8s.io/v1": rbac,
	"monitoring.coreos.com/v1": monitoring,
};

const EVERYTHING = [
	...["--set", "cni.install=true,bpffs.mount=true,ovs.runDir=/var/run/antrea/openvswitch"],
	...["--set", "metrics.host=0.0.0.0,metrics.podMonitor.enabled=true,metrics.serviceMonitor.enabled=true"],
	...["--set", "metrics.dashboard.enabled=true,appArmorProfile.type=Unconfined,imagePullSecrets[0].name=mine"],
	...["--set", "podLabels.a=b,podAnnotations.c=d,nodeSelector.e=f,serviceAccount.annotations.g=h"],
	...["--set", "config.logLevel=debug,config.maxStalenessMs=500,config.cache.filter=4096,config.tunnels={flannel.1}"],
];

describe("the chart", { skip: whyNoHelm }, () => {
	test("is right for helm lint --strict", async () => {
		const { code, stdout, stderr } = await helm("lint", "--strict", CHART);
		assert.equal(code, 0, stdout + stderr);
	});

	for (const [what, options] of [
		["default values", []],
		["everything switched on", EVERYTHING],
		[
			"everything switched off",
			["--set", "rbac.create=false,serviceAccount.create=false,uninstall.clean=false,config.kubernetes=off"],
		],
	] as const)
		test(`with ${what} renders manifests that are right by Kubernetes' schemas`, async () => {
			const manifests = await render(...options);
			assert.ok(manifests.some(({ kind }) => kind === "DaemonSet"));
			for (const manifest of manifests) validate(manifest);
		});

	test("has manifests that a wrong field would not pass", async () => {
		const [daemonSet] = (await render()).filter(({ kind }) => kind === "DaemonSet");
		const broken = structuredClone(daemonSet) as Manifest & { spec: { template: { spec: Record<string, unknown> } } };
		broken.spec.template.spec.hostNetwork = "yes";
		assert.throws(() => validate(broken), /hostNetwork must be boolean/);
		broken.spec.template.spec.hostNetwork = true;
		broken.spec.template.spec.hostNetworks = true;
		assert.throws(() => validate(broken), /hostNetworks/);
	});

	test("has a configuration that the agent takes", async () => {
		const [configMap] = (await render(...EVERYTHING)).filter(({ kind }) => kind === "ConfigMap");
		const file = join(folder, "config.yaml");
		writeFileSync(file, (configMap as Manifest & { data: Record<string, string> }).data["config.yaml"] ?? "");
		const config = loadConfig({ file });
		assert.equal(config.logLevel, "debug");
		assert.deepEqual(config.cache, { ...DEFAULT_CONFIG.cache, filter: 4096 });
		assert.equal(config.ovsRunDir, "/var/run/antrea/openvswitch");
	});

	for (const [set, complaint] of [
		["metrics.port=70000", /metrics\/port/],
		["image.repository=", /image\/repository/],
		["capabilities.sysadmin=true", /sysadmin/],
		["uninstall.timeoutSeconds=1", /timeoutSeconds/],
		["config.maxStalenessMs=1", /maxStalenessMs/],
		["config.nothing=1", /nothing/],
		["config.bpffs=/sys/fs/bpf/other", /bpffs/],
		["config.cache.filter=3", /filter/],
		["cni.confDir=relative", /confDir/],
		["ovs.runDir=relative", /runDir/],
		["tolerations=none", /tolerations/],
		["seccompProfile.type=Strict", /seccompProfile/],
		["metrics.podMonitor.enabled=true", /need metrics\.host to be an address that Prometheus reaches/],
	] as const)
		test(`refuses --set ${set}`, async () => {
			await assert.rejects(render("--set", set), complaint);
		});

	test("tells after the installation what to look at", async () => {
		const { stdout } = await helm("install", "oncache", CHART, "--dry-run=client", "--namespace", "kube-system");
		assert.match(stdout, /exec daemonset\/oncache -- oncache status/);
	});

	test("asks for no more rights than the agent needs: docs/KUBERNETES.md", async () => {
		const rights = /```yaml\n(apiVersion: rbac[\s\S]*?)```/.exec(
			readFileSync(`${root}docs/KUBERNETES.md`, "utf8"),
		)?.[1];
		const [role] = (await render()).filter(({ kind }) => kind === "ClusterRole");
		assert.deepEqual(role?.rules, parse(rights ?? "").rules);
	});

	test("is what the generated files are made from", async () => {
		for (const [file, content] of Object.entries(await generated()))
			assert.equal(readFileSync(root + file, "utf8"), content, `${file} is not current: npm run generate`);
	});

	test("documents every value", () => {
		const values = parse(readFileSync(`${CHART}/values.yaml`, "utf8")) as object;
		const readme = readFileSync(`${CHART}/README.md`, "utf8");
		for (const name of leaves(values)) assert.ok(readme.includes(`\`${name}\``), `${name} is not in README.md`);
	});
});

/** @throws Error naming each field that is missing, of another type, or unknown */
function validate(manifest: Manifest): void {
	const models = MODELS[manifest.apiVersion] as Record<string, new (data: object) => { validate(): void }> | undefined;
	const Model = models?.[manifest.kind];
	if (!Model) throw new Error(`There is no schema of ${manifest.apiVersion} ${manifest.kind}`);
	new Model(manifest).validate();
	// Those schemas allow what they do not name; the official client leaves it out.
	assert.deepEqual(parse(dumpYaml(loadYaml(stringify(manifest)))), manifest);
}

/** "image.tag"; what is empty by default counts as one value. */
function leaves(value: object, path = ""): string[] {
	return Object.entries(value).flatMap(([key, inner]) => {
		const isTree =
			typeof inner === "object" && inner !== null && !Array.isArray(inner) && Object.keys(inner).length > 0;
		return isTree && !/requests|limits|rollingUpdate|seccompProfile|labels/.test(key)
			? leaves(inner, `${path}${key}.`)
			: [path + key];
	});
}
