{{- define "pitcrew.name" -}}
{{- if contains "pitcrew" .Release.Name }}{{ .Release.Name | trunc 40 | trimSuffix "-" }}{{ else }}{{ printf "%s-pitcrew" (.Release.Name | trunc 32 | trimSuffix "-") }}{{ end }}
{{- end }}

{{- define "pitcrew.operator" -}}
{{ include "pitcrew.name" . }}-operator
{{- end }}

{{- define "pitcrew.serviceAccount" -}}
{{- with .Values.operator.serviceAccount }}{{ .name | default (ternary (include "pitcrew.operator" $) "default" .create) }}{{ end }}
{{- end }}

{{- define "pitcrew.agent" -}}
{{ include "pitcrew.name" . }}-agent
{{- end }}

{{- define "pitcrew.agent.serviceAccount" -}}
{{- with .Values.agent.serviceAccount }}{{ .name | default (ternary (include "pitcrew.agent" $) "default" .create) }}{{ end }}
{{- end }}

{{- define "pitcrew.agent.selector" -}}
app.kubernetes.io/name: pitcrew
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: agent
{{- end }}

{{- define "pitcrew.labels" -}}
app.kubernetes.io/name: pitcrew
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "pitcrew.operator.selector" -}}
app.kubernetes.io/name: pitcrew
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: operator
{{- end }}

{{/* The reference of an image: (list . imageValues) */}}
{{- define "pitcrew.image" -}}
{{- $root := index . 0 }}{{ $image := index . 1 }}
{{- $registry := $root.Values.image.registry }}
{{- if not $registry }}
{{- fail "image.registry is not set. Push Pitcrew's images with `scripts/images --push REGISTRY` and give the same REGISTRY: --set image.registry=REGISTRY" }}
{{- end }}
{{- $name := printf "%s/%s" (trimSuffix "/" $registry) $image.repository }}
{{- if $image.digest }}{{ $name }}@{{ $image.digest }}{{ else }}{{ $name }}:{{ $image.tag | default $root.Values.image.tag | default $root.Chart.AppVersion }}{{ end }}
{{- end }}

{{- define "pitcrew.pullSecrets" -}}
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- end }}

{{/* Nodes that can run our images: (list . otherLabels) */}}
{{- define "pitcrew.nodeSelector" -}}
{{- $root := index . 0 }}{{ $nodes := dict "kubernetes.io/os" "linux" }}
{{- with $root.Values.image.architecture }}{{ $_ := set $nodes "kubernetes.io/arch" . }}{{ end -}}
nodeSelector:
  {{- toYaml (merge (dict) (index . 1 | default dict) $nodes) | nindent 2 }}
{{- end }}

{{/* How a program of ours gets beyond the cluster: root certificates and proxies. */}}
{{- define "pitcrew.outside" -}}
{{- with .Values.caBundle }}
- {name: SSL_CERT_FILE, value: {{ ternary (printf "/etc/pitcrew-roots/%s" .key) "/etc/ssl/certs/ca-certificates.crt" (ne .configMap "") }}}
{{- end }}
{{- with .Values.proxy.https }}
- {name: HTTPS_PROXY, value: {{ . | quote }}}
{{- end }}
{{- with .Values.proxy.http }}
- {name: HTTP_PROXY, value: {{ . | quote }}}
{{- end }}
{{- with .Values.proxy.noProxy }}
- {name: NO_PROXY, value: {{ . | quote }}}
{{- end }}
{{- end }}

{{/* What the operator may do with namespaced objects where its jobs are. */}}
{{- define "pitcrew.operator.rules" -}}
# Jobs: read, their status written, deleted when their ttlAfterFinished is over. finalizers: their pods block their deletion.
- apiGroups: [pitcrew.dev]
  resources: [trainingjobs]
  verbs: [get, list, watch, delete]
- apiGroups: [pitcrew.dev]
  resources: [trainingjobs/status, trainingjobs/finalizers]
  verbs: [update]
# Pods: created and deleted; patched to show launchers a new channel.json. All are read, to know what room nodes have.
- apiGroups: [""]
  resources: [pods]
  verbs: [get, list, watch, create, patch, delete]
# Room within quotas, before the first pod of a gang is created.
- apiGroups: [""]
  resources: [resourcequotas]
  verbs: [list, watch]
# One budget for each job, so that a drain asks first; deleted with its job.
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: [list, watch, create]
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create, patch]
{{- end }}

{{/* What may not change of two maps but for some keys: (list new old keys) */}}
{{- define "pitcrew.same" -}}
{{- $new := index . 0 }}{{ $old := index . 1 }}{{ $but := index . 2 -}}
{{ $new }}.all(k, k in {{ $but }} || (k in {{ $old }} && {{ $new }}[k] == {{ $old }}[k])) && {{ $old }}.all(k, k in {{ $but }} || k in {{ $new }})
{{- end }}

{{/* The node that an agent's token is of: variables of an admission policy. */}}
{{- define "pitcrew.claims" -}}
- name: subresource
  expression: "has(request.subResource) ? request.subResource : ''"
- name: node
  expression: "has(request.userInfo.extra) && 'authentication.kubernetes.io/node-name' in request.userInfo.extra ? request.userInfo.extra['authentication.kubernetes.io/node-name'][0] : ''"
- name: nodeUID
  expression: "has(request.userInfo.extra) && 'authentication.kubernetes.io/node-uid' in request.userInfo.extra ? request.userInfo.extra['authentication.kubernetes.io/node-uid'][0] : ''"
{{- end }}

{{- define "pitcrew.uninstall.meta" }}
  labels:
    {{- include "pitcrew.labels" . | nindent 4 }}
  annotations:
    helm.sh/hook: pre-delete
    helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded,hook-failed
{{- end }}

{{- define "pitcrew.test.meta" }}
  labels:
    {{- include "pitcrew.labels" . | nindent 4 }}
  annotations:
    helm.sh/hook: test
    helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded
{{- end }}

{{/* What a PodMonitor begins with: (dict "root" . "namespace" … "name" …) */}}
{{- define "pitcrew.monitor" }}
apiVersion: monitoring.coreos.com/v1
kind: PodMonitor
metadata:
  name: {{ .name }}
  namespace: {{ .namespace }}
  labels:
    {{- include "pitcrew.labels" .root | nindent 4 }}
    {{- with .root.Values.monitors.labels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
{{- end }}
