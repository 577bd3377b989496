{{- /* The objects' names begin with it; 40 characters leave room for what follows. */}}
{{- define "ecm.name" -}}
{{- $name := .Values.nameOverride }}
{{- $full := ternary .Release.Name (printf "%s-%s" .Release.Name $name) (or (not $name) (contains (toString $name) .Release.Name)) }}
{{- .Values.fullnameOverride | default $full | trunc 40 | trimSuffix "-" }}
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

{{- define "ecm.operatorAccount" -}}{{ include "ecm.account" (dict "root" . "part" "operator") }}{{- end }}
{{- define "ecm.gatewayAccount" -}}{{ include "ecm.account" (dict "root" . "part" "gateway") }}{{- end }}
{{- define "ecm.account" -}}
{{- $account := (index .root.Values .part).serviceAccount }}
{{- if not (or $account.create $account.name) }}
  {{- fail (printf "%s.serviceAccount.create is false and there is no name: set %s.serviceAccount.name to an account of yours" .part .part) }}
{{- end }}
{{- $account.name | default (printf "%s-%s" (include "ecm.name" .root) .part) }}
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
<<<<<<< HEAD
=======

{{- define "ecm.operatorContainer" -}}
- name: operator
  image: {{ include "ecm.image" . }}
  imagePullPolicy: {{ .Values.image.pullPolicy }}
  args: [operator]
  env:
    {{- include "ecm.env" . | nindent 4 }}
    {{- include "ecm.storeEnv" . | nindent 4 }}
    - name: ECM_REPORT_URL
      # The last dot makes the name absolute: a pod's resolver would try its search list first. Without a domain it has to.
      value: http://{{ include "ecm.name" . }}-operator.{{ .Release.Namespace }}.svc{{ with .Values.clusterDomain }}.{{ . }}.{{ end }}:9103
    - name: ECM_ENGINE_SERVICE
      value: {{ .Values.engines.serviceName }}
    - name: ECM_ENGINE_SERVICE_NAMESPACES
      value: {{ include "ecm.engineNames" . | quote }}
    - name: ECM_ARCHIVE_DAYS
      value: {{ .Values.archive.days | quote }}
    - name: ECM_ARCHIVE_FILE_MAX_MIB
      value: {{ .Values.archive.fileMaxMiB | quote }}
    - name: ECM_ARCHIVE_ENGINE_MAX_MIB
      value: {{ .Values.archive.engineMaxMiB | quote }}
    - name: ECM_ARCHIVE_USER_MAX_MIB
      value: {{ .Values.archive.userMaxMiB | quote }}
    - name: ECM_ARCHIVE_TOTAL_MIB
      value: {{ .Values.archive.totalMiB | quote }}
    {{- with .Values.limits }}
    - name: ECM_LIMITS
      value: {{ toJson . | quote }}
    {{- end }}
    - name: ECM_ADMISSION_POLICY
      value: {{ .Values.admission.enabled | quote }}
    {{- if .Values.admission.enabled }}
    - name: ECM_ADMISSION_POLICIES
      value: {{ include "ecm.admissionPolicies" . }}
    {{- end }}
    - name: ECM_PROTECTED_OBJECTS
      value: {{ include "ecm.protected" . }}
    - name: ECM_LEASE_NAME
      value: {{ include "ecm.leaseName" . }}
    {{- with .Values.adoptInstances }}
    - name: ECM_ADOPT_INSTANCES
      value: {{ join "," . | quote }}
    {{- end }}
    - name: ECM_CANARY
      value: {{ ternary "1" "0" .Values.canary | quote }}
    {{- with .Values.operator.extraEnv }}{{ toYaml . | nindent 4 }}{{- end }}
  ports:
    - {name: reports, containerPort: 9103}
    - {name: op-metrics, containerPort: 9104}
  # The operator starts within seconds; 60 s of grace cover a slow node.
  startupProbe: {httpGet: {path: /healthz, port: op-metrics}, periodSeconds: 1, failureThreshold: 60}
  livenessProbe: {httpGet: {path: /healthz, port: op-metrics}, periodSeconds: 10, timeoutSeconds: 5, failureThreshold: 6}
  readinessProbe: {httpGet: {path: /readyz, port: op-metrics}, periodSeconds: 5, timeoutSeconds: 5}
  resources: {{ toYaml .Values.operator.resources | nindent 4 }}
  securityContext: {{ include "ecm.containerSecurity" . | nindent 4 }}
  volumeMounts: {{ include "ecm.operatorMounts" . | nindent 4 }}
{{- end }}

