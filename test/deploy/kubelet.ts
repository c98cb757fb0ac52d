// What kubelet does with a pod of a rendered manifest: its fields become the CRI's. Refuses what it does not know, so that nothing of
// the manifest is left out silently.
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout } from "node:timers/promises";
import { z } from "zod";
import type { LabNode } from "../../src/lab/node.js";
import { patiently } from "../../src/lab/patience.js";
import type { ContainerSpec, Cri, Pod } from "../runtime/cri.js";
import type { Manifest } from "./helm.js";

const PODS = "/var/lib/kubelet/pods";
const LIMIT_MS = patiently(60_000);
const POLL_MS = 50;

const securityContext = z.strictObject({
	runAsUser: z.number().optional(),
	runAsGroup: z.number().optional(),
	runAsNonRoot: z.boolean().optional(),
	privileged: z.boolean().default(false),
	allowPrivilegeEscalation: z.boolean().optional(),
	readOnlyRootFilesystem: z.boolean().default(false),
	capabilities: z
		.strictObject({ add: z.array(z.string()).default([]), drop: z.array(z.string()).default([]) })
		.prefault({}),
	seccompProfile: z.strictObject({ type: z.enum(["RuntimeDefault", "Unconfined"]) }).optional(),
});
const probe = z.strictObject({
	httpGet: z.strictObject({ host: z.string().optional(), port: z.number(), path: z.string() }),
	periodSeconds: z.number(),
	timeoutSeconds: z.number().optional(),
	failureThreshold: z.number().optional(),
});
const container = z.strictObject({
	name: z.string(),
	image: z.string(),
	imagePullPolicy: z.literal("IfNotPresent"),
	command: z.array(z.string()).optional(),
	args: z.array(z.string()).optional(),
	env: z
		.array(
			z.strictObject({
				name: z.string(),
				value: z.string().optional(),
				valueFrom: z.strictObject({ fieldRef: z.strictObject({ fieldPath: z.literal("spec.nodeName") }) }).optional(),
			}),
		)
		.default([]),
	ports: z.array(z.unknown()).optional(),
	securityContext,
	startupProbe: probe.optional(),
	readinessProbe: probe.optional(),
	livenessProbe: probe.optional(),
	resources: z.unknown().optional(),
	volumeMounts: z
		.array(
			z.strictObject({
				name: z.string(),
				mountPath: z.string(),
				readOnly: z.boolean().default(false),
				mountPropagation: z.enum(["None", "HostToContainer", "Bidirectional"]).default("None"),
			}),
		)
		.default([]),
});
const volume = z.union([
	z.strictObject({
		name: z.string(),
		hostPath: z.strictObject({ path: z.string(), type: z.enum(["Directory", "DirectoryOrCreate", "FileOrCreate"]) }),
	}),
	z.strictObject({ name: z.string(), configMap: z.strictObject({ name: z.string() }) }),
]);
const podSpec = z.strictObject({
	hostNetwork: z.literal(true),
	dnsPolicy: z.string().optional(),
	serviceAccountName: z.string().optional(),
	automountServiceAccountToken: z.boolean(),
	priorityClassName: z.string(),
	terminationGracePeriodSeconds: z.number(),
	nodeSelector: z.unknown().optional(),
	tolerations: z.unknown().optional(),
	initContainers: z.array(container).default([]),
	containers: z.tuple([container]),
	volumes: z.array(volume),
});
type PodSpec = z.infer<typeof podSpec>;
type ContainerManifest = z.infer<typeof container>;

export interface RunningDaemon {
	pod: Pod;
	/** As the kubelet does: SIGTERM, and after the pod's grace SIGKILL; then the pod is removed. */
	remove(): Promise<void>;
	exec(...argv: string[]): Promise<{ stdout: string; stderr: string; code: number }>;
	log(container?: string): string;
}

