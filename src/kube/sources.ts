// What is read from the API server: for each source where it is, and what of its objects is kept.
import type { Query } from "./list.js";
import {
	ACCELERATE,
	type NamespaceRecord,
	type NodeRecord,
	type PodRecord,
	type PolicyRecord,
	readNamespace,
	readNode,
	readPod,
	readPolicy,
} from "./records.js";

export interface Records {
	pods: PodRecord;
	namespaces: NamespaceRecord;
	nodes: NodeRecord;
	networkpolicies: PolicyRecord;
}

export type Kind = keyof Records;
export type AnyRecord = Records[Kind];

export interface Source {
	/** Of this source: "pods", "pods of namespace x". */
	name: string;
	kind: Kind;
	path: string;
	query: Query;
	/** @throws when it is no object of this kind */
	read: (object: unknown) => AnyRecord;
}

/** "cluster": all pods; "node": those of this node, and those elsewhere that say by label that they are opted out. */
export type PodScope = "cluster" | "node";

const PODS = "/api/v1/pods";

export function sourcesFor(scope: PodScope, node: string): Source[] {
	const pods = (name: string, query: Query): Source => ({ name, kind: "pods", path: PODS, query, read: readPod });
	return [
		{ name: "namespaces", kind: "namespaces", path: "/api/v1/namespaces", query: {}, read: readNamespace },
		{ name: "nodes", kind: "nodes", path: "/api/v1/nodes", query: {}, read: readNode },
		...(scope === "cluster"
			? [pods("pods", {})]
			: [
					pods("pods", { fieldSelector: `spec.nodeName=${node}` }),
					pods("pods by label", { labelSelector: `${ACCELERATE}=false` }),
				]),
		{
			name: "networkpolicies",
			kind: "networkpolicies",
			path: "/apis/networking.k8s.io/v1/networkpolicies",
			query: {},
			read: readPolicy,
		},
	];
}

/** Scope "node": the pods of a namespace that is opted out, wherever they run. */
export function podsOfNamespace(namespace: string): Source {
	return {
		name: `pods of namespace ${namespace}`,
		kind: "pods",
		path: `/api/v1/namespaces/${encodeURIComponent(namespace)}/pods`,
		query: {},
		read: readPod,
	};
}