{{- define "ecm.gatewayContainer" -}}
- name: gateway
  image: {{ include "ecm.image" . }}
  imagePullPolicy: {{ .Values.image.pullPolicy }}
  args: [gateway]
  env:
    {{- include "ecm.env" . | nindent 4 }}
    {{- with include "ecm.gatewayStoreEnv" . | trim }}{{ . | nindent 4 }}{{- end }}
    - name: ECM_TOKENS_FILE
      value: /etc/linkis-ecm/auth/tokens.json
    - name: ECM_GATEWAY_METRICS_PORT
      value: "9106"
    - name: ECM_ADMINS
      value: {{ join "," .Values.auth.admins | quote }}
    {{- with .Values.limits }}
    - name: ECM_LIMITS
      value: {{ toJson . | quote }}
    {{- end }}
    {{- if .Values.auth.kubernetes.enabled }}
    - name: ECM_AUTH_KUBERNETES
      value: "true"
    - name: ECM_AUTH_AUDIENCES
      value: {{ join "," .Values.auth.kubernetes.audiences | quote }}
    {{- end }}
    {{- with .Values.auth.oidc }}
    {{- if .issuer }}
    {{- range $name, $value := dict "ISSUER" .issuer "AUDIENCE" .audience "JWKS_URL" .jwksUrl "USER_CLAIM" .userClaim "GROUPS_CLAIM" .groupsClaim "ADMIN_GROUP" .adminGroup "CA_FILE" (ternary "/etc/linkis-ecm/oidc/ca.crt" "" (ne .caConfigMap "")) "TOKEN_FILE" .tokenFile }}
    - name: ECM_OIDC_{{ $name }}
      value: {{ $value | quote }}
    {{- end }}
    {{- end }}
    {{- end }}
    {{- if .Values.tls.enabled }}
    - name: ECM_TLS_CERT_FILE
      value: /etc/linkis-ecm/tls/tls.crt
    - name: ECM_TLS_KEY_FILE
      value: /etc/linkis-ecm/tls/tls.key
    - name: ECM_TLS_MIN_VERSION
      value: {{ .Values.tls.minVersion | quote }}
    {{- end }}
    {{- with .Values.gateway.extraEnv }}{{ toYaml . | nindent 4 }}{{- end }}
  {{- $port := include "ecm.scheme" . }}
  {{- /* The kubelet checks no certificate. */}}
  {{- $scheme := ternary ", scheme: HTTPS" "" .Values.tls.enabled }}
  ports:
    - {name: {{ $port }}, containerPort: 9102}
    - {name: gw-metrics, containerPort: 9106}
  startupProbe: {httpGet: {path: /healthz, port: {{ $port }}{{ $scheme }}}, periodSeconds: 1, failureThreshold: 60}
  livenessProbe: {httpGet: {path: /healthz, port: {{ $port }}{{ $scheme }}}, periodSeconds: 10, timeoutSeconds: 5, failureThreshold: 6}
  readinessProbe: {httpGet: {path: /readyz, port: {{ $port }}{{ $scheme }}}, periodSeconds: 5, timeoutSeconds: 5}
  resources: {{ toYaml .Values.gateway.resources | nindent 4 }}
  securityContext: {{ include "ecm.containerSecurity" . | nindent 4 }}
  volumeMounts: {{ include "ecm.gatewayMounts" . | nindent 4 }}
{{- end }}

{{- /* Names: the cluster's DNS, by the peers of networkPolicy.dns. */}}
{{- define "ecm.dnsEgress" -}}
- to: {{ toYaml .Values.networkPolicy.dns | nindent 4 }}
  ports:
    - {port: 53, protocol: UDP}
    - {port: 53, protocol: TCP}
{{- end }}

{{- /* What operator and gateway reach: the API server, and by HTTPS an issuer or an object store; the database. */}}
{{- define "ecm.partEgress" -}}
{{- $servers := .Values.networkPolicy.apiServer }}
{{- if $servers }}
- to:
    {{- range $servers }}
    - ipBlock: {cidr: {{ . | quote }}}
    {{- end }}
{{- end }}
{{- if or (not $servers) .Values.auth.oidc.issuer .Values.archive.url }}
- ports:
    - {port: 443, protocol: TCP}
    {{- if not $servers }}
    - {port: 6443, protocol: TCP}
    {{- end }}
{{- end }}
{{- $pods := .Values.networkPolicy.database.podSelector }}
{{- if or $pods (not (include "ecm.embedded" .)) }}
# The database's port of database.url; 3306 where a Secret has the URL.
- ports:
    - {port: {{ include "ecm.databasePort" . }}, protocol: TCP}
  {{- if $pods }}
  to:
    - namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: {{ include "ecm.databaseNamespace" . }}}}
      podSelector: {{ toYaml $pods | nindent 8 }}
  {{- end }}
{{- end }}
{{- end }}