/** The pod of a DaemonSet on a node, when its init containers have ended well and it is ready. There is no service account's token. */
export async function startDaemon(
	cri: Cri,
	node: LabNode,
	name: string,
	{ daemonSet, others }: { daemonSet: Manifest; others: readonly Manifest[] },
): Promise<RunningDaemon> {
	const { template } = daemonSet.spec as { template: { spec: unknown } };
	const spec = podSpec.parse(template.spec);
	const pod = await cri.createPod({
		name,
		namespace: daemonSet.metadata.namespace ?? "default",
		hostNetwork: spec.hostNetwork,
		privileged: [...spec.initContainers, ...spec.containers].some(({ securityContext }) => securityContext.privileged),
	});
	const daemon: RunningDaemon = {
		pod,
		remove: async () => {
			for (const each of pod.containers.slice(-1)) await cri.stopContainer(each, spec.terminationGracePeriodSeconds);
			await cri.removePod(pod);
		},
		exec: (...argv) => cri.exec(pod.containers.at(-1) as Pod["containers"][0], argv),
		log: (container) => {
			const { log } =
				pod.containers.find((each) => each.name === container) ?? (pod.containers.at(-1) as { log: string });
			return readFileSync(log, "utf8");
		},
	};
	try {
		const sources = await mountVolumes(node, name, spec, others);
		for (const each of spec.initContainers) {
			const started = await cri.startContainer(pod, toCri(each, sources, node.host.name));
			const code = await until(`"${each.name}" ends`, () => cri.exitCode(started));
			if (code !== 0) throw new Error(`Init container "${each.name}" ended with ${code}: ${daemon.log(each.name)}`);
		}
		const [main] = spec.containers;
		const started = await cri.startContainer(pod, toCri(main, sources, node.host.name));
		await until(`"${main.name}" is ready`, async () => {
			const code = await cri.exitCode(started);
			if (code !== undefined) throw new Error(`"${main.name}" ended with ${code}: ${daemon.log()}`);
			return (await answers(node, main.startupProbe)) && (await answers(node, main.readinessProbe)) ? true : undefined;
		});
		if (!(await answers(node, main.livenessProbe))) throw new Error(`"${main.name}" is ready, and not alive`);
		return daemon;
	} catch (error) {
		await cri.removePod(pod);
		throw error;
	}
}

/** @returns where on the node each volume is */
async function mountVolumes(
	node: LabNode,
	name: string,
	{ volumes }: PodSpec,
	others: readonly Manifest[],
): Promise<Record<string, string>> {
	const sources: Record<string, string> = {};
	for (const each of volumes) {
		if ("hostPath" in each) {
			const { path, type } = each.hostPath;
			if (type === "DirectoryOrCreate") await node.run(["mkdir", "-p", path]);
			if (type === "FileOrCreate") await node.run(["touch", path]);
			await node.run(["test", type === "FileOrCreate" ? "-f" : "-d", path]);
			sources[each.name] = path;
			continue;
		}
		const configMap = others.find(
			({ kind, metadata }) => kind === "ConfigMap" && metadata.name === each.configMap.name,
		) as { data: Record<string, string> } | undefined;
		if (!configMap) throw new Error(`There is no ConfigMap "${each.configMap.name}"`);
		const dir = join(PODS, name, each.name);
		mkdirSync(node.path(dir), { recursive: true });
		for (const [file, content] of Object.entries(configMap.data)) writeFileSync(node.path(join(dir, file)), content);
		sources[each.name] = dir;
	}
	return sources;
}

function toCri(manifest: ContainerManifest, sources: Record<string, string>, nodeName: string): ContainerSpec {
	const { securityContext: context, volumeMounts } = manifest;
	if (context.runAsNonRoot && !context.runAsUser) throw new Error(`"${manifest.name}" would run as root`);
	return {
		name: manifest.name,
		image: manifest.image,
		...(manifest.command && { command: manifest.command }),
		...(manifest.args && { args: manifest.args }),
		env: Object.fromEntries(manifest.env.map(({ name, value }) => [name, value ?? nodeName])),
		mounts: volumeMounts.map(({ name, mountPath, readOnly, mountPropagation }) => {
			const hostPath = sources[name];
			if (hostPath === undefined) throw new Error(`"${manifest.name}" mounts a volume "${name}" that there is not`);
			return { hostPath, containerPath: mountPath, readonly: readOnly, propagation: mountPropagation };
		}),
		privileged: context.privileged,
		capabilities: context.capabilities,
		readonlyRootfs: context.readOnlyRootFilesystem,
		noNewPrivileges: context.allowPrivilegeEscalation === false,
		...(context.runAsUser !== undefined && { runAsUser: context.runAsUser }),
		...(context.runAsGroup !== undefined && { runAsGroup: context.runAsGroup }),
		seccomp: context.seccompProfile?.type ?? "Unconfined",
	};
}

/** From the node's network, as the kubelet asks. */
async function answers(node: LabNode, asked: z.infer<typeof probe> | undefined): Promise<boolean> {
	if (!asked) return true;
	const { host = node.host.ip, port, path } = asked.httpGet;
	const script = "fetch(process.argv[1]).then((answer) => process.exit(answer.ok ? 0 : 1), () => process.exit(1))";
	const url = `http://${host}:${port}${path}`;
	return (await node.run([process.execPath, "-e", script, url], { anyCode: true })).code === 0;
}

async function until<Value>(what: string, look: () => Promise<Value | undefined>): Promise<Value> {
	for (const deadline = performance.now() + LIMIT_MS; ; await setTimeout(POLL_MS)) {
		const value = await look();
		if (value !== undefined) return value;
		if (performance.now() > deadline) throw new Error(`Not within ${LIMIT_MS} ms: ${what}`);
	}
}
