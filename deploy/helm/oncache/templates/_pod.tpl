{{- /*
What the agent and the pods that clean up share. The host's bpffs and network settings are mounted beside /sys and /proc:
the runtimes' default AppArmor profile forbids writing below those, and /proc/sys is read-only in a container.
*/ -}}
{{- define "oncache.securityContext" -}}
runAsUser: 0
runAsGroup: 0
runAsNonRoot: false
privileged: false
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
  # SETPCAP: to give up the other one, and itself.
  add: [BPF, NET_ADMIN, PERFMON{{ if .Values.capabilities.sysAdmin }}, SETPCAP, SYS_ADMIN{{ end }}]
seccompProfile:
  {{- toYaml .Values.seccompProfile | nindent 2 }}
{{- with .Values.appArmorProfile }}
appArmorProfile:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "oncache.env" -}}
- name: ONCACHE_BPFFS
  value: /host/bpf/oncache
- name: ONCACHE_SYSCTL_NET
  value: /host/sysctl/net
{{- end -}}

{{- define "oncache.mounts" -}}
- name: bpffs
  mountPath: /host/bpf
  mountPropagation: HostToContainer
- name: sysctl-net
  mountPath: /host/sysctl/net
{{- if .Values.ovs.runDir }}
- name: ovs
  mountPath: {{ .Values.ovs.runDir }}
{{- end }}
{{- end -}}

{{- define "oncache.volumes" -}}
- name: bpffs
  hostPath: {path: /sys/fs/bpf, type: Directory}
- name: sysctl-net
  hostPath: {path: /proc/sys/net, type: Directory}
{{- with .Values.ovs.runDir }}
- name: ovs
  hostPath: {path: {{ . }}, type: DirectoryOrCreate}
{{- end }}
{{- end -}}

{{- /* The plugin's place on the node. */ -}}
{{- define "oncache.cniMounts" -}}
- name: cni-conf
  mountPath: {{ .Values.cni.confDir }}
- name: cni-bin
  mountPath: {{ .Values.cni.binDir }}
{{- end -}}

{{- define "oncache.cniVolumes" -}}
- name: cni-conf
  hostPath: {path: {{ .Values.cni.confDir }}, type: DirectoryOrCreate}
- name: cni-bin
  hostPath: {path: {{ .Values.cni.binDir }}, type: DirectoryOrCreate}
{{- end -}}

{{- /* A probe's question: the kubelet asks the node's own address unless told another. */ -}}
{{- define "oncache.ask" -}}
{{- $metrics := (index . 0).Values.metrics -}}
{{- $any := has $metrics.host (list "0.0.0.0" "[::]") -}}
{ {{- if not $any }}host: {{ $metrics.host | trimPrefix "[" | trimSuffix "]" | quote }}, {{ end }}port: {{ $metrics.port }}, path: {{ index . 1 }}}
{{- end -}}

{{- define "oncache.cniSecurityContext" -}}
runAsUser: 0
runAsGroup: 0
runAsNonRoot: false
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- define "oncache.nobody" -}}
runAsUser: 65534
runAsGroup: 65534
runAsNonRoot: true
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
seccompProfile: {type: RuntimeDefault}
{{- end -}}
