// The filter and masquerading rules that a pod's packets meet: kube-proxy's KUBE-FORWARD, and Flannel's or Calico's own.
// Answers the input of iptables-restore or ip6tables-restore.
import { type Family, GATEWAY, type LabHost, type LabSpec } from "./topology.js";

const MULTICAST = { 4: "224.0.0.0/4", 6: "ff00::/8" } as const;
/** Calico's mark: a policy or profile has accepted the packet. */
const ACCEPTED = "0x10000/0x10000";

export function rulesOf(host: LabHost, family: Family, { overlay, port }: LabSpec): string {
	const network = host.subnets.find((subnet) => subnet.family === family)?.network ?? "";
	if (overlay === "antrea")
		return antreaRules(host.subnets.find((subnet) => subnet.family === family)?.cidr ?? "", port);
	return overlay === "calico" ? calicoRules(host, network, port) : flannelRules(network, MULTICAST[family]);
}

/** What the host itself forwards from and to the switch; the policies are in the switch. */
function antreaRules(podCidr: string, port: number): string {
	return `*raw
:PREROUTING ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:ANTREA-PREROUTING - [0:0]
:ANTREA-OUTPUT - [0:0]
-A PREROUTING -m comment --comment "Antrea: jump to Antrea prerouting rules" -j ANTREA-PREROUTING
-A OUTPUT -m comment --comment "Antrea: jump to Antrea output rules" -j ANTREA-OUTPUT
-A ANTREA-PREROUTING -p udp -m comment --comment "Antrea: do not track incoming encapsulation packets" -m udp --dport ${port} -m addrtype --dst-type LOCAL -j NOTRACK
-A ANTREA-OUTPUT -p udp -m comment --comment "Antrea: do not track outgoing encapsulation packets" -m udp --dport ${port} -m addrtype --src-type LOCAL -j NOTRACK
COMMIT
*filter
:INPUT ACCEPT [0:0]
:FORWARD DROP [0:0]
:OUTPUT ACCEPT [0:0]
:KUBE-FORWARD - [0:0]
:ANTREA-FORWARD - [0:0]
-A FORWARD -m comment --comment "Antrea: jump to Antrea forwarding rules" -j ANTREA-FORWARD
-A FORWARD -m comment --comment "kubernetes forwarding rules" -j KUBE-FORWARD
${KUBE_FORWARD}
-A ANTREA-FORWARD -i ${GATEWAY} -m comment --comment "Antrea: accept packets from local Pods" -j ACCEPT
-A ANTREA-FORWARD -o ${GATEWAY} -m comment --comment "Antrea: accept packets to local Pods" -j ACCEPT
COMMIT
*nat
:PREROUTING ACCEPT [0:0]
:INPUT ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
:ANTREA-POSTROUTING - [0:0]
-A POSTROUTING -m comment --comment "Antrea: jump to Antrea postrouting rules" -j ANTREA-POSTROUTING
-A ANTREA-POSTROUTING -s ${podCidr} ! -o ${GATEWAY} -m comment --comment "Antrea: masquerade Pod to external packets" -j MASQUERADE --random-fully
COMMIT
`;
}

function flannelRules(network: string, multicast: string): string {
	return `*filter
:INPUT ACCEPT [0:0]
:FORWARD DROP [0:0]
:OUTPUT ACCEPT [0:0]
:KUBE-FORWARD - [0:0]
:FLANNEL-FWD - [0:0]
-A FORWARD -m comment --comment "kubernetes forwarding rules" -j KUBE-FORWARD
-A FORWARD -m comment --comment "flanneld forward" -j FLANNEL-FWD
${KUBE_FORWARD}
-A FLANNEL-FWD -s ${network} -m comment --comment "flanneld forward" -j ACCEPT
-A FLANNEL-FWD -d ${network} -m comment --comment "flanneld forward" -j ACCEPT
COMMIT
*nat
:PREROUTING ACCEPT [0:0]
:INPUT ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
:FLANNEL-POSTRTG - [0:0]
-A POSTROUTING -m comment --comment "flanneld masq" -j FLANNEL-POSTRTG
-A FLANNEL-POSTRTG -s ${network} -d ${network} -j RETURN
-A FLANNEL-POSTRTG -s ${network} ! -d ${multicast} -j MASQUERADE
COMMIT
`;
}

