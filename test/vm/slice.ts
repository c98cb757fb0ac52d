// What npm test runs in virtual machines: what differs most from kernel to kernel, within five minutes.

export interface SliceTest {
	file: string;
	/** Of the names of its tests. */
	only?: RegExp;
	/** All unless given. */
	kernels?: readonly string[];
}

export const SLICE: readonly SliceTest[] = [
	{ file: "test/kernel/verifier.test.ts" },
	{ file: "test/kernel/attach.test.ts" },
	{ file: "test/kernel/forget.test.ts" },
	{ file: "test/e2e/choice.test.ts" },
	{ file: "test/e2e/kinds.test.ts", only: /^Geneve$/, kernels: ["6.12"] },
	{ file: "test/e2e/antrea.test.ts", only: /^tunnels over VXLAN/, kernels: ["6.12"] },
];
