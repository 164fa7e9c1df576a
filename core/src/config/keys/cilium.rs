//! Keys of Cilium's chart whose features are not built into this version.

use super::{
    Class::NotBuilt,
    Key,
    Kind::{self, Bool, Choice, Duration, Int, List, Text},
};

const fn key(key: &'static str, helm: &'static str, kind: Kind, default: &'static str, feature: &'static str) -> Key {
    Key::new(key, helm, kind, default, feature, NotBuilt(&[]))
}

#[rustfmt::skip]
pub(super) const KEYS: &[Key] = &[
    key("kube-proxy-replacement", "kubeProxyReplacement", Bool, "false", "service load balancing"),
    key("enable-ipv4-masquerade", "enableIPv4Masquerade", Bool, "true", "masquerading"),
    key("enable-ipv6-masquerade", "enableIPv6Masquerade", Bool, "true", "masquerading"),
    key("enable-hubble", "hubble.enabled", Bool, "true", "Hubble"),
    key("enable-policy", "policyEnforcementMode", Choice(&["default", "always", "never"]), "default", "network policy"),
    key("bpf-map-dynamic-size-ratio", "bpf.mapDynamicSizeRatio", Kind::Ratio, "0.0025", "sizing of maps by memory"),
    key("prometheus-serve-addr", "prometheus.port", Text, "", "Prometheus metrics"),
    key("labels", "labels", List, "", "identities"),
    key("cluster-id", "cluster.id", Int(0, 511), "0", "cluster mesh"),
    key("identity-gc-interval", "operator.identityGCInterval", Duration, "15m0s", "identities"),
];

/// Paths of the values file that shape manifests only.
pub(super) const CHART_ONLY: &[&str] =
    &["image", "imagePullSecrets", "resources", "tolerations", "affinity", "nodeSelector"];