/** One chain for each direction of each pod; the profile of a namespace without policies accepts. */
function calicoRules(host: LabHost, network: string, port: number): string {
	const veths = host.pods.map(({ veth }) => veth);
	const established = (chain: string): string => `-A ${chain} -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A ${chain} -m conntrack --ctstate INVALID -j DROP
-A ${chain} -j MARK --set-xmark 0x0/0x10000`;
	const profile = (chain: string, profileChain: string): string => `-A ${chain} -j ${profileChain}
-A ${chain} -m comment --comment "Return if profile accepted" -m mark --mark ${ACCEPTED} -j RETURN
-A ${chain} -m comment --comment "Drop if no profiles matched" -j DROP`;
	return `*filter
:INPUT ACCEPT [0:0]
:FORWARD ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:KUBE-FORWARD - [0:0]
:cali-FORWARD - [0:0]
:cali-from-wl-dispatch - [0:0]
:cali-to-wl-dispatch - [0:0]
:cali-pri-kns.default - [0:0]
:cali-pro-kns.default - [0:0]
${veths.map((veth) => `:cali-fw-${veth} - [0:0]\n:cali-tw-${veth} - [0:0]`).join("\n")}
-A FORWARD -j cali-FORWARD
-A FORWARD -m comment --comment "kubernetes forwarding rules" -j KUBE-FORWARD
-A FORWARD -m comment --comment "Policy explicitly accepted packet." -m mark --mark ${ACCEPTED} -j ACCEPT
-A FORWARD -j MARK --set-xmark ${ACCEPTED}
${KUBE_FORWARD}
-A cali-FORWARD -j MARK --set-xmark 0x0/0xe0000
-A cali-FORWARD -i cali+ -j cali-from-wl-dispatch
-A cali-FORWARD -o cali+ -j cali-to-wl-dispatch
${veths.map((veth) => `-A cali-from-wl-dispatch -i ${veth} -g cali-fw-${veth}`).join("\n")}
-A cali-from-wl-dispatch -m comment --comment "Unknown interface" -j DROP
${veths.map((veth) => `-A cali-to-wl-dispatch -o ${veth} -g cali-tw-${veth}`).join("\n")}
-A cali-to-wl-dispatch -m comment --comment "Unknown interface" -j DROP
-A cali-pri-kns.default -j MARK --set-xmark ${ACCEPTED}
-A cali-pro-kns.default -j MARK --set-xmark ${ACCEPTED}
${veths
	.map(
		(veth) => `${established(`cali-fw-${veth}`)}
-A cali-fw-${veth} -p udp -m comment --comment "Drop VXLAN encapped packets originating in workloads" -m udp --dport ${port} -j DROP
${profile(`cali-fw-${veth}`, "cali-pro-kns.default")}
${established(`cali-tw-${veth}`)}
${profile(`cali-tw-${veth}`, "cali-pri-kns.default")}`,
	)
	.join("\n")}
COMMIT
*nat
:PREROUTING ACCEPT [0:0]
:INPUT ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
:cali-POSTROUTING - [0:0]
:cali-nat-outgoing - [0:0]
-A POSTROUTING -j cali-POSTROUTING
-A cali-POSTROUTING -j cali-nat-outgoing
-A cali-nat-outgoing -s ${network} ! -d ${network} -j MASQUERADE --random-fully
COMMIT
`;
}

const KUBE_FORWARD = `-A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP
-A KUBE-FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT`;
