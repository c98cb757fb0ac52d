// What a lab consists of: names and addresses, all derived from its specification. Pure.
import { formatIpv4, type Ipv4, parseIpv4 } from "../net/ipv4.js";

export interface LabSpec {
	/** [a-z0-9-], at most 12 characters. */
	name: string;
	/** 2..16 */
	hosts: number;
	/** Per host, 1..100. */
	pods: number;
	/** 1..16777215 */
	vni: number;
	/** Outer UDP destination port. */
	port: number;
}

export interface LabPod {
	/** Such as "h1p1". */
	name: string;
	/** Path of its network namespace. */
	netns: string;
	ip: string;
	mac: string;
	/** Host-side veth. */
	veth: string;
}

export interface LabHost {
	/** Such as "h1". */
	name: string;
	netns: string;
	/** Underlay address. */
	ip: string;
	uplink: string;
	/** MAC of the uplink. */
	mac: string;
	tunnel: string;
	tunnelMac: string;
	podCidr: string;
	/** Of the bridge: the pods' gateway. */
	gateway: string;
	pods: LabPod[];
	/** Of the agent that may run there. */
	socket: string;
	bpffs: string;
}

export interface Lab {
	spec: LabSpec;
	hosts: LabHost[];
	/** Network namespace of the bridge that joins more than two hosts. */
	fabric: string | undefined;
}

export const DEFAULT_SPEC: LabSpec = { name: "lab", hosts: 2, pods: 2, vni: 1, port: 8472 };
export const POD_NETWORK = "10.244.0.0/16";
export const UPLINK_MTU = 1500;
/** Outer IPv4, UDP, VXLAN and inner Ethernet headers. */
export const POD_MTU = UPLINK_MTU - 50;
export const RUN_DIR = "/run/oncache";
const NETNS_DIR = "/run/netns";

/** @throws RangeError naming the value and what is allowed */
export function checkSpec(spec: LabSpec): void {
	if (!/^[a-z0-9-]{1,12}$/.test(spec.name))
		throw new RangeError(`Lab name "${spec.name}" is not allowed: use 1 to 12 of a-z, 0-9 and "-"`);
	const within = (what: string, value: number, low: number, high: number): void => {
		if (!Number.isInteger(value) || value < low || value > high)
			throw new RangeError(`${what} "${value}" is not allowed: use a whole number from ${low} to ${high}`);
	};
	within("Number of hosts", spec.hosts, 2, 16);
	within("Number of pods per host", spec.pods, 1, 100);
	within("VNI", spec.vni, 1, 0xffffff);
	within("UDP port", spec.port, 1, 65535);
}

export const runDir = (name: string): string => `${RUN_DIR}/lab-${name}`;
/** Every namespace of a lab begins like this. */
export const prefix = (name: string): string => `oc-${name}-`;

export function labOf(spec: LabSpec): Lab {
	const netns = (suffix: string): string => `${NETNS_DIR}/${prefix(spec.name)}${suffix}`;
	const hosts = Array.from({ length: spec.hosts }, (_, i) => {
		const number = i + 1;
		const name = `h${number}`;
		const pods = Array.from({ length: spec.pods }, (_, j) => ({
			name: `${name}p${j + 1}`,
			netns: netns(`${name}p${j + 1}`),
			ip: address(`10.244.${number}.0`, j + 2),
			mac: macOf(0x58, number, j + 1),
			veth: `veth${number.toString(16).padStart(2, "0")}${(j + 1).toString(16).padStart(4, "0")}`,
		}));
		return {
			name,
			netns: netns(name),
			ip: address("192.168.77.0", number),
			uplink: "eth0",
			mac: macOf(0x10, number, 0),
			tunnel: `flannel.${spec.vni}`,
			tunnelMac: macOf(0x20, number, 0),
			podCidr: `10.244.${number}.0/24`,
			gateway: `10.244.${number}.1`,
			pods,
			socket: `${runDir(spec.name)}/${name}.sock`,
			bpffs: `/sys/fs/bpf/oncache-lab-${spec.name}/${name}`,
		};
	});
	return { spec, hosts, fabric: spec.hosts > 2 ? netns("fabric") : undefined };
}

/** Locally administered; 0x58 and the like only tell a reader what it belongs to. */
export function macOf(kind: number, host: number, pod: number): string {
	return [0x0a, kind, 0xf4, 0, host, pod].map((byte) => byte.toString(16).padStart(2, "0")).join(":");
}

function address(base: string, offset: number): string {
	return formatIpv4((parseIpv4(base) + offset) as Ipv4);
}
