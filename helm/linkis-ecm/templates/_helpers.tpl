{{- /* The objects' names begin with it; 40 characters leave room for what follows. */}}
{{- define "ecm.name" -}}
{{- $name := .Values.nameOverride }}
{{- $full := ternary .Release.Name (printf "%s-%s" .Release.Name $name) (or (not $name) (contains (toString $name) .Release.Name)) }}
{{- .Values.fullnameOverride | default $full | trunc 40 | trimSuffix "-" }}
{{- end }}
{{- /* What the names of objects of no namespace begin with, another for each release. Release c in the namespace a-b and
       release b-c in a would have one name with "-" between both; neither a namespace nor our name has a dot. */}}
{{- define "ecm.clusterName" -}}
{{ .Release.Namespace }}{{ ternary "." "-" (contains "-" .Release.Namespace) }}{{ include "ecm.name" . }}
{{- end }}
{{- /* What the names of monitoring's objects begin with, given {root, namespace}: in a namespace that several releases share
       the one of the release is a part of it. */}}
{{- define "ecm.monitoringName" -}}
{{- $own := has (.namespace | default "") (list "" .root.Release.Namespace) }}
{{- ternary (include "ecm.name" .root) (include "ecm.clusterName" .root) $own }}
{{- end }}
{{- /* The label app.kubernetes.io/name. */}}
{{- define "ecm.app" -}}{{ .Values.nameOverride | default .Chart.Name }}{{- end }}

{{- define "ecm.image" -}}
{{- $image := .Values.image }}
{{- $repository := $image.repository }}
{{- with .Values.global.imageRegistry | default $image.registry }}{{ $repository = printf "%s/%s" . $repository }}{{ end }}
{{- if $image.digest }}{{ $repository }}@{{ $image.digest }}{{ else }}{{ $repository }}:{{ $image.tag | default .Chart.AppVersion }}{{ end }}
{{- end }}

{{- /* A list of pull secrets, written as names or as {name}, none twice; "" for none. */}}
{{- define "ecm.pullSecrets" -}}
{{- $found := list }}
{{- range . }}
  {{- $found = append $found (ternary . (dict "name" .) (kindIs "map" .)) }}
{{- end }}
{{- with uniq $found }}{{ toYaml . }}{{ end }}
{{- end }}
{{- define "ecm.embedded" -}}{{ if not (or .Values.database.url .Values.database.existingSecret) }}true{{ end }}{{- end }}
{{- define "ecm.authSecret" -}}{{ .Values.auth.existingSecret | default (printf "%s-auth" (include "ecm.name" .)) }}{{- end }}
{{- define "ecm.dbSecret" -}}{{ .Values.database.existingSecret | default (printf "%s-database" (include "ecm.name" .)) }}{{- end }}

{{- /* The gateway's port: its name, the scheme of probes, and the Secret of its certificate. */}}
{{- define "ecm.scheme" -}}{{ ternary "https" "http" .Values.tls.enabled }}{{- end }}
{{- define "ecm.tlsSecret" -}}
{{- $tls := .Values.tls }}
{{- if not (or $tls.secretName $tls.certManager.enabled) }}
  {{- fail "tls.enabled without a certificate: set tls.secretName to a Secret of type kubernetes.io/tls, or tls.certManager.enabled" }}
{{- end }}
{{- $tls.secretName | default (printf "%s-gateway-tls" (include "ecm.name" .)) }}
{{- end }}

{{- define "ecm.gatewayAccount" -}}{{ include "ecm.account" (dict "root" . "part" "gateway") }}{{- end }}
{{- define "ecm.account" -}}
{{- $account := (index .root.Values .part).serviceAccount }}
{{- if not (or $account.create $account.name) }}
  {{- fail (printf "%s.serviceAccount.create is false and there is no name: set %s.serviceAccount.name to an account of yours" .part .part) }}
{{- end }}
{{- $name := $account.name | default (printf "%s-%s" (include "ecm.name" .root) .part) }}
{{- /* A shard has rights of its own, so an account, unless it is one of yours. */}}
{{- if and .shard $account.create }}{{ $name = printf "%s-%s" $name .shard }}{{ end }}
{{- $name }}
{{- end }}

