{{- /* The operators of this release as JSON: [{shard, name, component, lease, account, namespaces, neighbours, values}].
       One without a shard's name serves what operator.shards leaves: all, where there are none. `neighbours` are the
       namespaces of the others by the names of their Leases. */}}
{{- define "ecm.operators" -}}
{{- $shards := .Values.operator.shards | default list }}
{{- $all := include "ecm.engineNames" . | splitList "," }}
{{- $base := include "ecm.leaseName" . }}
{{- if $shards }}
  {{- if .Values.clusterWide }}
    {{- fail "operator.shards with clusterWide=true: a shard serves namespaces by their names, so list all of them in engineNamespaces and set clusterWide=false" }}
  {{- end }}
  {{- if not .Values.engineNamespaces }}
    {{- fail "operator.shards without engineNamespaces: list the engines' namespaces there, then give them to shards" }}
  {{- end }}
  {{- if include "ecm.embedded" . }}
    {{- fail "operator.shards over one SQLite file, which is for one process: set database.url or database.existingSecret" }}
  {{- end }}
{{- end }}
{{- $names := list }}
{{- if $shards }}
  {{- range .Values.operator.extraEnv }}
    {{- if has .name (list "ECM_WATCH_NAMESPACES" "ECM_LEASE_NAME" "ECM_SHARDS_CONFIGMAP" "ECM_SHARD_NEIGHBOURS" "ECM_REPORT_URLS") }}
      {{- fail (printf "operator.extraEnv sets %s, which differs from shard to shard: leave it out" .name) }}
    {{- end }}
  {{- end }}
{{- end }}
{{- $owner := dict }}
{{- $found := list }}
{{- range $shards }}
  {{- $shard := .name }}
  {{- if has $shard $names }}{{ fail (printf "operator.shards has two of the name %s: name one of them otherwise, or make them one" $shard) }}{{ end }}
  {{- $names = append $names $shard }}
  {{- range .namespaces }}
    {{- if not (has . $all) }}{{ fail (printf "operator.shards gives the namespace %s to %s, and engineNamespaces has it not: list it there, or leave it out here" . $shard) }}{{ end }}
    {{- if hasKey $owner . }}{{ fail (printf "operator.shards gives the namespace %s to %s and to %s: leave it out of one" . (get $owner .) $shard) }}{{ end }}
    {{- $owner = set $owner . $shard }}
  {{- end }}
  {{- $lease := printf "%s-%s" $base $shard }}
  {{- $account := include "ecm.account" (dict "root" $ "part" "operator" "shard" $shard) }}
  {{- $found = append $found (dict "shard" $shard "name" $lease "lease" $lease "component" "operator-shard" "account" $account "namespaces" .namespaces "values" (pick . "replicas" "resources")) }}
{{- end }}
{{- $rest := list }}
{{- range $all }}{{ if not (hasKey $owner .) }}{{ $rest = append $rest . }}{{ end }}{{ end }}
{{- if $rest }}
  {{- $account := include "ecm.account" (dict "root" . "part" "operator" "shard" "") }}
  {{- $found = prepend $found (dict "shard" "" "name" $base "lease" $base "component" "operator" "account" $account "namespaces" $rest "values" dict) }}
{{- end }}
{{- $operators := list }}
{{- range $own := $found }}
  {{- $neighbours := dict }}
  {{- if $shards }}
    {{- /* The operator of before the shards had this Lease: it is waited for. */}}
    {{- if $own.shard }}{{ $neighbours = set $neighbours $base list }}{{ end }}
    {{- range $found }}{{ if ne .lease $own.lease }}{{ $neighbours = set $neighbours .lease .namespaces }}{{ end }}{{ end }}
  {{- end }}
  {{- $operators = append $operators (set $own "neighbours" $neighbours) }}
{{- end }}
{{- toJson $operators }}
{{- end }}

{{- /* Their accounts, as a JSON list, none twice. */}}
{{- define "ecm.operatorAccounts" -}}
{{- $found := list }}
{{- range include "ecm.operators" . | fromJsonArray }}{{ $found = append $found .account }}{{ end }}
{{- toJson (uniq $found) }}
{{- end }}

{{- /* Where the operators write who serves which namespace. */}}
{{- define "ecm.claimsName" -}}{{ include "ecm.name" . }}-shards{{- end }}

{{- /* Whether each engines' namespace has a Service of its own for reports, which leads to the operator that serves it. */}}
{{- define "ecm.reportServices" -}}{{ if or .Values.operator.shards .Values.operator.reportServices }}true{{ end }}{{- end }}

{{- /* Its name, given {root, namespace}: with a hash, as a namespace's name may take all of a Service's 63 characters. */}}
{{- define "ecm.reportService" -}}
{{- printf "%s-reports-%s" (include "ecm.name" .root) (sha256sum .namespace | trunc 10) }}
{{- end }}

{{- /* The URL of a Service in the release's namespace, given {root, service}. The last dot makes the name absolute: a pod's
       resolver would try its search list first. Without a domain it has to. */}}
{{- define "ecm.reportURL" -}}
http://{{ .service }}.{{ .root.Release.Namespace }}.svc{{ with .root.Values.clusterDomain }}.{{ . }}.{{ end }}:9103
{{- end }}

{{- /* What differs from one operator to the next, given {root, operator}. */}}
{{- define "ecm.shardEnv" -}}
{{- $root := .root }}
- name: ECM_WATCH_NAMESPACES
  value: {{ ternary "" (join "," .operator.namespaces) $root.Values.clusterWide | quote }}
- name: ECM_LEASE_NAME
  value: {{ .operator.lease }}
- name: ECM_SHARDS_CONFIGMAP
  value: {{ include "ecm.claimsName" $root }}
{{- with .operator.neighbours }}
- name: ECM_SHARD_NEIGHBOURS
  value: {{ toJson . | quote }}
{{- end }}
{{- if include "ecm.reportServices" $root }}
{{- $urls := dict }}
{{- range $namespace := .operator.namespaces }}
  {{- $service := include "ecm.reportService" (dict "root" $root "namespace" $namespace) }}
  {{- $urls = set $urls $namespace (include "ecm.reportURL" (dict "root" $root "service" $service)) }}
{{- end }}
- name: ECM_REPORT_URLS
  value: {{ toJson $urls | quote }}
{{- end }}
{{- end }}
