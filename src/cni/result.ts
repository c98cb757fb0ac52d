// Results of ADD in the three forms that they have had (CNI specification, "Success"): read, and put into another form. Pure.
import { isObject } from "./configuration.js";
import { CniCode, CniError } from "./error.js";
import { isAtLeast, isVersion, type Version } from "./version.js";

/** As it was given: keys that nobody here knows stay. */
export type Result = Record<string, unknown>;

/** "ip4", "ip6" of one address each; then lists, each address with its IP version; then without. */
type Form = "0.2.0" | "0.4.0" | "1.0.0";

const formOf = (version: Version): Form =>
	isAtLeast(version, "1.0.0") ? "1.0.0" : isAtLeast(version, "0.3.0") ? "0.4.0" : "0.2.0";

/** What a result says about a pod; parts that are not as they should be are left out. */
export interface Made {
	/** Names of devices that are not in the container. */
	hostDevices: string[];
	/** Without prefix length. */
	addresses: string[];
}

export function readResult(result: Result): Made {
	const interfaces = listOf(result.interfaces);
	const texts = [
		...listOf(result.ips).map(({ address }) => address),
		...[result.ip4, result.ip6].map((each) => (isObject(each) ? each.ip : undefined)),
	];
	return {
		hostDevices: interfaces.flatMap(({ name, sandbox }) =>
			typeof name === "string" && name !== "" && (sandbox === undefined || sandbox === "") ? [name] : [],
		),
		addresses: texts.flatMap((text) => (typeof text === "string" ? [text.split("/", 1)[0] as string] : [])),
	};
}

/**
 * The same result for a runtime that speaks `version`. One that has the right form already is not touched, but for its
 * version: that is what a plugin is asked to answer.
 * @throws {CniError} 7 where the older form cannot say it: it needs an address
 */
export function inVersion(result: Result, version: Version): Result {
	const from = formIn(result, version);
	const to = formOf(version);
	if (from === to) return { ...result, cniVersion: version };
	const lists = from === "0.2.0" ? toLists(result) : result;
	if (to === "0.2.0") return { cniVersion: version, ...toSingles(lists) };
	const ips = listOf(lists.ips).map(({ version: _, ...ip }) =>
		to === "0.4.0" ? { version: familyOf(ip.address), ...ip } : ip,
	);
	return { ...lists, cniVersion: version, ips };
}

/** By its own version; one that has none is in the form of the configuration, unless it is visibly the oldest. */
function formIn(result: Result, version: Version): Form {
	const { cniVersion } = result;
	if (typeof cniVersion === "string" && isVersion(cniVersion)) return formOf(cniVersion);
	return result.ip4 !== undefined || result.ip6 !== undefined ? "0.2.0" : formOf(version);
}

function toLists({ ip4, ip6, dns }: Result): Result {
	const both = [ip4, ip6].filter(isObject);
	return {
		ips: both.map(({ ip, gateway }) => ({ address: ip, ...(gateway !== undefined && { gateway }) })),
		routes: both.flatMap(({ routes }) => listOf(routes)),
		...(dns !== undefined && { dns }),
	};
}

function toSingles({ ips, routes, dns }: Result): Result {
	const single = (family: "4" | "6"): Record<string, unknown> | undefined => {
		const first = listOf(ips).find(({ address }) => familyOf(address) === family);
		const own = listOf(routes).filter(({ dst }) => familyOf(dst) === family);
		return (
			first && {
				ip: first.address,
				...(first.gateway !== undefined && { gateway: first.gateway }),
				...(own.length > 0 && { routes: own.map(({ dst, gw }) => ({ dst, ...(gw !== undefined && { gw }) })) }),
			}
		);
	};
	const [ip4, ip6] = [single("4"), single("6")];
	if (!ip4 && !ip6)
		throw new CniError(
			CniCode.invalidConfig,
			"Invalid network configuration",
			"The previous result has no address, and CNI versions before 0.3.0 cannot say that",
		);
	return { ...(ip4 && { ip4 }), ...(ip6 && { ip6 }), ...(dns !== undefined && { dns }) };
}

const familyOf = (text: unknown): "4" | "6" => (typeof text === "string" && text.includes(":") ? "6" : "4");

function listOf(value: unknown): Record<string, unknown>[] {
	return Array.isArray(value) ? value.filter(isObject) : [];
}
