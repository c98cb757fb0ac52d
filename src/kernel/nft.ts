// dscp mode's rule in the fallback: connection tracking says "established" by a bit of the packet's own TOS byte.
// The one place that runs the nft program.
import { spawnSync } from "node:child_process";

const TABLE = "ip oncache";

/** TOS_MISS and TOS_ESTABLISHED of bpf/oncache.h; in the DSCP, which is the TOS byte without ECN, they are 1 and 2. */
const TOS_MISS = 0x04;
const TOS_ESTABLISHED = 0x08;
const DSCP_MISS = TOS_MISS >> 2;
const DSCP_ESTABLISHED = TOS_ESTABLISHED >> 2;
const DSCP_COUNT = 64;

/**
 * One rule for each DSCP whose mark says "miss": nft 1.0 sets a whole DSCP and corrects the IP checksum, but cannot
 * set one bit of it; "@nh,8,8 set @nh,8,8 | 0x08" can, and leaves the checksum wrong.
 */
const SET_RULES = Array.from({ length: DSCP_COUNT }, (_, dscp) => dscp)
	.filter((dscp) => (dscp & (DSCP_MISS | DSCP_ESTABLISHED)) === DSCP_MISS)
	.map((dscp) => `ip dscp ${dscp} ip dscp set ${dscp | DSCP_ESTABLISHED}`);

/** What the tunnel carries, in either direction: others may use these bits for what they like. */
const CONDITION = `@nh,8,8 & ${TOS_MISS | TOS_ESTABLISHED} == ${TOS_MISS} ct state established jump established`;
const DIRECTIONS = ["iifkind", "oifkind"] as const;

const REMOVE = `table ${TABLE}\ndelete table ${TABLE}\n`;
const TUNNEL_KINDS = ["vxlan", "geneve"];
const installing = (deviceKinds: readonly string[]): string => `${REMOVE}table ${TABLE} {
	chain established {
		${SET_RULES.join("\n\t\t")}
	}
	chain forward {
		type filter hook forward priority mangle; policy accept;
		${DIRECTIONS.map((kind) => `meta ${kind} { ${deviceKinds.join(", ")} } ${CONDITION}`).join("\n\t\t")}
	}
}
`;

/**
 * Puts the rule into the network namespace of the calling thread, at once in place of an older one.
 * @param deviceKinds of the tunnel devices
 */
export function installMarkRule(deviceKinds: readonly string[] = TUNNEL_KINDS): void {
	nft(["-f", "-"], "install the mark rule", installing(deviceKinds));
}

/** Whether the rule is there whole: "nft flush ruleset" by somebody else takes it away. */
export function hasMarkRule(): boolean {
	const result = run(["-j", "list", "table", ...TABLE.split(" ")], "look for the mark rule");
	if (result.status !== 0 && result.stderr.includes("No such file or directory")) return false;
	const { nftables } = JSON.parse(succeed(result, "look for the mark rule")) as { nftables: NftObject[] };
	return (
		nftables.some(({ chain }) => chain?.hook === "forward") &&
		nftables.filter(({ rule }) => rule !== undefined).length === SET_RULES.length + DIRECTIONS.length
	);
}

/** Harmless when there is none. */
export function removeMarkRule(): void {
	nft(["-f", "-"], "remove the mark rule", REMOVE);
}

interface NftObject {
	chain?: { hook?: string };
	rule?: object;
}

interface Result {
	status: number | null;
	stdout: string;
	stderr: string;
}

function nft(args: string[], action: string, input: string): void {
	succeed(run(args, action, input), action);
}

function run(args: string[], action: string, input = ""): Result {
	const result = spawnSync("nft", args, { input, encoding: "utf8", env: { ...process.env, LC_ALL: "C" } });
	if (result.error === undefined) return result;
	const missing = (result.error as NodeJS.ErrnoException).code === "ENOENT";
	const cause = missing ? "nft is not installed; install the package nftables" : result.error.message;
	throw new Error(`Cannot ${action} in table "${TABLE}": ${cause}`, { cause: result.error });
}

function succeed({ status, stdout, stderr }: Result, action: string): string {
	if (status !== 0)
		throw new Error(`Cannot ${action} in table "${TABLE}": ${stderr.trim() || `nft exited with ${status}`}`);
	return stdout;
}
