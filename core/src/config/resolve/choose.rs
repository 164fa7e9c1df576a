//! Which backends run: `backends.*` by registry name, or Cilium's keys for the same choice.

use super::Checked;
use crate::{
    combination::Selection,
    config::keys::{self, words},
};

impl Checked {
    /// The backends, from `backends.*` or from Cilium's keys for the same choice.
    pub(super) fn selection(&mut self) -> Selection {
        let optional = |value: &str| (!value.is_empty()).then(|| value.to_owned());
        Selection {
            ipam: self.choose_ipam(),
            routing: self.choose_routing(),
            load_balancer: words(self.get("backends.load-balancer")).map(str::to_owned).collect(),
            policy: optional(self.get("backends.policy")),
            masquerade: optional(self.get("backends.masquerade")),
            chassis: self.get("backends.chassis").to_owned(),
        }
    }

    fn choose_ipam(&mut self) -> String {
        let alias = ipam_backend(self.get("ipam"));
        let Some(named) = self.values.get("backends.ipam").cloned() else {
            let source = self.source_of("ipam");
            self.derived.insert("backends.ipam", (alias.clone(), source));
            return alias;
        };
        if self.values.contains_key("ipam") {
            if alias != named.value {
                let reason = format!("ipam names the backend {alias:?}");
                self.contradict("backends.ipam", "ipam", &reason, "remove one of them");
            }
        } else {
            let mode = ipam_mode(&named.value);
            self.derived.insert("ipam", (mode, "backends.ipam".to_owned()));
        }
        named.value
    }

    fn choose_routing(&mut self) -> String {
        let tunnel = self.get("routing-mode") == "tunnel";
        let alias = if tunnel { self.get("tunnel-protocol") } else { "native" }.to_owned();
        let Some(named) = self.values.get("backends.routing").cloned() else {
            let source = self.source_of("routing-mode");
            self.derived.insert("backends.routing", (alias.clone(), source));
            return alias;
        };
        let is_tunnel = matches!(named.value.as_str(), "vxlan" | "geneve");
        if !self.values.contains_key("routing-mode") {
            let mode = if is_tunnel { "tunnel" } else { "native" };
            self.derived.insert("routing-mode", (mode.to_owned(), "backends.routing".to_owned()));
        } else if tunnel != is_tunnel {
            let reason = format!("routing-mode names the backend {alias:?}");
            self.contradict("backends.routing", "routing-mode", &reason, "remove one of them");
            return named.value;
        }
        if is_tunnel && !self.values.contains_key("tunnel-protocol") {
            self.derived.insert("tunnel-protocol", (named.value.clone(), "backends.routing".to_owned()));
        } else if is_tunnel && self.get("tunnel-protocol") != named.value {
            let reason = "they name different carriers";
            self.contradict("backends.routing", "tunnel-protocol", reason, "remove one of them");
        }
        named.value
    }

    fn source_of(&self, key: &'static str) -> String {
        if self.values.contains_key(key) { key.to_owned() } else { "default".to_owned() }
    }
}

fn ipam_backend(mode: &str) -> String {
    if mode == "kubernetes" { "host_scope".to_owned() } else { mode.replace('-', "_") }
}

/// Cilium's word for an IPAM backend; empty for one that Cilium does not have.
fn ipam_mode(backend: &str) -> String {
    let mode = if backend == "host_scope" { "kubernetes".to_owned() } else { backend.replace('_', "-") };
    let known = keys::find("ipam").is_some_and(|key| key.kind.check(&mode).is_ok());
    if known { mode } else { String::new() }
}
