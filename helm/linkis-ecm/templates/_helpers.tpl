{{- define "ecm.name" -}}{{ .Release.Name | trunc 40 | trimSuffix "-" }}{{- end }}
{{- define "ecm.image" -}}{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}{{- end }}
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

{{- define "ecm.operatorAccount" -}}{{ include "ecm.name" . }}-operator{{- end }}
{{- define "ecm.gatewayAccount" -}}{{ include "ecm.name" . }}-gateway{{- end }}

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

{{- define "ecm.labels" -}}
app.kubernetes.io/name: linkis-ecm
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: linkis
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{- define "ecm.selector" -}}
app.kubernetes.io/name: linkis-ecm
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- /* Users of their own: 10001 is the engines' (Dockerfile). The group is one: both write the SQLite file. */}}
{{- define "ecm.operatorSecurity" -}}{{ include "ecm.podSecurity" 10002 }}{{- end }}
{{- define "ecm.gatewaySecurity" -}}{{ include "ecm.podSecurity" 10003 }}{{- end }}
{{- define "ecm.podSecurity" -}}
runAsNonRoot: true
runAsUser: {{ . }}
runAsGroup: 10002
fsGroup: 10002
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "ecm.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{- define "ecm.scheduling" -}}
{{- with .Values.imagePullSecrets }}
imagePullSecrets: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations: {{ toYaml . | nindent 2 }}
{{- end }}
{{- $affinity := deepCopy .Values.affinity }}
{{- if include "ecm.oneNode" . }}
  {{- /* The term fits a pod's own labels, so the first pod of all is not held up by it. */}}
  {{- $term := dict "topologyKey" "kubernetes.io/hostname" "labelSelector" (dict "matchLabels" (include "ecm.selector" . | fromYaml)) }}
  {{- $near := $affinity.podAffinity | default dict }}
  {{- $required := append ($near.requiredDuringSchedulingIgnoredDuringExecution | default list) $term }}
  {{- $affinity = set $affinity "podAffinity" (set $near "requiredDuringSchedulingIgnoredDuringExecution" $required) }}
{{- end }}
{{- with $affinity }}
affinity: {{ toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "ecm.env" -}}
- name: ECM_NAMESPACE
  value: {{ include "ecm.firstEngineNamespace" . }}
- name: ECM_POD_NAMESPACE
  valueFrom: {fieldRef: {fieldPath: metadata.namespace}}
- name: ECM_POD_NAME
  valueFrom: {fieldRef: {fieldPath: metadata.name}}
- name: ECM_INSTANCE
  value: {{ include "ecm.name" . }}-gateway.{{ .Release.Namespace }}:9102
- name: ECM_WATCH_NAMESPACES
  value: {{ ternary "" (include "ecm.engineNames" .) .Values.clusterWide | quote }}
- name: ECM_TOKEN_KEY_FILE
  value: /etc/linkis-ecm/auth/token-key
{{- if .Values.auth.previousTokenKey }}
- name: ECM_PREVIOUS_TOKEN_KEY_FILE
  value: /etc/linkis-ecm/auth/previous-token-key
{{- end }}
{{- end }}

{{- /* What is mounted of the auth Secret, besides the gateway's tokens. */}}
{{- define "ecm.keys" -}}token-key{{ if .Values.auth.previousTokenKey }},previous-token-key{{ end }}{{- end }}

{{- define "ecm.leaseName" -}}{{ include "ecm.name" . }}-operator{{- end }}

{{- /* The database and the archive, for the operator. */}}
{{- define "ecm.storeEnv" -}}
{{ include "ecm.archiveEnv" . }}
{{ include "ecm.databaseEnv" . }}
{{- end }}

{{- /* For the gateway: what is on an emptyDir of the operator it does not have. */}}
{{- define "ecm.gatewayStoreEnv" -}}
{{- if include "ecm.gatewayArchive" . }}
{{ include "ecm.archiveEnv" . }}
{{- end }}
{{- if include "ecm.gatewayDatabase" . }}
{{ include "ecm.databaseEnv" . }}
{{- end }}
{{- end }}
{{- define "ecm.gatewayArchive" -}}{{ if or .Values.archive.url .Values.archive.persistence.enabled }}true{{ end }}{{- end }}
{{- define "ecm.gatewayDatabase" -}}{{ if or (not (include "ecm.embedded" .)) .Values.persistence.enabled }}true{{ end }}{{- end }}

