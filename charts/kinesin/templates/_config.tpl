{{/*
The keys of the ConfigMap cilium-config. files/keys.json is the table that core/src/config has; what happens here is what
`kinesin_core::config::to_config_map` does, and a test compares both.
*/}}

{{/* Text of a string, number or boolean. Values from a file have every number as a float. */}}
{{- define "kinesin.scalar" -}}
{{- if kindIs "float64" . -}}
  {{- if eq . (floor .) -}}{{ int64 . }}{{- else -}}{{ . }}{{- end -}}
{{- else if not (kindIs "invalid" .) -}}{{ toString . }}{{- end -}}
{{- end -}}

{{/* NAME=ATTR;ATTR per pool, joined by commas. */}}
{{- define "kinesin.pools" -}}
{{- $pools := list -}}
{{- range $name, $pool := . -}}
  {{- $attributes := list -}}
  {{- range $family := list "ipv4" "ipv6" -}}
    {{- with get $pool $family -}}
      {{- $cidrs := get . "cidrs" -}}
      {{- if kindIs "slice" $cidrs -}}{{- $cidrs = join "," $cidrs -}}{{- end -}}
      {{- if $cidrs -}}{{- $attributes = append $attributes (printf "%s-cidrs:%s" $family $cidrs) -}}{{- end -}}
      {{- with get . "maskSize" -}}
        {{- $attributes = append $attributes (printf "%s-mask-size:%s" $family (include "kinesin.scalar" .)) -}}
      {{- end -}}
    {{- end -}}
  {{- end -}}
  {{- $pools = append $pools (printf "%s=%s" $name (join ";" $attributes)) -}}
{{- end -}}
{{- join "," $pools -}}
{{- end -}}

{{/* The text of a value. Takes `entry` of the table and `value`. */}}
{{- define "kinesin.text" -}}
{{- $value := .value -}}
{{- if kindIs "slice" $value -}}
  {{- $words := list -}}
  {{- range $value -}}{{- $words = append $words (include "kinesin.scalar" .) -}}{{- end -}}
  {{- join " " $words -}}
{{- else if and (kindIs "map" $value) (hasKey .entry "pools") -}}
  {{- include "kinesin.pools" $value -}}
{{- else if kindIs "map" $value -}}
  {{- $pairs := list -}}
  {{- range $name, $item := $value -}}
    {{- $pairs = append $pairs (printf "%s=%s" $name (include "kinesin.scalar" $item)) -}}
  {{- end -}}
  {{- join "," ($pairs | sortAlpha) -}}
{{- else if and (hasKey .entry "suffix") $value -}}
  {{- printf "%s%s" (trimSuffix "/" $value) .entry.suffix -}}
{{- else -}}
  {{- include "kinesin.scalar" $value -}}
{{- end -}}
{{- end -}}

{{/* Puts options of backends into `out`: mappings become dotted keys, lists JSON. Takes `out`, `prefix` and `values`. */}}
{{- define "kinesin.sections" -}}
{{- $out := .out -}}
{{- $prefix := .prefix -}}
{{- range $name, $value := .values -}}
  {{- $key := printf "%s.%s" $prefix $name -}}
  {{- if kindIs "map" $value -}}
    {{- include "kinesin.sections" (dict "out" $out "prefix" $key "values" $value) -}}
  {{- else if kindIs "slice" $value -}}
    {{- $_ := set $out $key (toRawJson $value) -}}
  {{- else -}}
    {{- with include "kinesin.scalar" $value | trim -}}{{- $_ := set $out $key . -}}{{- end -}}
  {{- end -}}
{{- end -}}
{{- end -}}

{{/* What stands in the values at a dotted path, as `value` of the answer in JSON; null if nothing does. */}}
{{- define "kinesin.at" -}}
{{- $found := dict "value" .values -}}
{{- range splitList "." .path -}}
  {{- if and (kindIs "map" $found.value) (hasKey $found.value .) -}}
    {{- $_ := set $found "value" (get $found.value .) -}}
  {{- else -}}
    {{- $_ := set $found "value" nil -}}
  {{- end -}}
{{- end -}}
{{- toRawJson $found -}}
{{- end -}}

