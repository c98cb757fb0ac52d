// The bits of skb->mark that others on a Kubernetes host use, and what is left.

const OWNERS = [
	{ owner: "the AWS VPC CNI", bits: 0x80 },
	{ owner: "Cilium", bits: 0x0f00 },
	{ owner: "the CNI plugin portmap", bits: 0x2000 },
	{ owner: "kube-proxy", bits: 0x4000 | 0x8000 },
	{ owner: "Calico", bits: 0xffff0000 },
	{ owner: "Istio (mark 1337)", bits: 1337 },
];
const FREE = "0x2, 0x4, 0x40, 0x1000";

/** What is allowed instead of this mark, and why; undefined when it is free. */
export function problemOfMark(mark: number): string | undefined {
	if (mark <= 0 || mark > 0x80000000 || !Number.isInteger(Math.log2(mark))) return `a single bit: ${FREE}`;
	const taken = OWNERS.find(({ bits }) => (mark & bits) !== 0);
	return taken && `${FREE} (this bit belongs to ${taken.owner})`;
}
