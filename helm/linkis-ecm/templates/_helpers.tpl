{{- define "ecm.name" -}}{{ .Release.Name | trunc 40 | trimSuffix "-" }}{{- end }}
{{- define "ecm.image" -}}{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}{{- end }}
{{- define "ecm.embedded" -}}{{ if not (or .Values.database.url .Values.database.existingSecret) }}true{{ end }}{{- end }}
{{- define "ecm.authSecret" -}}{{ .Values.auth.existingSecret | default (printf "%s-auth" (include "ecm.name" .)) }}{{- end }}
{{- define "ecm.dbSecret" -}}{{ .Values.database.existingSecret | default (printf "%s-database" (include "ecm.name" .)) }}{{- end }}

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

{{- define "ecm.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
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
{{- with .Values.affinity }}
affinity: {{ toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "ecm.env" -}}
- name: ECM_NAMESPACE
  value: {{ first (.Values.watchNamespaces | default (list .Release.Namespace)) }}
- name: ECM_POD_NAMESPACE
  valueFrom: {fieldRef: {fieldPath: metadata.namespace}}
- name: ECM_POD_NAME
  valueFrom: {fieldRef: {fieldPath: metadata.name}}
- name: ECM_INSTANCE
  value: {{ include "ecm.name" . }}-gateway.{{ .Release.Namespace }}:9102
- name: ECM_WATCH_NAMESPACES
  value: {{ join "," .Values.watchNamespaces | quote }}
- name: ECM_TOKEN_KEY_FILE
  value: /etc/linkis-ecm/auth/token-key
- name: ECM_ARCHIVE_URL
  value: {{ include "ecm.archiveUrl" . }}
- name: ECM_DATABASE_URL
{{- if include "ecm.embedded" . }}
  value: sqlite:////data/ecm.sqlite3
{{- else }}
  valueFrom: {secretKeyRef: {name: {{ include "ecm.dbSecret" . }}, key: url}}
{{- end }}
{{- end }}

{{- define "ecm.archiveUrl" -}}{{ .Values.archive.url | default "file:///archive" }}{{- end }}

{{- define "ecm.mounts" -}}
{{- if not .Values.archive.url }}
- {name: archive, mountPath: /archive}
{{- end }}
- {name: auth, mountPath: /etc/linkis-ecm/auth, readOnly: true}
{{- if .Values.auth.oidc.caConfigMap }}
- {name: oidc, mountPath: /etc/linkis-ecm/oidc, readOnly: true}
{{- end }}
- {name: tmp, mountPath: /tmp}
{{- if include "ecm.embedded" . }}
- {name: data, mountPath: /data}
{{- end }}
{{- end }}

{{- define "ecm.volumes" -}}
{{- if not .Values.archive.url }}
- name: archive
{{- if not .Values.archive.persistence.enabled }}
  emptyDir: {sizeLimit: {{ .Values.archive.persistence.size }}}
{{- else }}
  persistentVolumeClaim:
    claimName: {{ .Values.archive.persistence.existingClaim | default (printf "%s-archive" (include "ecm.name" .)) }}
{{- end }}
{{- end }}
- name: auth
  secret: {secretName: {{ include "ecm.authSecret" . }}, defaultMode: 0440}
{{- if .Values.auth.oidc.caConfigMap }}
- name: oidc
  configMap: {name: {{ .Values.auth.oidc.caConfigMap }}, items: [{key: ca.crt, path: ca.crt}]}
{{- end }}
- name: tmp
  emptyDir: {sizeLimit: 64Mi}
{{- if include "ecm.embedded" . }}
- name: data
{{- if not .Values.persistence.enabled }}
  emptyDir: {sizeLimit: {{ .Values.persistence.size }}}
{{- else }}
  persistentVolumeClaim:
    claimName: {{ .Values.persistence.existingClaim | default (printf "%s-data" (include "ecm.name" .)) }}
{{- end }}
{{- end }}
{{- end }}

{{- define "ecm.operatorContainer" -}}
- name: operator
  image: {{ include "ecm.image" . }}
  imagePullPolicy: {{ .Values.image.pullPolicy }}
  args: [operator]
  env:
    {{- include "ecm.env" . | nindent 4 }}
    - name: ECM_REPORT_URL
      # The last dot makes the name absolute: a pod's resolver would try its search list first.
      value: http://{{ include "ecm.name" . }}-operator.{{ .Release.Namespace }}.svc.cluster.local.:9103
    - name: ECM_ENGINE_SERVICE
      value: {{ .Values.engines.serviceName }}
    - name: ECM_ARCHIVE_DAYS
      value: {{ .Values.archive.days | quote }}
    - name: ECM_ARCHIVE_FILE_MAX_MIB
      value: {{ .Values.archive.fileMaxMiB | quote }}
    - name: ECM_ARCHIVE_TOTAL_MIB
      value: {{ .Values.archive.totalMiB | quote }}
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
  volumeMounts: {{ include "ecm.mounts" . | nindent 4 }}
{{- end }}

{{- define "ecm.gatewayContainer" -}}
- name: gateway
  image: {{ include "ecm.image" . }}
  imagePullPolicy: {{ .Values.image.pullPolicy }}
  args: [gateway]
  env:
    {{- include "ecm.env" . | nindent 4 }}
    - name: ECM_TOKENS_FILE
      value: /etc/linkis-ecm/auth/tokens.json
    - name: ECM_ADMINS
      value: {{ join "," .Values.auth.admins | quote }}
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
    {{- with .Values.gateway.extraEnv }}{{ toYaml . | nindent 4 }}{{- end }}
  ports:
    - {name: http, containerPort: 9102}
  startupProbe: {httpGet: {path: /healthz, port: http}, periodSeconds: 1, failureThreshold: 60}
  livenessProbe: {httpGet: {path: /healthz, port: http}, periodSeconds: 10, timeoutSeconds: 5, failureThreshold: 6}
  readinessProbe: {httpGet: {path: /readyz, port: http}, periodSeconds: 5, timeoutSeconds: 5}
  resources: {{ toYaml .Values.gateway.resources | nindent 4 }}
  securityContext: {{ include "ecm.containerSecurity" . | nindent 4 }}
  volumeMounts: {{ include "ecm.mounts" . | nindent 4 }}
{{- end }}