{{/* The ConfigMap's data as JSON. Fails with everything that is wrong with the values. */}}
{{- define "kinesin.config" -}}
{{- $values := .Values -}}
{{- $table := .Files.Get "files/keys.json" | fromJson -}}
{{- $written := dict -}}
{{- $problems := list -}}
{{- range $entry := $table.keys -}}
  {{- if $entry.path -}}
    {{- $found := include "kinesin.at" (dict "values" $values "path" $entry.path) | fromJson -}}
    {{- $text := include "kinesin.text" (dict "entry" $entry "value" $found.value) | trim -}}
    {{- if and $text (hasKey $entry "chartOnly") -}}
      {{- if not (has $text $entry.accepts) -}}
        {{- $problems = append $problems (printf "%s=%q: %s is not built into this version; %s" $entry.path $text $entry.feature $entry.remedy) -}}
      {{- end -}}
    {{- else if $text -}}
      {{- $_ := set $written $entry.key $text -}}
    {{- end -}}
  {{- end -}}
{{- end -}}
{{- include "kinesin.sections" (dict "out" $written "prefix" "backend" "values" ($values.backendConfig | default dict)) -}}
{{- range $key, $value := $values.extraConfig -}}
  {{- with include "kinesin.scalar" $value | trim -}}{{- $_ := set $written $key . -}}{{- end -}}
{{- end -}}
{{- range $removed := $table.removed -}}
  {{- $found := include "kinesin.at" (dict "values" $values "path" (first $removed)) | fromJson -}}
  {{- $isAnother := and (eq (len $removed) 3) (kindIs "map" $found.value) -}}
  {{- if not (or (kindIs "invalid" $found.value) $isAnother) -}}
    {{- $problems = append $problems (printf "%s was removed; %s" (first $removed) (last $removed)) -}}
  {{- end -}}
{{- end -}}

{{/* Defaults of ours. An alias must not contradict a choice by registry name, so it is left out then. */}}
{{- $map := dict -}}
{{- range $entry := $table.keys -}}
  {{- if and (eq $entry.class "ours") $entry.path (hasKey $entry "default") -}}
    {{- $_ := set $map $entry.key $entry.default -}}
  {{- end -}}
{{- end -}}
{{- if hasKey $written "backends.ipam" -}}{{- $_ := unset $map "ipam" -}}{{- end -}}
{{- if hasKey $written "backends.routing" -}}
  {{- $_ := unset $map "routing-mode" -}}
  {{- $_ := unset $map "tunnel-protocol" -}}
  {{- $_ := unset $map "auto-direct-node-routes" -}}
{{- end -}}
{{- range $key, $value := $written -}}{{- $_ := set $map $key $value -}}{{- end -}}
{{- if and (eq (get $map "routing-mode") "tunnel") (not (hasKey $written "auto-direct-node-routes")) -}}
  {{- $_ := unset $map "auto-direct-node-routes" -}}
{{- end -}}

{{/*
Defaults of the chosen IPAM mode; what the values set stays in any mode, since nodes may be on their way from one to another.
Those of IPv6 are of no use without it, and how much is kept ready per pool is left to the agent's own default.
*/}}
{{- $mode := get $map "ipam" -}}
{{- range $entry := $table.keys -}}
  {{- if and (eq $entry.class "backend") $entry.path (hasKey $entry "default") (eq (replace "-" "_" $mode) (get $entry "backend")) -}}
    {{- $unused := and (hasPrefix "cluster-pool-ipv6-" $entry.key) (ne (get $map "enable-ipv6") "true") -}}
    {{- if not (or $unused (hasKey $map $entry.key) (eq $entry.key "ipam-multi-pool-pre-allocation")) -}}
      {{- $_ := set $map $entry.key $entry.default -}}
    {{- end -}}
  {{- end -}}
{{- end -}}

{{- range $entry := $table.keys -}}
  {{- if and (eq $entry.class "unbuilt") (hasKey $map $entry.key) -}}
    {{- $value := get $map $entry.key -}}
    {{- $plain := ternary (regexReplaceAll "[\\s,]+" $value " ") $value (hasKey $entry "words") -}}
    {{- if not (has $plain $entry.accepts) -}}
      {{- $problems = append $problems (printf "%s=%q: %s is not built into this version; %s" ($entry.path | default $entry.key) $value $entry.feature $entry.remedy) -}}
    {{- end -}}
  {{- end -}}
{{- end -}}
{{- if $problems -}}
  {{- fail (printf "\nthe values are refused:\n  %s\n" (join "\n  " $problems)) -}}
{{- end -}}
{{- toRawJson $map -}}
{{- end -}}
