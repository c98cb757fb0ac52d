// What the agent says over its socket, and what the commands print with --json. Types and paths only.
import type { Lesson, Reason } from "../datapath/layout.js";

export const DEFAULT_SOCKET = "/run/oncache/agent.sock";
/** In a container the host's bpffs is mounted somewhere else. */
export const DEFAULT_BPFFS = process.env.ONCACHE_BPFFS || "/sys/fs/bpf/oncache";
/** Where container runtimes look for network configurations, and for the plugins that these name. */
export const DEFAULT_CNI_CONF_DIR = "/etc/cni/net.d";
export const DEFAULT_CNI_BIN_DIR = "/opt/cni/bin";
/** Beside an agent's socket: a line for each call of the CNI plugin that no agent heard of. */
export const missedFile = (socket: string): string => `${socket}.missed`;
/** One bit of skb->mark that none of the usual users has. */
export const DEFAULT_MARK = 0x1000;

/** Counts by what happened: on the fast path, or on the fallback by reason (reasons with 0 are left out). */
export interface Counts {
	fast: number;
	fallback: Partial<Record<Reason, number>>;
}

export interface CacheUse {
	entries: number;
	capacity: number;
}

export interface TunnelStatus {
	name: string;
	kind: string;
	vni: number;
	port: number;
	/** Name of the underlay device; null when none was found. */
	uplink: string | null;
	accelerated: boolean;
	/** Why not, in one sentence; null when it is. */
	why: string | null;
}

export interface PodStatus {
	/** Name of the host-side veth. */
	veth: string;
	/** Learned from traffic; null before the first lesson. IPv4 where the pod has both. */
	ip: string | null;
	/** All that were learned, IPv4 first. */
	addresses: string[];
	/** In the cluster; null: not known. */
	pod: PodName | null;
	attached: boolean;
	/** Why not, in one sentence; null when it is. */
	why: string | null;
}

/** A pod as the API server names it. */
export interface PodName {
	namespace: string;
	name: string;
}

export interface Status {
	state: "accelerating" | "degraded" | "off";
	/** Why it is in that state, one sentence each. */
	why: string[];
	version: string;
	kernel: string;
	agent: { running: boolean; pid: number | null; startedAt: string | null };
	attach: "tcx" | "clsact" | null;
	markMode: "metadata" | "dscp" | null;
	learning: boolean;
	using: boolean;
	maxStalenessMs: number | null;
	tunnels: TunnelStatus[];
	pods: PodStatus[];
	caches: { filter: CacheUse; egress: CacheUse; ingress: CacheUse };
	packets: { egress: Counts; ingress: Counts };
	bytes: { egress: Counts; ingress: Counts };
	/** How the caches follow the kernel; null when no agent does. */
	coherency: CoherencyStatus | null;
	/** What the CNI plugin has told; null when no agent runs. */
	cni: CniStatus | null;
	/** Which network this node has, as far as it can be told. */
	network: NetworkStatus;
	/** What the API server says, and since when it has said nothing; null: not in a cluster, or no agent asks. */
	kubernetes: KubernetesStatus | null;
	/** What became of marked packets. */
	lessons: { egress: Partial<Record<Lesson, number>>; ingress: Partial<Record<Lesson, number>> };
}

export interface NetworkStatus {
	/** "Flannel", "Calico", "Canal", "Antrea", "Cilium" ..., with its distribution in brackets; "unknown". */
	name: string;
	/** By what it was told. */
	evidence: string[];
	/** What ONCache does with it, one sentence. */
	plan: string;
	/** It is not touched at all: `plan` says why. */
	refused: boolean;
}

/** Nothing that is accelerated depends on it. */
export interface KubernetesStatus {
	/** Its URL; null: not known yet. */
	server: string | null;
	/** This node's name. */
	node: string;
	/** Whether all pods are known by name and wish, or this node's and those that say by label that they are opted out. */
	pods: "cluster" | "node";
	/** Everything was read completely once. */
	synced: boolean;
	/** Since the server was last heard of the source that it was heard of longest ago, ms; null: never. */
	ageMs: number | null;
	/** One sentence each. */
	problems: string[];
	/** Addresses of pods that are left to the overlay. */
	optedOut: number;
	sources: {
		name: string;
		objects: number;
		synced: boolean;
		ageMs: number | null;
		/** Complete readings, and times that watching began. */
		lists: number;
		watches: number;
		problem: string | null;
	}[];
}

export interface CoherencyStatus {
	/** Times that the agent looked at devices or caches. */
	rounds: number;
	/** Entries evicted because the kernel would do something else. */
	evicted: number;
	/** Evictions of everything: the ruleset changed. */
	flushes: number;
	/** Flows that went with their connection tracking entry, since the caches were made. */
	forgotten: number;
	/** Programs and pins of ours that somebody else had removed. */
	repaired: number;
	/** Times that the kernel dropped notifications. */
	overruns: number;
	/** Comparisons of everything with the kernel, and what they found; null where `verifyIntervalMs` does not ask for them. */
	verified: { runs: number; differences: number } | null;
	/** Users that hold learning paused now (oncache apply). */
	leases: number;
}

