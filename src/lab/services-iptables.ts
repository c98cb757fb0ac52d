// kube-proxy's iptables mode. A packet's way through the nat table:
//
//   PREROUTING, OUTPUT > KUBE-SERVICES > [KUBE-NODEPORTS >] [KUBE-EXT-* >] KUBE-SVC-* > KUBE-SEP-*: DNAT to a backend
//   POSTROUTING > KUBE-POSTROUTING: MASQUERADE, if KUBE-MARK-MASQ has marked it on the way
//
// Answers input of iptables-restore --noflush: one transaction, which leaves the chains of others alone.
import { type Backend, endpoint, MASQUERADE_MARK, type Service, shortHash } from "./service.js";

/** What leads into kube-proxy's chains; in front of everybody else's rules, in this order. */
const JUMPS = {
	filter: [
		'FORWARD -m conntrack --ctstate NEW -m comment --comment "kubernetes service portals" -j KUBE-SERVICES',
		'OUTPUT -m conntrack --ctstate NEW -m comment --comment "kubernetes service portals" -j KUBE-SERVICES',
		'INPUT -m conntrack --ctstate NEW -m comment --comment "kubernetes externally-visible service portals" -j KUBE-EXTERNAL-SERVICES',
		`KUBE-FORWARD -m comment --comment "kubernetes forwarding rules" -m mark --mark ${MASQUERADE_MARK}/${MASQUERADE_MARK} -j ACCEPT`,
	],
	nat: [
		'PREROUTING -m comment --comment "kubernetes service portals" -j KUBE-SERVICES',
		'OUTPUT -m comment --comment "kubernetes service portals" -j KUBE-SERVICES',
		'POSTROUTING -m comment --comment "kubernetes postrouting rules" -j KUBE-POSTROUTING',
	],
} as const;
const CHAINS = {
	filter: ["KUBE-SERVICES", "KUBE-EXTERNAL-SERVICES"],
	nat: ["KUBE-SERVICES", "KUBE-NODEPORTS", "KUBE-POSTROUTING", "KUBE-MARK-MASQ"],
} as const;

/** @param before of iptables-save: what is there already */
export function iptablesRules(services: readonly Service[], podNetwork: string, before: string): string {
	const nat = services.flatMap((service) => natRules(service, podNetwork));
	const chains = new Set(nat.map((rule) => rule.split(" ")[1] ?? "").filter((chain) => perService(chain)));
	const gone = serviceChains(before).filter((chain) => !chains.has(chain));
	const jumps = (table: keyof typeof JUMPS): string[] =>
		JUMPS[table].filter((jump) => !hasJump(before, table, jump)).map((jump) => `-I ${jump}`);
	return `*filter
${CHAINS.filter.map((chain) => `:${chain} - [0:0]`).join("\n")}
${[...services.flatMap(filterRules), ...jumps("filter")].join("\n")}
COMMIT
*nat
${[...CHAINS.nat, ...chains, ...gone].map((chain) => `:${chain} - [0:0]`).join("\n")}
-A KUBE-MARK-MASQ -j MARK --or-mark ${MASQUERADE_MARK}
-A KUBE-POSTROUTING -m mark ! --mark ${MASQUERADE_MARK}/${MASQUERADE_MARK} -j RETURN
-A KUBE-POSTROUTING -j MARK --xor-mark ${MASQUERADE_MARK}
-A KUBE-POSTROUTING -m comment --comment "kubernetes service traffic requiring SNAT" -j MASQUERADE --random-fully
${nat.join("\n")}
-A KUBE-SERVICES -m comment --comment "kubernetes service nodeports; NOTE: this must be the last rule in this chain" -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS
${[...jumps("nat"), ...gone.map((chain) => `-X ${chain}`)].join("\n")}
COMMIT
`;
}

/** Removes everything that iptablesRules() enters; empty when there is nothing. */
export function iptablesWithout(before: string): string {
	if (!before.includes("KUBE-MARK-MASQ")) return "";
	const undo = (table: keyof typeof JUMPS, chains: readonly string[]): string => `*${table}
${chains.map((chain) => `:${chain} - [0:0]`).join("\n")}
${JUMPS[table].map((jump) => `-D ${jump}`).join("\n")}
${chains.map((chain) => `-X ${chain}`).join("\n")}
COMMIT
`;
	return undo("filter", CHAINS.filter) + undo("nat", [...CHAINS.nat, ...serviceChains(before)]);
}

