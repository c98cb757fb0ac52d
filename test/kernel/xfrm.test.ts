// IPsec policies as the kernel lists them.
import assert from "node:assert/strict";
import { test } from "node:test";
import { sendingPolicies } from "../../src/kernel/xfrm.js";
import { enterNetns, tool } from "./world.js";

enterNetns();

test("only policies that transform what is sent are listed, with what they select", () => {
	assert.deepEqual(sendingPolicies(), []);
	const template = ["tmpl", "proto", "esp", "mode", "transport"];
	tool(
		"ip",
		"xfrm",
		"policy",
		"add",
		"dst",
		"192.168.77.2/32",
		"proto",
		"udp",
		"dport",
		"8472",
		"dir",
		"out",
		...template,
	);
	tool("ip", "xfrm", "policy", "add", "dst", "fd00::/64", "dir", "out", ...template);
	tool("ip", "xfrm", "policy", "add", "src", "192.168.77.2/32", "dir", "in", ...template);
	tool("ip", "xfrm", "policy", "add", "dst", "192.168.77.3/32", "dir", "out", "action", "block");
	const policies = sendingPolicies().map(({ destination, ...rest }) => ({ ...rest, destination: [...destination] }));
	assert.deepEqual(
		policies.sort((a, b) => a.family - b.family),
		[
			{ family: 4, prefixLength: 32, protocol: 17, port: 8472, destination: [192, 168, 77, 2] },
			{ family: 6, prefixLength: 64, protocol: 0, port: undefined, destination: [0xfd, ...new Array(15).fill(0)] },
		],
	);
});
