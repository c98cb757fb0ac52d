// The test files that npm test runs in virtual machines: what differs most from kernel to kernel, within five minutes.
export const SLICE: readonly string[] = [
	"test/kernel/verifier.test.ts",
	"test/kernel/attach.test.ts",
	"test/kernel/forget.test.ts",
	"test/e2e/choice.test.ts",
];
