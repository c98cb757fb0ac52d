// What firewalls and policy routing do with skb->mark, as their own tools tell it.
import { spawnSync } from "node:child_process";

/** Every place in the nftables ruleset (iptables-nft included) and the policy routing rules that handles these mark bits. */
export function usersOfMark(mark: number): string[] {
	return [...nftUsers(mark), ...routingUsers(mark)];
}

/** True: some rule of this network namespace looks at connection tracking. */
export function usesConntrack(): boolean | undefined {
	const ruleset = output(["nft", "list", "ruleset"]);
	return ruleset === undefined
		? undefined
		: /\bct |xt match "conntrack"|ctstate|masquerade|\bdnat\b|\bsnat\b/i.test(ruleset);
}

function nftUsers(mark: number): string[] {
	const lines = (output(["nft", "list", "ruleset"]) ?? "").split("\n");
	return lines
		.filter((line) => /\bmark\b/.test(line) && touches(line, mark))
		.map((line) => `nftables rule: ${line.trim()}`);
}

function routingUsers(mark: number): string[] {
	const rules = JSON.parse(output(["ip", "-j", "rule", "list"]) ?? "[]") as {
		fwmark?: string;
		fwmask?: string;
		priority: number;
	}[];
	return rules
		.filter(
			({ fwmark, fwmask }) =>
				fwmark !== undefined && (Number(fwmask ?? 0xffffffff) & mark) !== 0 && fwmask !== undefined,
		)
		.map(({ priority, fwmark }) => `policy routing rule ${priority} (fwmark ${fwmark})`);
}

/** A number in the line has a bit of the mark, and is not a mask of everything. */
function touches(line: string, mark: number): boolean {
	const numbers = [...line.matchAll(/0x([0-9a-f]{1,8})\b/gi)].map(([, digits]) => Number.parseInt(digits ?? "0", 16));
	return numbers.some(
		(number) => (number & mark) !== 0 && ((~number >>> 0) & (number - 1)) !== 0 && number >>> 31 === 0,
	);
}

/** Undefined when the tool is missing or refuses. */
function output([file = "", ...args]: string[]): string | undefined {
	const { status, stdout } = spawnSync(file, args, { encoding: "utf8", maxBuffer: 1 << 28 });
	return status === 0 ? stdout : undefined;
}
