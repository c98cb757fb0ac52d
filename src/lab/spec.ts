// What a lab is to be: its parameters, what they are unless said otherwise, and which go together. Pure.

/** How a host joins its pods; "netkit" is routed too, by netkit devices (Linux >= 6.7) instead of veths. */
export const POD_NETWORKS = ["bridge", "hairpin", "routed", "ptp", "netkit"] as const;
/** Whose tunnel devices, routes and names the hosts have. */
export const OVERLAYS = ["flannel", "calico", "bridged", "geneve", "antrea"] as const;
/** Of the pods' addresses. */
export const FAMILIES = ["ipv4", "ipv6", "dual"] as const;
/** Of the outer headers; "dual" is a tunnel for each family of pods, as Flannel and Calico do it. */
export const UNDERLAYS = ["ipv4", "ipv6", "dual"] as const;
export const UPLINKS = ["veth", "macvlan", "vlan", "bond", "aliased"] as const;
/** Who tells a bridged overlay where a MAC address is: its agent, or the frames themselves. */
export const FDBS = ["static", "learning"] as const;
/** Of Open vSwitch: the kernel's module, or its own in user space. */
export const DATAPATHS = ["system", "netdev"] as const;
export const TUNNEL_TYPES = ["geneve", "vxlan"] as const;

export interface LabSpec {
	/** [a-z0-9-], at most 12 characters. */
	name: string;
	/** 2..16 */
	hosts: number;
	/** Per host, 1..100. */
	pods: number;
	/** 1..16777215; of the first tunnel device. */
	vni: number;
	/** Outer UDP destination port. */
	port: number;
	podNetwork: (typeof POD_NETWORKS)[number];
	overlay: (typeof OVERLAYS)[number];
	family: (typeof FAMILIES)[number];
	underlay: (typeof UNDERLAYS)[number];
	uplink: (typeof UPLINKS)[number];
	fdb: (typeof FDBS)[number];
	/** Two subnets: hosts of one subnet reach each other without tunnel (Flannel DirectRouting, Calico CrossSubnet). */
	direct: boolean;
	/** In the outer UDP header. */
	udpChecksum: boolean;
	/** Tunnel devices per host, 1..4; each pair of hosts uses one of them. */
	tunnels: number;
	/** Of Antrea's Open vSwitch. */
	datapath: (typeof DATAPATHS)[number];
	/** Of Antrea. */
	tunnelType: (typeof TUNNEL_TYPES)[number];
}

export const DEFAULT_SPEC: LabSpec = {
	name: "lab",
	hosts: 2,
	pods: 2,
	vni: 1,
	port: 8472,
	podNetwork: "bridge",
	overlay: "flannel",
	family: "ipv4",
	underlay: "ipv4",
	uplink: "veth",
	fdb: "static",
	direct: false,
	udpChecksum: false,
	tunnels: 1,
	datapath: "system",
	tunnelType: "geneve",
};

/** What an overlay has where Flannel has something else. */
const DEFAULTS_OF: Record<LabSpec["overlay"], Partial<LabSpec>> = {
	flannel: {},
	calico: { vni: 4096, port: 4789, podNetwork: "routed" },
	bridged: { vni: 4097, port: 4789 },
	geneve: { port: 6081 },
	// Its tunnels are flow based: the VNI is what the flows say, which is nothing.
	antrea: { port: 6081, vni: 0 },
};

/** Each pod has a device and a route of its own. */
export const isRouted = ({ podNetwork }: Pick<LabSpec, "podNetwork">): boolean =>
	podNetwork === "routed" || podNetwork === "netkit";

/** Pods of one host are on one bridge. */
export const isBridged = ({ podNetwork }: Pick<LabSpec, "podNetwork">): boolean =>
	podNetwork === "bridge" || podNetwork === "hairpin";

/** Completes `given` by what its overlay usually has. */
export function specOf(given: Partial<LabSpec>): LabSpec {
	const vxlan = given.tunnelType === "vxlan" ? { port: 4789 } : {};
	return { ...DEFAULT_SPEC, ...DEFAULTS_OF[given.overlay ?? DEFAULT_SPEC.overlay], ...vxlan, ...given };
}

