// Makes pods as kubelet does, by the CRI of a node's containerd (src/lab/containerd.ts):
//
//   const cri = await Cri.connect(containerd);
//   const pod = await cri.runPod({ name: "a", command: ["httpd", "-f", "-p", "8080"] });
//   await cri.exec(pod.main, ["ping", "-c", "3", other.ip]);
//   await ping(pod, other, "-c", "3");            // a pod is also a place for the tests' own tools: { netns, ip }
//   await cri.removePod(pod);
//
// Of a pod with several containers, or with ones that end first: createPod(), then startContainer() and exitCode() for each.
import { fileURLToPath } from "node:url";
import { type Client, credentials, loadPackageDefinition, type ServiceError } from "@grpc/grpc-js";
import { loadSync } from "@grpc/proto-loader";
import type { Containerd } from "../../src/lab/containerd.js";
import { BUSYBOX } from "../../src/lab/image.js";
import { patiently } from "../../src/lab/patience.js";

const PROTO = fileURLToPath(new URL("../../../test/runtime/cri.proto", import.meta.url));
const LIMIT_MS = patiently(30_000);
/** As kubelet names it in every pod; the tests call addresses. */
const NAME_SERVER = "10.96.0.10";

export interface SandboxSpec {
	name: string;
	/** Default "default". */
	namespace?: string;
	uid?: string;
	/** In the host's network namespace. */
	hostNetwork?: boolean;
	/** Sees the node's processes. */
	hostPid?: boolean;
	/** Needed where one of its containers is. */
	privileged?: boolean;
	/** By the portmap plugin. */
	ports?: { containerPort: number; hostPort: number; protocol?: "TCP" | "UDP" }[];
	labels?: Record<string, string>;
	annotations?: Record<string, string>;
}

export interface ContainerSpec {
	/** Default "main". */
	name?: string;
	/** Default: busybox. */
	image?: string;
	/** Instead of the image's entry point. */
	command?: string[];
	/** Instead of the image's command. */
	args?: string[];
	env?: Record<string, string>;
	workingDir?: string;
	/** Host paths are the node's; what does not exist there is made, a directory. */
	mounts?: Mount[];
	privileged?: boolean;
	capabilities?: { add?: string[]; drop?: string[] };
	readonlyRootfs?: boolean;
	noNewPrivileges?: boolean;
	runAsUser?: number;
	runAsGroup?: number;
	memoryBytes?: number;
	/** Default "RuntimeDefault". */
	seccomp?: "RuntimeDefault" | "Unconfined";
}

export interface Mount {
	hostPath: string;
	containerPath: string;
	readonly?: boolean;
	propagation?: "None" | "HostToContainer" | "Bidirectional";
}

export interface Pod {
	id: string;
	name: string;
	/** As CNI gave it; empty with hostNetwork. */
	ip: string;
	/** The same, in the form that the lab's pods have. */
	addresses: string[];
	/** Path of its network namespace for this process. */
	netns: string;
	containers: Container[];
}

/** With one container. */
export interface RunningPod extends Pod {
	main: Container;
}

export interface Container {
	id: string;
	name: string;
	/** Of its log, for this process. */
	log: string;
}

export interface Execution {
	stdout: string;
	stderr: string;
	code: number;
}

type Method = (
	request: object,
	options: { deadline: number },
	done: (error: ServiceError | null, answer: never) => void,
) => void;

export class Cri {
	readonly #containerd: Containerd;
	readonly #client: Client & Record<string, Method>;
	readonly #sandboxes = new Map<string, object>();

	private constructor(containerd: Containerd, client: Client & Record<string, Method>) {
		this.#containerd = containerd;
		this.#client = client;
	}

	/** Returns when runtime and network are ready. */
	static async connect(containerd: Containerd): Promise<Cri> {
		const definition = loadSync(PROTO, { keepCase: true, longs: Number, enums: String, defaults: true });
		const { runtime } = loadPackageDefinition(definition) as never as {
			runtime: { v1: { RuntimeService: new (address: string, how: object) => Client & Record<string, Method> } };
		};
		const client = new runtime.v1.RuntimeService(`unix:${containerd.socket}`, credentials.createInsecure());
		const cri = new Cri(containerd, client);
		try {
			for (const deadline = performance.now() + LIMIT_MS; ; ) {
				const conditions = await cri.conditions();
				if (Object.values(conditions).every((complaint) => complaint === "")) return cri;
				if (performance.now() > deadline) throw new Error(`The CRI is not ready: ${JSON.stringify(conditions)}`);
			}
		} catch (error) {
			cri.close();
			throw error;
		}
	}

