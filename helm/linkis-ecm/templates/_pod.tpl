{{- /* The pod of a part, `operator` or `gateway`. The argument of all templates here: {root, part, component, account,
       operator}; the last is of ecm.operators, and of the operator alone. */}}

{{- define "ecm.podMetadata" -}}
{{- $values := index .root.Values .part }}
{{- $own := include "ecm.labels" .root | fromYaml }}
{{- $own = set $own "app.kubernetes.io/component" .component }}
{{- with .operator }}{{ if .shard }}{{ $own = set $own "linkis.apache.org/shard" .shard }}{{ end }}{{ end }}
{{- $own = set $own (printf "linkis.apache.org/%s" .part) "true" }}
labels: {{ toYaml (merge $own ($values.podLabels | default dict)) | nindent 2 }}
{{- $annotations := $values.podAnnotations | default dict }}
{{- if .root.Values.metrics.annotations }}
  {{- $operator := eq .part "operator" }}
  {{- $scrape := dict "prometheus.io/scrape" "true" "prometheus.io/path" "/metrics" "prometheus.io/port" (ternary "9104" "9106" $operator) "prometheus.io/scheme" (ternary "http" (include "ecm.scheme" .root) $operator) }}
  {{- $annotations = merge (deepCopy $annotations) $scrape }}
{{- end }}
{{- with $annotations }}
annotations: {{ toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "ecm.podSpec" -}}
{{- $root := .root }}
{{- $values := index $root.Values .part }}
serviceAccountName: {{ .account }}
enableServiceLinks: false
terminationGracePeriodSeconds: {{ $values.terminationGracePeriodSeconds }}
{{- with $values.podSecurityContext }}
securityContext: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with include "ecm.pullSecrets" (concat ($root.Values.global.imagePullSecrets | default list) ($root.Values.imagePullSecrets | default list)) }}
imagePullSecrets: {{ . | nindent 2 }}
{{- end }}
{{- range $field := list "nodeSelector" "tolerations" }}
{{- with index $values $field | default (index $root.Values $field) }}
{{ $field }}: {{ toYaml . | nindent 2 }}
{{- end }}
{{- end }}
{{- $affinity := $values.affinity | default $root.Values.affinity | default dict | deepCopy }}
{{- if include "ecm.oneNode" $root }}
  {{- /* The term fits a pod's own labels, so the first pod of all is not held up by it. */}}
  {{- $term := dict "topologyKey" "kubernetes.io/hostname" "labelSelector" (dict "matchLabels" (include "ecm.selector" $root | fromYaml)) }}
  {{- $near := $affinity.podAffinity | default dict }}
  {{- $required := append ($near.requiredDuringSchedulingIgnoredDuringExecution | default list) $term }}
  {{- $affinity = set $affinity "podAffinity" (set $near "requiredDuringSchedulingIgnoredDuringExecution" $required) }}
{{- end }}
{{- with $affinity }}
affinity: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with $values.topologySpreadConstraints }}
topologySpreadConstraints:
  {{- range . }}
  {{- /* A constraint without a selector counts the pods of its part. */}}
  {{- $own := set (include "ecm.selector" $root | fromYaml) "app.kubernetes.io/component" $.component }}
  {{- with $.operator }}{{ if .shard }}{{ $own = set $own "linkis.apache.org/shard" .shard }}{{ end }}{{ end }}
  - {{ toYaml (merge (deepCopy .) (ternary (dict) (dict "labelSelector" (dict "matchLabels" $own)) (hasKey . "labelSelector"))) | nindent 4 | trim }}
  {{- end }}
{{- end }}
{{- range $field := list "priorityClassName" "runtimeClassName" "schedulerName" "dnsPolicy" "dnsConfig" "hostAliases" }}
{{- with index $values $field }}
{{ $field }}: {{ toJson . }}
{{- end }}
{{- end }}
{{- with $values.initContainers }}
initContainers: {{ toYaml . | nindent 2 }}
{{- end }}
containers:
  {{- include "ecm.container" . | nindent 2 }}
  {{- with $values.extraContainers }}{{ toYaml . | nindent 2 }}{{- end }}
volumes:
  {{- include (printf "ecm.%sVolumes" .part) $root | nindent 2 }}
  {{- with $values.extraVolumes }}{{ toYaml . | nindent 2 }}{{- end }}
{{- end }}

{{- define "ecm.container" -}}
{{- $values := index .root.Values .part }}
- name: {{ .part }}
  image: {{ include "ecm.image" .root }}
  imagePullPolicy: {{ .root.Values.image.pullPolicy }}
  args: [{{ .part }}]
  env: {{- include "ecm.partEnv" . | nindent 4 }}
  {{- range $field := list "envFrom" "lifecycle" }}
  {{- with index $values $field }}
  {{ $field }}: {{ toYaml . | nindent 4 }}
  {{- end }}
  {{- end }}
  {{- $get := dict "port" "op-metrics" }}
  {{- if eq .part "operator" }}
  ports:
    - {name: reports, containerPort: 9103}
    - {name: op-metrics, containerPort: 9104}
  {{- else }}
  {{- $get = dict "port" (include "ecm.scheme" .root) }}
  {{- /* The kubelet checks no certificate. */}}
  {{- if .root.Values.tls.enabled }}{{ $get = set $get "scheme" "HTTPS" }}{{ end }}
  ports:
    - {name: {{ include "ecm.scheme" .root }}, containerPort: 9102}
    - {name: gw-metrics, containerPort: 9106}
  {{- end }}
  {{- /* A part starts within seconds; 60 s of grace cover a slow node. */}}
  {{- $probes := dict
    "startupProbe" (dict "path" "/healthz" "more" (dict "periodSeconds" 1 "failureThreshold" 60))
    "livenessProbe" (dict "path" "/healthz" "more" (dict "periodSeconds" 10 "timeoutSeconds" 5 "failureThreshold" 6))
    "readinessProbe" (dict "path" "/readyz" "more" (dict "periodSeconds" 5 "timeoutSeconds" 5)) }}
  {{- range $name, $probe := $probes }}
  {{- $own := merge (dict "httpGet" (set (deepCopy $get) "path" $probe.path)) $probe.more }}
  {{ $name }}: {{ toJson (mergeOverwrite $own (index $values $name | default dict)) }}
  {{- end }}
  {{- $resources := $values.resources }}
  {{- with .operator }}{{ $resources = .values.resources | default $resources }}{{ end }}
  {{- with $resources }}
  resources: {{ toYaml . | nindent 4 }}
  {{- end }}
  {{- with $values.securityContext }}
  securityContext: {{ toYaml . | nindent 4 }}
  {{- end }}
  volumeMounts:
    {{- include (printf "ecm.%sMounts" .part) .root | nindent 4 }}
    {{- with $values.extraVolumeMounts }}{{ toYaml . | nindent 4 }}{{- end }}
{{- end }}