{{- define "ecm.archiveEnv" -}}
- name: ECM_ARCHIVE_URL
  value: {{ .Values.archive.url | default "file:///archive" }}
{{- end }}

{{- define "ecm.databaseEnv" -}}
- name: ECM_DATABASE_URL
{{- if include "ecm.embedded" . }}
  value: sqlite:////data/ecm.sqlite3
{{- else }}
  valueFrom: {secretKeyRef: {name: {{ include "ecm.dbSecret" . }}, key: url}}
{{- end }}
{{- end }}

{{- define "ecm.operatorMounts" -}}
{{ include "ecm.mounts" . }}
{{- if not .Values.archive.url }}
- {name: archive, mountPath: /archive}
{{- end }}
{{- if include "ecm.embedded" . }}
- {name: data, mountPath: /data}
{{- end }}
{{- end }}

{{- define "ecm.gatewayMounts" -}}
{{ include "ecm.mounts" . }}
{{- if and (not .Values.archive.url) (include "ecm.gatewayArchive" .) }}
- {name: archive, mountPath: /archive, readOnly: true}
{{- end }}
{{- if .Values.auth.oidc.caConfigMap }}
- {name: oidc, mountPath: /etc/linkis-ecm/oidc, readOnly: true}
{{- end }}
{{- if .Values.tls.enabled }}
# The whole folder: a subPath would keep the first certificate for ever.
- {name: tls, mountPath: /etc/linkis-ecm/tls, readOnly: true}
{{- end }}
{{- if and (include "ecm.embedded" .) (include "ecm.gatewayDatabase" .) }}
- {name: data, mountPath: /data}
{{- end }}
{{- end }}

{{- define "ecm.mounts" -}}
- {name: auth, mountPath: /etc/linkis-ecm/auth, readOnly: true}
- {name: tmp, mountPath: /tmp}
{{- end }}

{{- define "ecm.operatorVolumes" -}}
{{- /* Not tokens.json: the operator calls no gateway. */}}
{{- include "ecm.volumes" (dict "root" . "keys" (include "ecm.keys" . | splitList ",")) }}
{{- if not .Values.archive.url }}
- name: archive
{{- include "ecm.claim" (dict "persistence" .Values.archive.persistence "name" (printf "%s-archive" (include "ecm.name" .))) }}
{{- end }}
{{- if include "ecm.embedded" . }}
- name: data
{{- include "ecm.claim" (dict "persistence" .Values.persistence "name" (printf "%s-data" (include "ecm.name" .))) }}
{{- end }}
{{- end }}

{{- define "ecm.gatewayVolumes" -}}
{{- include "ecm.volumes" (dict "root" . "keys" (append (include "ecm.keys" . | splitList ",") "tokens.json")) }}
{{- if and (not .Values.archive.url) (include "ecm.gatewayArchive" .) }}
- name: archive
{{- include "ecm.claim" (dict "persistence" .Values.archive.persistence "name" (printf "%s-archive" (include "ecm.name" .))) }}
{{- end }}
{{- if .Values.auth.oidc.caConfigMap }}
- name: oidc
  configMap: {name: {{ .Values.auth.oidc.caConfigMap }}, items: [{key: ca.crt, path: ca.crt}]}
{{- end }}
{{- if .Values.tls.enabled }}
- name: tls
  secret:
    secretName: {{ include "ecm.tlsSecret" . }}
    defaultMode: 0440
    items: [{key: tls.crt, path: tls.crt}, {key: tls.key, path: tls.key}]
{{- end }}
{{- if and (include "ecm.embedded" .) (include "ecm.gatewayDatabase" .) }}
- name: data
{{- include "ecm.claim" (dict "persistence" .Values.persistence "name" (printf "%s-data" (include "ecm.name" .))) }}
{{- end }}
{{- end }}

{{- define "ecm.volumes" -}}
- name: auth
  secret:
    secretName: {{ include "ecm.authSecret" .root }}
    defaultMode: 0440
    items:
      {{- range .keys }}
      - {key: {{ . }}, path: {{ . }}}
      {{- end }}
- name: tmp
  emptyDir: {sizeLimit: 64Mi}
{{- end }}

{{- define "ecm.claim" }}
{{- if not .persistence.enabled }}
  emptyDir: {sizeLimit: {{ .persistence.size }}}
{{- else }}
  persistentVolumeClaim: {claimName: {{ .persistence.existingClaim | default .name }}}
{{- end }}
{{- end }}

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
