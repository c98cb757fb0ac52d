// What the agent says over its socket, and what the commands print with --json. Types and paths only.
import type { Lesson, Reason } from "../datapath/layout.js";

export const DEFAULT_SOCKET = "/run/oncache/agent.sock";
export const DEFAULT_BPFFS = "/sys/fs/bpf/oncache";
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
	/** Learned from traffic; null before the first lesson. */
	ip: string | null;
	attached: boolean;
	/** Why not, in one sentence; null when it is. */
	why: string | null;
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
	/** What became of marked packets. */
	lessons: { egress: Partial<Record<Lesson, number>>; ingress: Partial<Record<Lesson, number>> };
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
	/** Remote host, outer address. */
	host: string | null;
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

/** Exactly one member is set. */
export interface FlushRequest {
	pod?: string;
	host?: string;
	all?: boolean;
}

/** What was evicted. */
export interface FlushResult {
	/** Cached pods, hosts; all flows that refer to them are void from this moment. */
	pods: number;
	hosts: number;
	all: boolean;
}

/** Absent members stay as they are. */
export interface PauseRequest {
	learning?: boolean;
	using?: boolean;
}

/** Any failed request: HTTP status 4xx/5xx with this body. */
export interface ApiError {
	error: { code: string; message: string };
}

/*
 * GET  /livez  /readyz                 200 or 503, text
 * GET  /v1/status                      Status
 * GET  /v1/flows?pod=&peer=&limit=     FlowList
 * POST /v1/flush                       FlushRequest -> FlushResult
 * POST /v1/pause  /v1/resume           PauseRequest -> { learning, using } (body absent or {}: both)
 */
