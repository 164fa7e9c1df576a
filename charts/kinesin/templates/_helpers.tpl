{{/* Namespace of all objects. */}}
{{- define "kinesin.namespace" -}}
{{- .Values.namespaceOverride | default .Release.Namespace -}}
{{- end -}}

{{/* Labels of an object: `root` and those of its own, `labels`. */}}
{{- define "kinesin.labels" -}}
{{- $ours := dict "app.kubernetes.io/part-of" "cilium" -}}
{{- toYaml (merge (dict) (.labels | default dict) $ours (.root.Values.commonLabels | default dict)) -}}
{{- end -}}

{{/* Reference of an image. Takes `root` and `image`, whose empty parts are those of the agent's. */}}
{{- define "kinesin.image" -}}
{{- $base := .root.Values.image -}}
{{- $image := .image -}}
{{- $override := get $image "override" | default (ternary $base.override "" (not (get $image "repository"))) -}}
{{- if $override -}}
  {{- $override -}}
{{- else -}}
  {{- $tag := get $image "tag" | default $base.tag | default .root.Chart.AppVersion -}}
  {{- $own := get $image "repository" -}}
  {{- $digest := ternary (printf "@%s" $base.digest) "" (and (not $own) $base.useDigest (not (empty $base.digest))) -}}
  {{- printf "%s:%s%s" ($own | default $base.repository) $tag $digest -}}
{{- end -}}
{{- end -}}

{{/* Environment of every container that asks the API server. */}}
{{- define "kinesin.env" -}}
- name: K8S_NODE_NAME
  valueFrom:
    fieldRef:
      apiVersion: v1
      fieldPath: spec.nodeName
- name: CILIUM_K8S_NAMESPACE
  valueFrom:
    fieldRef:
      apiVersion: v1
      fieldPath: metadata.namespace
{{- with .Values.k8sServiceHost }}
- name: KUBERNETES_SERVICE_HOST
  value: {{ . | quote }}
{{- end }}
{{- with .Values.k8sServicePort }}
- name: KUBERNETES_SERVICE_PORT
  value: {{ include "kinesin.scalar" . | quote }}
{{- end }}
{{- end -}}

{{/* Another configuration is another pod, if the values say so. */}}
{{- define "kinesin.checksum" -}}
cilium.io/cilium-configmap-checksum: {{ include "kinesin.config" . | sha256sum | quote }}
{{- end -}}
