// Objects as an API server has them, and the kubeconfig that leads to its double.
import { writeFileSync } from "node:fs";
import type { ApiObject } from "./api-server.js";

export interface PodSpec {
	node?: string;
	ip?: string;
	/** Further addresses. */
	ips?: string[];
	annotations?: Record<string, string>;
	labels?: Record<string, string>;
	hostNetwork?: boolean;
	phase?: string;
}

export const ACCELERATE = "oncache.io/accelerate";
export const OPTED_OUT = { [ACCELERATE]: "false" };

/** @param name "namespace/name" */
export function pod(name: string, { node = "n1", ip, ips = [], phase = "Running", ...rest }: PodSpec = {}): ApiObject {
	const [namespace = "", own = ""] = name.split("/");
	const podIPs = [...(ip === undefined ? [] : [ip]), ...ips].map((each) => ({ ip: each }));
	return {
		metadata: { namespace, name: own, labels: rest.labels ?? {}, annotations: rest.annotations ?? {} },
		spec: { nodeName: node, hostNetwork: rest.hostNetwork ?? false, containers: [{ name: "main", image: "busybox" }] },
		status: { phase, ...(ip !== undefined && { podIP: ip }), podIPs },
	};
}

export function namespace(name: string, metadata: Partial<ApiObject["metadata"]> = {}): ApiObject {
	return { metadata: { name, ...metadata } };
}

export function node(name: string, ip: string): ApiObject {
	return {
		metadata: { name },
		status: {
			addresses: [
				{ type: "InternalIP", address: ip },
				{ type: "Hostname", address: name },
			],
		},
	};
}

export function policy(name: string, generation = 1): ApiObject {
	const [namespace = "", own = ""] = name.split("/");
	return { metadata: { namespace, name: own, generation }, spec: { podSelector: {} } };
}

export function writeKubeconfig(path: string, server: string, user: { token?: string } = {}, ca?: string): void {
	// The client speaks plain HTTP only to whom it is told not to verify.
	const trust =
		ca === undefined
			? { "insecure-skip-tls-verify": true }
			: { "certificate-authority-data": Buffer.from(ca).toString("base64") };
	writeFileSync(
		path,
		JSON.stringify({
			apiVersion: "v1",
			kind: "Config",
			"current-context": "test",
			clusters: [{ name: "double", cluster: { server, ...trust } }],
			users: [{ name: "test", user }],
			contexts: [{ name: "test", context: { cluster: "double", user: "test" } }],
		}),
		{ mode: 0o600 },
	);
}