function natRules(service: Service, podNetwork: string): string[] {
	const { name, clusterIp, port, protocol, backends, affinitySeconds, nodePort, externalIps = [] } = service;
	if (backends.length === 0) return []; // rejected by the filter table
	const id = shortHash(name + protocol, 16);
	const [svc, ext] = [`KUBE-SVC-${id}`, `KUBE-EXT-${id}`];
	const to = (what: string, ip: string): string =>
		`-m comment --comment "${name} ${what}" -m ${protocol} -p ${protocol} -d ${ip} --dport ${port}`;
	const isExternal = nodePort !== undefined || externalIps.length > 0;
	return [
		`-A KUBE-SERVICES ${to("cluster IP", clusterIp)} -j ${svc}`,
		...externalIps.map((ip) => `-A KUBE-SERVICES ${to("external IP", ip)} -j ${ext}`),
		...(nodePort === undefined
			? []
			: [
					`-A KUBE-NODEPORTS -m comment --comment "${name}" -m ${protocol} -p ${protocol} --dport ${nodePort} -j ${ext}`,
				]),
		...(isExternal
			? [
					`-A ${ext} -m comment --comment "masquerade traffic for ${name} external destinations" -j KUBE-MARK-MASQ`,
					`-A ${ext} -j ${svc}`,
				]
			: []),
		`-A ${svc} ${to("cluster IP", clusterIp)} ! -s ${podNetwork} -j KUBE-MARK-MASQ`,
		...(affinitySeconds === undefined ? [] : backends.map((backend) => keepsTo(backend, affinitySeconds))),
		...backends.map((backend, i) => {
			const left = backends.length - i;
			const chance = left > 1 ? ` -m statistic --mode random --probability ${(1 / left).toFixed(10)}` : "";
			return `-A ${svc} ${arrow(backend)}${chance} -j ${sep(backend)}`;
		}),
		...backends.flatMap((backend) => [
			// The answer of a pod that reaches itself must come back through the host.
			`-A ${sep(backend)} -m comment --comment "${name}" -s ${backend.ip} -j KUBE-MARK-MASQ`,
			`-A ${sep(backend)} -m comment --comment "${name}"${affinitySeconds === undefined ? "" : ` -m recent --name ${sep(backend)} --set`} -m ${protocol} -p ${protocol} -j DNAT --to-destination ${endpoint(backend)}`,
		]),
	];

	function sep(backend: Backend): string {
		return `KUBE-SEP-${shortHash(name + protocol + endpoint(backend), 16)}`;
	}

	function arrow(backend: Backend): string {
		return `-m comment --comment "${name} -> ${endpoint(backend)}"`;
	}

	function keepsTo(backend: Backend, seconds: number): string {
		return `-A ${svc} ${arrow(backend)} -m recent --name ${sep(backend)} --rcheck --seconds ${seconds} --reap -j ${sep(backend)}`;
	}
}

/** Nobody answers for a service without backends: its clients are told. */
function filterRules({ name, clusterIp, port, protocol, backends, nodePort, externalIps = [] }: Service): string[] {
	if (backends.length > 0) return [];
	const start = `-m comment --comment "${name} has no endpoints" -m ${protocol} -p ${protocol}`;
	return [
		`-A KUBE-SERVICES ${start} -d ${clusterIp} --dport ${port} -j REJECT`,
		...externalIps.map((ip) => `-A KUBE-EXTERNAL-SERVICES ${start} -d ${ip} --dport ${port} -j REJECT`),
		...(nodePort === undefined
			? []
			: [`-A KUBE-EXTERNAL-SERVICES ${start} -m addrtype --dst-type LOCAL --dport ${nodePort} -j REJECT`]),
	];
}

const perService = (chain: string): boolean => /^KUBE-(SVC|SEP|EXT)-/.test(chain);

function serviceChains(saved: string): string[] {
	return [...saved.matchAll(/^:(\S+)/gm)].map(([, chain]) => chain ?? "").filter(perService);
}

/** By chain and target, whose comments iptables-save writes its own way. */
function hasJump(saved: string, table: string, jump: string): boolean {
	const [chain] = jump.split(" ");
	const target = jump.slice(jump.lastIndexOf("-j "));
	const [, rules = ""] = saved.split(new RegExp(`^\\*${table}$`, "m"));
	return rules
		.slice(0, rules.indexOf("\nCOMMIT"))
		.split("\n")
		.some(
			(line) =>
				line.startsWith(`-A ${chain} `) && line.endsWith(target) && line.includes("--mark") === jump.includes("--mark"),
		);
}