{{- define "ecm.databaseNamespace" -}}{{ .Values.networkPolicy.database.namespace | default .Release.Namespace }}{{- end }}

{{- /* What no engine reaches, as a JSON list of CIDRs: link-local addresses, the metadata services of clouds that are at
       other addresses (Azure, Alibaba, Oracle; Amazon's and Google's of IPv6), and the API server. Where networkPolicy.apiServer
       names it not, the cluster is asked, which `helm template` cannot. */}}
{{- define "ecm.unreachable" -}}
{{- $never := list "169.254.0.0/16" "168.63.129.16/32" "100.100.100.200/32" "192.0.0.192/32" "fe80::/10" "fd00:ec2::254/128" "fd20:ce::254/128" }}
{{- $servers := .Values.networkPolicy.apiServer }}
{{- if not $servers }}
  {{- range (lookup "discovery.k8s.io/v1" "EndpointSlice" "default" "kubernetes").endpoints }}{{ $servers = concat $servers .addresses }}{{ end }}
  {{- with (lookup "v1" "Service" "default" "kubernetes").spec }}{{ $servers = concat $servers .clusterIPs }}{{ end }}
{{- end }}
{{- range $server := $servers }}
  {{- $never = append $never (ternary $server (printf "%s/%s" $server (ternary "128" "32" (contains ":" $server))) (contains "/" $server)) }}
{{- end }}
{{- toJson (uniq $never) }}
{{- end }}

{{- define "ecm.databasePort" -}}
{{- $host := .Values.database.url | splitList "@" | last | splitList "/" | first }}
{{- regexFind ":[0-9]+$" $host | trimPrefix ":" | default "3306" }}
{{- end }}

{{- /* An ipBlock of {cidr, except} that leaves out `never`, a list of CIDRs; fails for a cidr that lies in one of them. */}}
{{- define "ecm.ipBlock" -}}
{{- $cidr := .block.cidr }}
{{- $except := .block.except | default list }}
{{- range $never := .never }}
  {{- if include "ecm.within" (dict "inner" $cidr "outer" $never) }}
    {{- fail (printf "networkPolicy.egress has %s, which lies in %s: engines never reach link-local addresses, a cloud's metadata and the API server" $cidr $never) }}
  {{- end }}
  {{- if include "ecm.within" (dict "inner" $never "outer" $cidr) }}{{ $except = append $except $never }}{{ end }}
{{- end }}
{{- $block := dict "cidr" $cidr }}
{{- if $except }}{{ $block = set $block "except" (uniq $except) }}{{ end }}
{{- toJson $block }}
{{- end }}

{{- /* "true" where all of the CIDR `inner` is in `outer`. Of IPv6 it knows ::/0, equal texts, link-local addresses, and the
       private addresses fc00::/7 and fd00::/8. */}}
{{- define "ecm.within" -}}
{{- $inner := splitList "/" .inner }}
{{- $outer := splitList "/" .outer }}
{{- if eq .inner .outer }}true
{{- else if and (contains ":" .inner) (contains ":" .outer) }}
  {{- $private := and (has .outer (list "fc00::/7" "fd00::/8")) (regexMatch "^[fF][dD]" .inner) }}
  {{- if or (eq .outer "::/0") $private (and (eq .outer "fe80::/10") (regexMatch "^[fF][eE][89abAB]" .inner)) }}true{{ end }}
{{- else if and (not (contains ":" .inner)) (not (contains ":" .outer)) }}
  {{- $bits := int (index $outer 1) }}
  {{- if le $bits (int (index $inner 1)) }}
    {{- $size := 1 }}
    {{- range untilStep $bits 32 1 }}{{ $size = mul $size 2 }}{{ end }}
    {{- if eq (div (include "ecm.ipv4" (index $inner 0) | int64) $size) (div (include "ecm.ipv4" (index $outer 0) | int64) $size) }}true{{ end }}
  {{- end }}
{{- end }}
{{- end }}
{{- define "ecm.ipv4" -}}
{{- $number := 0 }}
{{- range splitList "." . }}{{ $number = add (mul $number 256) (atoi .) }}{{ end }}
{{- $number }}
{{- end }}

{{- /* The policies, whose bindings have the same names. */}}
{{- define "ecm.admissionPolicies" -}}
{{- $name := printf "%s-%s-engineconns" .Release.Namespace (include "ecm.name" .) }}{{ $name }},{{ $name }}-env
{{- end }}
>>>>>>> 5ea8a52 (An engine is not started that came in while no policy was asked)
