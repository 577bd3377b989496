{{- define "ecm.env" -}}
- name: ECM_NAMESPACE
  value: {{ include "ecm.firstEngineNamespace" . }}
- name: ECM_POD_NAMESPACE
  valueFrom: {fieldRef: {fieldPath: metadata.namespace}}
- name: ECM_POD_NAME
  valueFrom: {fieldRef: {fieldPath: metadata.name}}
- name: ECM_INSTANCE
  value: {{ include "ecm.name" . }}-gateway.{{ .Release.Namespace }}:9102
- name: ECM_TOKEN_KEY_FILE
  value: /etc/linkis-ecm/auth/token-key
{{- if .Values.auth.previousTokenKey }}
- name: ECM_PREVIOUS_TOKEN_KEY_FILE
  value: /etc/linkis-ecm/auth/previous-token-key
{{- end }}
{{- end }}

{{- /* What is mounted of the auth Secret, besides the gateway's tokens. */}}
{{- define "ecm.keys" -}}token-key{{ if .Values.auth.previousTokenKey }},previous-token-key{{ end }}{{- end }}

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

{{- define "ecm.operatorEnv" -}}
{{ include "ecm.env" . }}
{{ include "ecm.storeEnv" . }}
- name: ECM_REPORT_URL
  value: {{ include "ecm.reportURL" (dict "root" . "service" (printf "%s-operator" (include "ecm.name" .))) }}
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
{{- with .Values.metrics.engines }}
- name: ECM_METRICS_ENGINES
  value: {{ . | quote }}
{{- end }}
{{- with .Values.limits }}
- name: ECM_LIMITS
  value: {{ toJson . | quote }}
{{- end }}
- name: ECM_ADMISSION_POLICY
  value: {{ .Values.admission.enabled | quote }}
{{- if .Values.admission.enabled }}
- name: ECM_ADMISSION_POLICIES
  value: {{ include "ecm.admissionPolicies" . }}
- name: ECM_ADMISSION_FIELDS
  value: {{ include "ecm.admissionFields" . }}
{{- end }}
- name: ECM_PROTECTED_OBJECTS
  value: {{ include "ecm.protected" . }}
{{- with .Values.adoptInstances }}
- name: ECM_ADOPT_INSTANCES
  value: {{ join "," . | quote }}
{{- end }}
- name: ECM_CANARY
  value: {{ ternary "1" "0" .Values.canary | quote }}
{{- end }}

{{- define "ecm.gatewayEnv" -}}
{{ include "ecm.env" . }}
- name: ECM_WATCH_NAMESPACES
  value: {{ ternary "" (include "ecm.engineNames" .) .Values.clusterWide | quote }}
{{ include "ecm.gatewayStoreEnv" . | trim }}
- name: ECM_STATE_CONFIGMAP
  value: {{ include "ecm.stateName" . }}
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
{{- with .Values.gateway.trustedProxies }}
- name: ECM_TRUSTED_PROXIES
  value: {{ join "," . | quote }}
- name: ECM_FORWARDED_HEADER
  value: {{ $.Values.gateway.forwardedHeader | quote }}
{{- end }}
{{- if .Values.auth.kubernetes.enabled }}
- name: ECM_AUTH_KUBERNETES
  value: "true"
- name: ECM_AUTH_AUDIENCES
  value: {{ join "," .Values.auth.kubernetes.audiences | quote }}
{{- if .Values.auth.kubernetes.serviceAccountsOnly }}
- name: ECM_AUTH_SERVICE_ACCOUNTS_ONLY
  value: "true"
{{- end }}
{{- end }}
{{- with .Values.auth.oidc }}
{{- if .issuer }}
{{- range $name, $value := dict "ISSUER" .issuer "AUDIENCE" .audience "JWKS_URL" .jwksUrl "USER_CLAIM" .userClaim "GROUPS_CLAIM" .groupsClaim "ADMIN_GROUP" .adminGroup "CA_FILE" (ternary "/etc/linkis-ecm/oidc/ca.crt" "" (ne .caConfigMap "")) "TOKEN_FILE" .tokenFile "CLIENT_ID" .clientId "SCOPES" .scopes }}
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
{{- end }}

{{- /* The chart's variables of a part, without those that the part's extraEnv also has, and then that: a name stands once,
       so extraEnv can replace a variable of ours. */}}
{{- define "ecm.partEnv" -}}
{{- $extra := (index .root.Values .part).extraEnv | default list }}
{{- $names := list }}
{{- range $extra }}{{ $names = append $names .name }}{{ end }}
{{- $found := list }}
{{- $own := include (printf "ecm.%sEnv" .part) .root | fromYamlArray }}
{{- if .operator }}{{ $own = concat $own (include "ecm.shardEnv" . | fromYamlArray) }}{{ end }}
{{- range $own }}
  {{- if not (has .name $names) }}{{ $found = append $found . }}{{ end }}
{{- end }}
{{- toYaml (concat $found $extra) }}
{{- end }}
