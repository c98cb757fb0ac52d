// What of the API's objects matters here, small enough to be kept for a whole cluster. Pure.
import { createHash } from "node:crypto";
import { isIP } from "node:net";
import { z } from "zod";

/** Annotation or label of a pod or namespace. */
export const ACCELERATE = "oncache.io/accelerate";

interface Named {
	uid: string;
	name: string;
	namespace: string;
}

export interface PodRecord extends Named {
	/** Of the node; "": not scheduled yet. */
	node: string;
	/** None of a pod that has ended, or that is in the host's network. */
	ips: string[];
	/** What it says itself; null: nothing. */
	accelerate: boolean | null;
	/** Of its labels: they decide which policies it is under. */
	labels: string;
}

export interface NamespaceRecord extends Named {
	accelerate: boolean | null;
	labels: string;
}

export interface NodeRecord extends Named {
	ips: string[];
}

export interface PolicyRecord extends Named {
	/** Changes with its specification. */
	generation: number;
}

const strings = z.record(z.string(), z.string()).nullish();
const metadata = z.object({
	uid: z.string().min(1),
	name: z.string().min(1),
	namespace: z.string().default(""),
	resourceVersion: z.string().optional(),
	generation: z.number().optional(),
	labels: strings,
	annotations: strings,
});
const podSchema = z.object({
	metadata,
	spec: z.object({ nodeName: z.string().default(""), hostNetwork: z.boolean().default(false) }),
	status: z
		.object({
			phase: z.string().optional(),
			podIP: z.string().optional(),
			podIPs: z.array(z.object({ ip: z.string() })).optional(),
		})
		.optional(),
});
const nodeSchema = z.object({
	metadata,
	status: z.object({ addresses: z.array(z.object({ type: z.string(), address: z.string() })).optional() }).optional(),
});
const objectSchema = z.object({ metadata });

type Metadata = z.infer<typeof metadata>;

const named = ({ uid, name, namespace }: Metadata): Named => ({ uid, name, namespace });

/** @throws when it is no pod */
export function readPod(object: unknown): PodRecord {
	const { metadata, spec, status } = podSchema.parse(object);
	const isOver = status?.phase === "Succeeded" || status?.phase === "Failed";
	const ips = status?.podIPs?.map(({ ip }) => ip) ?? (status?.podIP ? [status.podIP] : []);
	return {
		...named(metadata),
		node: spec.nodeName,
		ips: isOver || spec.hostNetwork ? [] : ips.filter((ip) => isAddress(ip)),
		accelerate: wishOf(metadata),
		labels: digest(metadata.labels),
	};
}

export function readNamespace(object: unknown): NamespaceRecord {
	const { metadata } = objectSchema.parse(object);
	return { ...named(metadata), accelerate: wishOf(metadata), labels: digest(metadata.labels) };
}

export function readNode(object: unknown): NodeRecord {
	const { metadata, status } = nodeSchema.parse(object);
	const ips = (status?.addresses ?? [])
		.filter(({ type }) => type.endsWith("IP"))
		.map(({ address }) => address)
		.filter((ip) => isAddress(ip));
	return { ...named(metadata), ips: [...new Set(ips)] };
}

export function readPolicy(object: unknown): PolicyRecord {
	const { metadata } = objectSchema.parse(object);
	return { ...named(metadata), generation: metadata.generation ?? 0 };
}

/** The annotation; else the label, by which an API server can select. */
function wishOf({ annotations, labels }: Metadata): boolean | null {
	const text = annotations?.[ACCELERATE] ?? labels?.[ACCELERATE];
	return text === "false" ? false : text === "true" ? true : null;
}

function digest(labels: Metadata["labels"]): string {
	const sorted = Object.entries(labels ?? {}).sort(([a], [b]) => (a < b ? -1 : 1));
	return createHash("sha1").update(JSON.stringify(sorted)).digest("base64").slice(0, 12);
}

/** A pod's or node's: not of one link only. */
function isAddress(text: string): boolean {
	return isIP(text) !== 0 && !text.includes("%");
}