	/** Of runtime and network, each with what it complains about. */
	async conditions(): Promise<Record<string, string>> {
		const { status } = await this.#call<{
			status: { conditions: { type: string; status: boolean; reason: string; message: string }[] };
		}>("Status", {});
		return Object.fromEntries(
			status.conditions.map((each) => [each.type, each.status ? "" : `${each.reason}: ${each.message}`]),
		);
	}

	/** Such as "containerd 1.6.20". */
	async version(): Promise<string> {
		const answer = await this.#call<{ runtime_name: string; runtime_version: string }>("Version", { version: "v1" });
		return `${answer.runtime_name} ${answer.runtime_version}`;
	}

	/** A pod with one container, which runs. A pod that cannot be completed is removed. */
	async runPod(spec: SandboxSpec & Omit<ContainerSpec, "name"> & { containerName?: string }): Promise<RunningPod> {
		const pod = await this.createPod(spec);
		try {
			const main = await this.startContainer(pod, { ...spec, name: spec.containerName ?? "main" });
			return { ...pod, main };
		} catch (error) {
			await this.removePod(pod);
			throw error;
		}
	}

	/** A pod without containers: its namespaces and network. */
	async createPod(spec: SandboxSpec): Promise<Pod> {
		const config = this.#sandboxConfig(spec);
		const { pod_sandbox_id: id } = await this.#call<{ pod_sandbox_id: string }>("RunPodSandbox", { config });
		this.#sandboxes.set(id, config);
		const { status, info } = await this.#call<{ status: { network: { ip: string } }; info: { info: string } }>(
			"PodSandboxStatus",
			{ pod_sandbox_id: id, verbose: true },
		);
		const { pid } = JSON.parse(info.info) as { pid: number };
		return {
			id,
			name: spec.name,
			ip: status.network.ip,
			addresses: [status.network.ip],
			netns: this.#containerd.node.path(`/proc/${pid}/ns/net`),
			containers: [],
		};
	}

	async startContainer(pod: Pod, spec: ContainerSpec): Promise<Container> {
		const name = spec.name ?? "main";
		for (const { hostPath } of spec.mounts ?? []) await this.#makeDirectory(hostPath);
		const sandbox = this.#sandboxes.get(pod.id) as { log_directory: string };
		const { container_id: id } = await this.#call<{ container_id: string }>("CreateContainer", {
			pod_sandbox_id: pod.id,
			config: containerConfig(name, spec, sandbox),
			sandbox_config: sandbox,
		});
		const container = { id, name, log: this.#containerd.node.path(`${sandbox.log_directory}/${name}.log`) };
		pod.containers.push(container);
		await this.#call("StartContainer", { container_id: id });
		return container;
	}

	/** @param limitMs after which the command is killed and this fails */
	async exec(container: Container, argv: readonly string[], limitMs = LIMIT_MS): Promise<Execution> {
		const answer = await this.#call<{ stdout: Buffer; stderr: Buffer; exit_code: number }>(
			"ExecSync",
			{ container_id: container.id, cmd: argv, timeout: Math.ceil(limitMs / 1000) },
			limitMs + LIMIT_MS,
		);
		return { stdout: answer.stdout.toString(), stderr: answer.stderr.toString(), code: answer.exit_code };
	}

	/** undefined while it has not ended. */
	async exitCode(container: Container): Promise<number | undefined> {
		const { status } = await this.#call<{ status: { state: string; exit_code: number } }>("ContainerStatus", {
			container_id: container.id,
		});
		return status.state === "CONTAINER_EXITED" ? status.exit_code : undefined;
	}

	/** SIGTERM, and SIGKILL after `graceS`. */
	async stopContainer(container: Container, graceS = 30): Promise<void> {
		await this.#call("StopContainer", { container_id: container.id, timeout: graceS }, graceS * 1000 + LIMIT_MS);
	}

	/** Stops it, which is when CNI takes its network, and removes it with its containers. */
	async removePod(pod: Pod): Promise<void> {
		await this.stopPod(pod);
		await this.#call("RemovePodSandbox", { pod_sandbox_id: pod.id });
		this.#sandboxes.delete(pod.id);
	}

	async stopPod(pod: Pod): Promise<void> {
		await this.#call("StopPodSandbox", { pod_sandbox_id: pod.id });
	}

	/** Names of all that the runtime knows, ready or not. */
	async pods(): Promise<string[]> {
		const { items } = await this.#call<{ items: { metadata: { name: string } }[] }>("ListPodSandbox", {});
		return items.map(({ metadata }) => metadata.name);
	}

	close(): void {
		this.#client.close();
	}

	#call<Answer>(method: string, request: object, limitMs = LIMIT_MS): Promise<Answer> {
		return new Promise((resolve, reject) => {
			this.#client[method]?.(request, { deadline: Date.now() + limitMs }, (error, answer) =>
				error
					? reject(new Error(`CRI ${method} on ${this.#containerd.node.host.name} failed: ${error.details}`))
					: resolve(answer),
			);
		});
	}

	async #makeDirectory(path: string): Promise<void> {
		await this.#containerd.node.run(["sh", "-c", '[ -e "$1" ] || mkdir -p "$1"', "sh", path]);
	}

	#sandboxConfig(spec: SandboxSpec) {
		const { name, namespace = "default", hostNetwork = false, privileged = false } = spec;
		const uid = spec.uid ?? `${name}-uid`;
		return {
			metadata: { name, uid, namespace, attempt: 0 },
			hostname: hostNetwork ? "" : name,
			log_directory: `/var/log/pods/${namespace}_${name}_${uid}`,
			dns_config: { servers: [NAME_SERVER], searches: [`${namespace}.svc.cluster.local`], options: ["ndots:5"] },
			port_mappings: (spec.ports ?? []).map(({ containerPort, hostPort, protocol = "TCP" }) => ({
				protocol,
				container_port: containerPort,
				host_port: hostPort,
			})),
			labels: {
				"io.kubernetes.pod.name": name,
				"io.kubernetes.pod.namespace": namespace,
				"io.kubernetes.pod.uid": uid,
				...spec.labels,
			},
			annotations: spec.annotations ?? {},
			linux: {
				cgroup_parent: this.#containerd.node.cgroup,
				security_context: {
					privileged,
					namespace_options: namespaces(spec),
					seccomp: { profile_type: privileged ? "Unconfined" : "RuntimeDefault" },
				},
			},
		};
	}
}

