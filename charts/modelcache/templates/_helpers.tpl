{{- define "modelcache.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- $release := .Release.Name | replace "." "-" -}}
{{- if contains $name $release -}}
{{- $release | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" $release $name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- /* Labels by which pods of one part are selected. Takes (list $ "part"). */ -}}
{{- define "modelcache.selector" -}}
app.kubernetes.io/name: {{ default (index . 0).Chart.Name (index . 0).Values.nameOverride | trunc 63 | trimSuffix "-" }}
app.kubernetes.io/instance: {{ (index . 0).Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}

{{- /* All labels of an object of one part. Takes (list $ "part"). */ -}}
{{- define "modelcache.labels" -}}
{{- $root := index . 0 -}}
{{ include "modelcache.selector" . }}
app.kubernetes.io/part-of: modelcache
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" }}
{{- with $root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "modelcache.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}
{{ .repository }}@{{ .digest }}
{{- else -}}
{{ .repository }}:{{ default $.Chart.AppVersion .tag }}
{{- end -}}
{{- end -}}
{{- end -}}

{{- /* The user name of a part's ServiceAccount. Takes (list $ "part"). */ -}}
{{- define "modelcache.user" -}}
system:serviceaccount:{{ (index . 0).Release.Namespace }}:{{ include "modelcache.fullname" (index . 0) }}-{{ index . 1 }}
{{- end -}}

{{- /* The variable by which the kubelet tells pods of this namespace the agents' Service address. */ -}}
{{- define "modelcache.agentHostVariable" -}}
{{- include "modelcache.fullname" . | upper | replace "-" "_" }}_AGENT_SERVICE_HOST
{{- end -}}

{{- /* Variables that tell an agent of the proxies; nothing without one. */ -}}
{{- define "modelcache.proxyVariables" -}}
{{- with .Values.proxy.https }}
- {name: HTTPS_PROXY, value: {{ . | quote }}}
{{- end }}
{{- with .Values.proxy.http }}
- {name: HTTP_PROXY, value: {{ . | quote }}}
{{- end }}
{{- if or .Values.proxy.https .Values.proxy.http }}
- {name: NO_PROXY, value: {{ .Values.proxy.noProxy | quote }}}
{{- end }}
{{- end -}}

{{- define "modelcache.clusterKeySecret" -}}
{{- default (printf "%s-cluster-key" (include "modelcache.fullname" .)) .Values.clusterKey.existingSecret -}}
{{- end -}}

{{- define "modelcache.agentCertificateSecret" -}}
{{- default (printf "%s-agent-tls" (include "modelcache.fullname" .)) .Values.agentCertificate.existingSecret -}}
{{- end -}}

{{- /* Scheduling fields of a pod, from one part's values. */ -}}
{{- define "modelcache.scheduling" -}}
priorityClassName: {{ .priorityClassName | quote }}
nodeSelector:
  {{- merge (dict "kubernetes.io/os" "linux") .nodeSelector | toYaml | nindent 2 }}
{{- with .affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- /*
Key and certificate of the agents, made at most once in a rendering and kept in .Values.madeSecrets:
found again by upgrades, made at the first install. Without a cluster (`helm template`) nothing is
found and every rendering makes new ones: there, use `existingSecret`.
The CA's private key is not kept, so nobody can sign a second certificate with it.
*/ -}}
{{- define "modelcache.makeSecrets" -}}
{{- if not (hasKey .Values "madeSecrets") -}}
{{- $fullname := include "modelcache.fullname" . -}}
{{- $made := dict -}}
{{- if not .Values.clusterKey.existingSecret -}}
{{- $found := lookup "v1" "Secret" .Release.Namespace (printf "%s-cluster-key" $fullname) -}}
{{- $new := dict "cluster-key" (randAlphaNum 64 | b64enc) -}}
{{- $_ := set $made "clusterKey" (ternary $new (default dict $found).data (empty $found)) -}}
{{- end -}}
{{- if not .Values.agentCertificate.existingSecret -}}
{{- $found := lookup "v1" "Secret" .Release.Namespace (printf "%s-agent-tls" $fullname) -}}
{{- if $found -}}
{{- $_ := set $made "agentTls" $found.data -}}
{{- else -}}
{{- $days := int .Values.agentCertificate.validityDays -}}
{{- $ca := genCA "modelcache-agents" $days -}}
{{- $cert := genSignedCert "agent.modelcache.io" nil (list "agent.modelcache.io") $days $ca -}}
{{- $_ := set $made "agentTls" (dict "ca.crt" ($ca.Cert | b64enc) "tls.crt" ($cert.Cert | b64enc) "tls.key" ($cert.Key | b64enc)) -}}
{{- end -}}
{{- end -}}
{{- $_ := set .Values "madeSecrets" $made -}}
{{- end -}}
{{- end -}}

{{- /* Changes when key or certificate change: pods that hold them are then replaced. */ -}}
{{- define "modelcache.secretsChecksum" -}}
{{- include "modelcache.makeSecrets" . -}}
{{- list .Values.madeSecrets .Values.clusterKey .Values.agentCertificate.existingSecret | toJson | sha256sum -}}
{{- end -}}
