{{- /* Names: the cluster's DNS, by the peers of networkPolicy.dns. */}}
{{- define "ecm.dnsEgress" -}}
- to: {{ toYaml .Values.networkPolicy.dns | nindent 4 }}
  ports:
    {{- range .Values.networkPolicy.dnsPorts }}
    - {port: {{ . }}, protocol: UDP}
    - {port: {{ . }}, protocol: TCP}
    {{- end }}
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

{{- /* "true" where all of the CIDR `inner` is in `outer`. Both are compared as text, one character a bit. */}}
{{- define "ecm.within" -}}
{{- $inner := splitList "/" .inner }}
{{- $outer := splitList "/" .outer }}
{{- if eq (contains ":" .inner) (contains ":" .outer) }}
  {{- $bits := int (index $outer 1) }}
  {{- if le $bits (int (index $inner 1)) }}
    {{- if hasPrefix (include "ecm.bits" (index $outer 0) | trunc $bits) (include "ecm.bits" (index $inner 0)) }}true{{ end }}
  {{- end }}
{{- end }}
{{- end }}

{{- /* An address as text of 32 or 128 characters 0 and 1. It may be written in every form of RFC 4291, but for the one with
       an IPv4 address at its end, which values.schema.json refuses. Fails for what is no address. */}}
{{- define "ecm.bits" -}}
{{- if contains ":" . }}
  {{- $halves := splitList "::" (lower .) }}
  {{- $left := compact (splitList ":" (first $halves)) }}
  {{- $right := list }}
  {{- if eq (len $halves) 2 }}{{ $right = compact (splitList ":" (last $halves)) }}{{ end }}
  {{- $missing := int (sub 8 (add (len $left) (len $right))) }}
  {{- if or (gt (len $halves) 2) (lt $missing (sub (len $halves) 1 | int)) (and (eq (len $halves) 1) (ne $missing 0)) (contains ":::" .) }}
    {{- fail (printf "networkPolicy has %s, which is no IPv6 address: write eight groups of hexadecimal digits, or :: once for the groups of zeros" .) }}
  {{- end }}
  {{- $bits := dict "0" "0000" "1" "0001" "2" "0010" "3" "0011" "4" "0100" "5" "0101" "6" "0110" "7" "0111" "8" "1000" "9" "1001" "a" "1010" "b" "1011" "c" "1100" "d" "1101" "e" "1110" "f" "1111" }}
  {{- $groups := $left }}
  {{- range until $missing }}{{ $groups = append $groups "0" }}{{ end }}
  {{- range concat $groups $right }}
    {{- range $digit := splitList "" (printf "%04s" . | replace " " "0") }}{{ get $bits $digit }}{{ end }}
  {{- end }}
{{- else }}
  {{- range splitList "." . }}
    {{- $byte := atoi . }}
    {{- range list 128 64 32 16 8 4 2 1 }}{{ mod (div $byte .) 2 }}{{ end }}
  {{- end }}
{{- end }}
{{- end }}