/** @throws RangeError naming the value and what is allowed */
export function checkSpec(spec: LabSpec): void {
	if (!/^[a-z0-9-]{1,12}$/.test(spec.name))
		throw new RangeError(`Lab name "${spec.name}" is not allowed: use 1 to 12 of a-z, 0-9 and "-"`);
	within("Number of hosts", spec.hosts, 2, 16);
	within("Number of pods per host", spec.pods, 1, 100);
	if (spec.overlay === "antrea") within("VNI", spec.vni, 0, 0);
	else within("VNI", spec.vni, 1, 0xffffff);
	within("UDP port", spec.port, 1, 65535);
	within("Number of tunnels", spec.tunnels, 1, 4);
	among("Pod network", spec.podNetwork, POD_NETWORKS);
	among("Overlay", spec.overlay, OVERLAYS);
	among("Family", spec.family, FAMILIES);
	among("Underlay", spec.underlay, UNDERLAYS);
	among("Uplink", spec.uplink, UPLINKS);
	among("FDB", spec.fdb, FDBS);
	among("Datapath", spec.datapath, DATAPATHS);
	among("Tunnel type", spec.tunnelType, TUNNEL_TYPES);
	for (const [isSo, why] of nonsense(spec)) if (isSo) throw new RangeError(`This lab makes no sense: ${why}`);
}

function nonsense(spec: LabSpec): [boolean, string][] {
	const { overlay, podNetwork, tunnels } = spec;
	return [
		[overlay === "calico" && !isRouted(spec), `Calico has routed pods, not pod network "${podNetwork}"`],
		[overlay === "bridged" && !isBridged(spec), `the bridged overlay needs a bridge, not pod network "${podNetwork}"`],
		[spec.fdb === "learning" && overlay !== "bridged", `overlay "${overlay}" does not learn: use --overlay bridged`],
		[spec.direct && spec.hosts < 3, "direct routes beside tunnels need 3 hosts or more"],
		[overlay === "antrea" && podNetwork !== "bridge", `Antrea's switch is its pod network, not "${podNetwork}"`],
		[overlay === "antrea" && spec.underlay !== "ipv4", `the lab's Antrea has an IPv4 underlay only`],
		[
			spec.datapath === "netdev" && (overlay !== "antrea" || spec.uplink !== "veth"),
			`datapath "netdev" is for overlay "antrea" with uplink "veth"`,
		],
		[spec.datapath === "netdev" && spec.family !== "ipv4", `the lab's switch in user space has IPv4 pods only`],
		[spec.tunnelType !== "geneve" && overlay !== "antrea", `tunnel type "${spec.tunnelType}" is for overlay "antrea"`],
		[
			spec.direct && (overlay === "bridged" || overlay === "geneve" || overlay === "antrea"),
			`overlay "${overlay}" has no direct routes`,
		],
		[
			spec.underlay === "dual" && spec.family !== "dual",
			`underlay "dual" has pods of both families: use --family dual`,
		],
		[
			spec.underlay === "dual" && overlay !== "flannel" && overlay !== "calico",
			`overlay "${overlay}" has one underlay`,
		],
		[tunnels > 1 && overlay !== "flannel", `overlay "${overlay}" does not have several tunnels: use --overlay flannel`],
		[tunnels > 1 && spec.hosts < 3, "several tunnels need 3 hosts or more, each pair uses one of them"],
		[spec.vni + tunnels - 1 > 0xffffff, `VNI "${spec.vni}" leaves no number for ${tunnels} tunnels`],
	];
}

function within(what: string, value: number, low: number, high: number): void {
	if (!Number.isInteger(value) || value < low || value > high)
		throw new RangeError(`${what} "${value}" is not allowed: use a whole number from ${low} to ${high}`);
}

function among(what: string, value: string, allowed: readonly string[]): void {
	if (!allowed.includes(value))
		throw new RangeError(
			`${what} "${value}" is not allowed: use ${allowed.slice(0, -1).join(", ")} or ${allowed.at(-1)}`,
		);
}
