{{/* The name of the chart, or nameOverride. */}}
{{- define "<chart>.name" -}}
{{- default .Chart.Name .Values.nameOverride -}}
{{- end }}

{{/*
The prefix of all names. Kubernetes limits names to 63 characters; a longer one is refused, not
truncated, since two releases could then share their objects.
*/}}
{{- define "<chart>.fullname" -}}
{{- $name := include "<chart>.name" . -}}
{{- $full := printf "%s-%s" .Release.Name $name -}}
{{- if contains $name .Release.Name }}{{ $full = .Release.Name }}{{ end -}}
{{- if .Values.fullnameOverride }}{{ $full = .Values.fullnameOverride }}{{ end -}}
{{- if gt (len $full) <longest> -}}
{{- fail (printf "The name %q is too long: %d characters, the maximum is <longest>. Choose a shorter release name, or set fullnameOverride." $full (len $full)) -}}
{{- end -}}
{{- $full -}}
{{- end }}