const namespaces = ({ hostNetwork, hostPid }: SandboxSpec) => ({
	network: hostNetwork ? "NODE" : "POD",
	pid: hostPid ? "NODE" : "CONTAINER",
	ipc: "POD",
});

const PROPAGATION = {
	None: "PROPAGATION_PRIVATE",
	HostToContainer: "PROPAGATION_HOST_TO_CONTAINER",
	Bidirectional: "PROPAGATION_BIDIRECTIONAL",
};

/** What kubelet gives to every container that is not privileged (pkg/securitycontext/util.go of Kubernetes). */
const MASKED_PATHS = [
	...[
		"acpi",
		"asound",
		"interrupts",
		"kcore",
		"keys",
		"latency_stats",
		"sched_debug",
		"scsi",
		"timer_list",
		"timer_stats",
	].map((name) => `/proc/${name}`),
	...["/sys/devices/virtual/powercap", "/sys/firmware"],
];
const READONLY_PATHS = ["bus", "fs", "irq", "sys", "sysrq-trigger"].map((name) => `/proc/${name}`);

function containerConfig(name: string, spec: ContainerSpec, sandbox: object) {
	const { privileged = false, runAsUser, runAsGroup, capabilities = {} } = spec;
	const { linux } = sandbox as { linux: { security_context: { namespace_options: object } } };
	return {
		metadata: { name, attempt: 0 },
		image: { image: spec.image ?? BUSYBOX },
		command: spec.command ?? [],
		args: spec.args ?? [],
		working_dir: spec.workingDir ?? "",
		envs: Object.entries(spec.env ?? {}).map(([key, value]) => ({ key, value: Buffer.from(value) })),
		mounts: (spec.mounts ?? []).map(({ hostPath, containerPath, readonly = false, propagation = "None" }) => ({
			host_path: hostPath,
			container_path: containerPath,
			readonly,
			propagation: PROPAGATION[propagation],
		})),
		labels: { "io.kubernetes.container.name": name },
		log_path: `${name}.log`,
		linux: {
			resources: { memory_limit_in_bytes: spec.memoryBytes ?? 0 },
			security_context: {
				privileged,
				capabilities: { add_capabilities: capabilities.add ?? [], drop_capabilities: capabilities.drop ?? [] },
				namespace_options: linux.security_context.namespace_options,
				readonly_rootfs: spec.readonlyRootfs ?? false,
				no_new_privs: spec.noNewPrivileges ?? false,
				...(!privileged && { masked_paths: MASKED_PATHS, readonly_paths: READONLY_PATHS }),
				...(runAsUser !== undefined && { run_as_user: { value: runAsUser } }),
				...(runAsGroup !== undefined && { run_as_group: { value: runAsGroup } }),
				seccomp: { profile_type: privileged ? "Unconfined" : (spec.seccomp ?? "RuntimeDefault") },
			},
		},
	};
}