export interface VerdictStatus {
	/** "usable": fresh and current; "stale": not confirmed in time; "void": flushed, or its host or pod is gone; "none": never learned. */
	state: "usable" | "stale" | "void" | "none";
	/** Since the fallback last confirmed it, ms; null when never. */
	ageMs: number | null;
}

export interface FlowStatus {
	protocol: "tcp" | "udp" | "icmp";
	/** The pod on this host. */
	local: { ip: string; port: number };
	remote: { ip: string; port: number };
	veth: string | null;
	/** In the cluster; null: not known. */
	localPod: PodName | null;
	remotePod: PodName | null;
	/** Remote host, outer address. */
	host: string | null;
	/** Its name in the cluster; null: not known. */
	node: string | null;
	/** Where it goes when that is another pod of this host. */
	peerVeth: string | null;
	/** What this host translates the addresses to, or from (a Service, a masquerade): that end is listed too. */
	translated: { local: { ip: string; port: number }; remote: { ip: string; port: number } } | null;
	egress: VerdictStatus;
	ingress: VerdictStatus;
	/** On the fast path; null when not counted (configuration: countFlows). */
	packets: { egress: number; ingress: number } | null;
}

export interface FlowList {
	/** Entries that match, also those beyond the limit. */
	total: number;
	flows: FlowStatus[];
}

export interface FlowSelector {
	protocol: "tcp" | "udp" | "icmp";
	/** Either end may be the pod of this host. Ports: of ICMP echo, the identifier on the side that asks, else 0. */
	a: { ip: string; port: number };
	b: { ip: string; port: number };
}

/** Exactly one member is set. */
export interface FlushRequest {
	/** Every flow of it; it may live on this host or on another. */
	pod?: string;
	/** Every flow to it, by its outer address. */
	host?: string;
	flow?: FlowSelector;
	all?: boolean;
}

/** What was evicted. */
export interface FlushResult {
	/** Cached pods, hosts; all flows that refer to them are void from this moment. */
	pods: number;
	hosts: number;
	/** Flows evicted one by one. */
	flows: number;
	all: boolean;
}

/** What `oncache verify` prints. */
export interface VerifyResult {
	/** Entries that are in use now. */
	checked: { hosts: number; pods: number; flows: number };
	/** Entries that the kernel would not decide like this now. */
	differences: { cache: "egress" | "ingress" | "filter"; entry: string; why: string }[];
}

/** Pauses learning and then evicts; the change comes after the answer. */
export interface LeaseRequest {
	/** 100..60000; the pause ends so long after the last renewal. */
	ttlMs: number;
	evict: FlushRequest[];
}

export interface Lease {
	id: string;
	ttlMs: number;
	evicted: FlushResult[];
}

/** Absent members stay as they are. */
export interface PauseRequest {
	learning?: boolean;
	using?: boolean;
}

/** What the CNI plugin tells of a pod. Network, container and interface name it (CNI specification, section 3). */
export interface CniRequest {
	network: string;
	containerId: string;
	/** Inside the container. */
	ifname: string;
	/** Path of the network namespace, as the runtime sees it; null where there is none any more. */
	netns: string | null;
	/** Devices outside the container that were made for it. */
	hostDevices: string[];
	addresses: string[];
	/** No other plugin will change the pod's devices. */
	last: boolean;
	/** As Kubernetes calls it; null where it did not say. */
	pod: PodName | null;
}

/** What became of it. */
export interface CniAnswer {
	/** The pod's device on the host; null where none was found. */
	veth: string | null;
	attached: boolean;
	/** Why not, in one sentence; null when it is. */
	why: string | null;
}

export interface CniGcRequest {
	network: string;
	/** All others of the network are gone. */
	valid: { containerId: string; ifname: string }[];
}

/** Of the CNI plugin. */
export interface CniStatus {
	/** Pods that it has announced and not withdrawn. */
	attachments: number;
	/** Calls since the agent started. */
	adds: number;
	dels: number;
	checks: number;
	gcs: number;
	/** ADD and CHECK that did not end in acceleration, whatever the reason. */
	notAttached: number;
	/** Calls that the agent failed at. */
	failed: number;
	/** Calls that no agent heard of, since the host was booted, and what the last one said. */
	missed: number;
	lastMissed: string | null;
}

/** Any failed request: HTTP status 4xx/5xx with this body. */
export interface ApiError {
	error: { code: string; message: string };
}

/*
 * GET  /livez  /readyz                 200 or 503, text
 * GET  /metrics                        Prometheus' text format
 * GET  /v1/status                      Status
 * GET  /v1/flows?pod=&peer=&limit=     FlowList
 * POST /v1/flush                       FlushRequest -> FlushResult
 * POST /v1/leases                      LeaseRequest -> Lease
 * POST /v1/leases/renew                { id, ttlMs } -> { held }; false: it had ended
 * POST /v1/leases/release              { id } -> { held }
 * GET  /v1/cni/ready                   { ready }
 * POST /v1/cni/add  /v1/cni/check      CniRequest -> CniAnswer: attached when it answers, or the reason why not
 * POST /v1/cni/del                     CniRequest -> CniAnswer: nothing of the pod is cached when it answers
 * POST /v1/cni/gc                      CniGcRequest -> { removed }
 * POST /v1/pause  /v1/resume           PauseRequest -> { learning, using } (body absent or {}: both)
 */
