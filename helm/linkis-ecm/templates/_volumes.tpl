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
