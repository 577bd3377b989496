{{- /* Quantities as texts, and extended resources as whole numbers: YAML reads `cpu: 1` as a number, and a big one in a values file as a float. */}}
{{- define "ecm.amounts" -}}
{{- $found := dict }}
{{- range $name, $amount := . }}
  {{- if eq $name "extended" }}
    {{- $devices := dict }}
    {{- range $device, $number := $amount }}{{ $devices = set $devices $device (int64 $number) }}{{ end }}
    {{- $amount = $devices }}
  {{- else if kindIs "map" $amount }}{{ $amount = include "ecm.amounts" $amount | fromYaml }}
  {{- else if kindIs "float64" $amount }}{{ $amount = ternary ($amount | int64 | toString) ($amount | toString) (eq $amount (floor $amount)) }}
  {{- else }}{{ $amount = toString $amount }}{{ end }}
  {{- $found = set $found $name $amount }}
{{- end }}
{{- toYaml $found }}
{{- end }}

{{- /* Variables of a type's engines: its env, and pip's settings where env has none of that name. */}}
{{- define "ecm.engineEnv" -}}
{{- $env := .env | default list }}
{{- $names := list }}
{{- range $env }}{{ $names = append $names .name }}{{ end }}
{{- $pip := .pip | default dict }}
{{- range $field, $name := dict "indexUrl" "PIP_INDEX_URL" "trustedHost" "PIP_TRUSTED_HOST" "proxy" "PIP_PROXY" }}
  {{- with index $pip $field }}
    {{- if not (has $name $names) }}{{ $env = append $env (dict "name" $name "value" .) }}{{ end }}
  {{- end }}
{{- end }}
{{- if $env }}{{ toJson $env }}{{ end }}
{{- end }}

{{- /* podTemplate of a type's engines: what it says in `podTemplate`, and the shorter ways of saying it. */}}
{{- define "ecm.engineTemplate" -}}
{{- $values := .values }}
{{- $template := $values.podTemplate | default dict | deepCopy }}
{{- $spec := $template.spec | default dict }}
{{- range $field := list "nodeSelector" "tolerations" "affinity" "priorityClassName" "runtimeClassName" "serviceAccountName" }}
  {{- with index $values $field }}{{ $spec = set $spec $field . }}{{ end }}
{{- end }}
{{- with include "ecm.pullSecrets" (concat (.root.Values.global.imagePullSecrets | default list) ($values.imagePullSecrets | default list) ($spec.imagePullSecrets | default list)) | fromYamlArray }}
  {{- $spec = set $spec "imagePullSecrets" . }}
{{- end }}
{{- $metadata := $template.metadata | default dict }}
{{- with $values.labels }}{{ $metadata = set $metadata "labels" (merge (deepCopy .) ($metadata.labels | default dict)) }}{{ end }}
{{- $annotations := merge ($values.annotations | default dict | deepCopy) ($metadata.annotations | default dict) }}
{{- with $annotations }}{{ $metadata = set $metadata "annotations" . }}{{ end }}
{{- with $spec }}{{ $template = set $template "spec" . }}{{ end }}
{{- with $metadata }}{{ $template = set $template "metadata" . }}{{ end }}
{{- toYaml $template }}
{{- end }}

{{- /* Fails where another release has the object: Helm would say no more than that it cannot be imported. The argument:
       {root, apiVersion, kind, name, remedy}, and the namespace of what is in one. Without a cluster nothing is found. */}}
{{- define "ecm.refuseForeign" -}}
{{- if .root.Capabilities.APIVersions.Has (printf "%s/%s" .apiVersion .kind) }}
  {{- $found := (lookup .apiVersion .kind (.namespace | default "") .name).metadata | default dict }}
  {{- $owner := dig "annotations" "meta.helm.sh/release-name" "" $found }}
  {{- $space := dig "annotations" "meta.helm.sh/release-namespace" "" $found }}
  {{- if and $owner (ne (printf "%s/%s" $space $owner) (printf "%s/%s" .root.Release.Namespace .root.Release.Name)) }}
    {{- fail (printf "%s %s belongs to the release %s in the namespace %s: %s" .kind .name $owner $space .remedy) }}
  {{- end }}
{{- end }}
{{- end }}