{{- /* The engines' namespaces as JSON: [{name, create, labels, resourceQuota, limitRange}], none twice. */}}
{{- define "ecm.engineNamespaces" -}}
{{- $own := .Release.Namespace }}
{{- $listed := .Values.engineNamespaces | default (ternary (list) (list dict) .Values.enginesInReleaseNamespace) }}
{{- $found := list }}
{{- $names := list }}
{{- range $entry := $listed }}
  {{- $name := $entry.name | default (printf "%s-engines" (include "ecm.name" $)) }}
  {{- if has $name $names }}{{ fail (printf "engineNamespaces names %s twice: leave one out" $name) }}{{ end }}
  {{- if and (eq $name $own) (not $.Values.enginesInReleaseNamespace) }}
    {{- fail (printf "engineNamespaces names the release's own namespace %s: name another, or set enginesInReleaseNamespace=true, after reading in values.yaml what that costs" $name) }}
  {{- end }}
  {{- $create := and (ne $name $own) (ternary $entry.create true (hasKey $entry "create")) }}
  {{- $names = append $names $name }}
  {{- $found = append $found (merge (dict "name" $name "create" $create) $entry) }}
{{- end }}
{{- if and .Values.enginesInReleaseNamespace (not (has $own $names)) }}
  {{- $found = append $found (dict "name" $own "create" false) }}
{{- end }}
{{- toJson $found }}
{{- end }}

{{- /* Their names, with commas between them; the first is where engines go that name none. */}}
{{- define "ecm.engineNames" -}}
{{- $names := list }}
{{- range include "ecm.engineNamespaces" . | fromJsonArray }}{{ $names = append $names .name }}{{ end }}
{{- join "," $names }}
{{- end }}
{{- define "ecm.firstEngineNamespace" -}}{{ include "ecm.engineNames" . | splitList "," | first }}{{- end }}

{{- /* Whether operator and gateway share a volume that one node alone can have. */}}
{{- define "ecm.oneNode" -}}
{{- $archive := .Values.archive.persistence }}
{{- if or (and (include "ecm.embedded" .) .Values.persistence.enabled) (and (not .Values.archive.url) $archive.enabled (eq $archive.accessMode "ReadWriteOnce")) }}true{{ end }}
{{- end }}

{{- /* Ours win: operator, policies and Services select by them. */}}
{{- define "ecm.labels" -}}
{{- toYaml (merge (include "ecm.ownLabels" . | fromYaml) (.Values.commonLabels | default dict)) }}
{{- end }}
{{- define "ecm.ownLabels" -}}
app.kubernetes.io/name: {{ include "ecm.app" . | quote }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: linkis
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{- define "ecm.selector" -}}
app.kubernetes.io/name: {{ include "ecm.app" . | quote }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end }}

{{- /* The Lease and the ConfigMap of this installation: two in one namespace need two. */}}
{{- define "ecm.leaseName" -}}{{ include "ecm.name" . }}-operator{{- end }}
{{- define "ecm.stateName" -}}{{ include "ecm.name" . }}-em{{- end }}

{{- /* What no engine may mount where engines run in the release's namespace. */}}
{{- define "ecm.protected" -}}
{{- $found := list (printf "secret/%s" (include "ecm.authSecret" .)) }}
{{- if not (include "ecm.embedded" .) }}{{ $found = append $found (printf "secret/%s" (include "ecm.dbSecret" .)) }}{{ end }}
{{- if .Values.tls.enabled }}{{ $found = append $found (printf "secret/%s" (include "ecm.tlsSecret" .)) }}{{ end }}
{{- range $kind, $persistence := dict "data" .Values.persistence "archive" .Values.archive.persistence }}
  {{- $found = append $found (printf "persistentvolumeclaim/%s" ($persistence.existingClaim | default (printf "%s-%s" (include "ecm.name" $) $kind))) }}
{{- end }}
{{- join "," $found }}
{{- end }}

{{- /* The policies, whose bindings have the same names. */}}
{{- define "ecm.admissionPolicies" -}}
{{- $name := printf "%s-engineconns" (include "ecm.clusterName" .) }}{{ $name }},{{ $name }}-env
{{- end }}
