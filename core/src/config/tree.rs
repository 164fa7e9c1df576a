//! The typed tree that the rest of the program reads.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    time::Duration,
};

use ipnet::IpNet;
use serde::Serialize;

use super::{
    error::ConfigError,
    layers::{self, Sources},
    resolve,
    section::Section,
};
use crate::{
    combination::Selection,
    values::{Families, Underlay},
};

/// An accepted configuration.
///
/// Cheap to compare, so that a reload can tell whether anything changed; [`Config::changed`] says what.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// The backends, by registry name. Whether they are compiled in is the registry's to say.
    pub selection: Selection,
    /// `enable-ipv4`, `enable-ipv6`: families that pods use; at least one.
    pub families: Families,
    /// `ipv4-native-routing-cidr`: what the network routes by itself.
    pub ipv4_native_routing_cidr: Option<IpNet>,
    /// `ipv6-native-routing-cidr`: what the network routes by itself.
    pub ipv6_native_routing_cidr: Option<IpNet>,
    /// `auto-direct-node-routes`: whether routes to other nodes' pod CIDRs are set; always false under a tunnel.
    pub auto_direct_node_routes: bool,
    /// Whether direct routes are set to nodes that are still reached natively while this one prefers a tunnel: unless
    /// `auto-direct-node-routes` was written as false.
    pub direct_routes_beside_tunnels: bool,
    /// `direct-routing-skip-unreachable`: whether nodes on other segments are left out instead of reported.
    pub direct_routing_skip_unreachable: bool,
    /// `devices`: names of the underlay devices, a `+` at the end standing for any suffix; empty for detection.
    pub devices: Vec<String>,
    /// `force-device-detection`: whether `devices` adds to what is detected instead of replacing it.
    pub force_device_detection: bool,
    /// `mtu` in bytes; absent for detection.
    pub mtu_bytes: Option<u16>,
    /// `enable-tcx`: whether programs may be attached by tcx; clsact otherwise.
    pub enable_tcx: bool,
    /// `underlay-protocol`: family of the tunnels' outer headers.
    pub underlay: Underlay,
    /// `tunnel-port`: absent for the protocol's own (VXLAN 8472, Geneve 6081).
    pub tunnel_port: Option<u16>,
    /// `debug`: whether the log has debug lines.
    pub debug: bool,
    /// `cluster-name`.
    pub cluster_name: String,
    /// `bpf-root`: where bpffs is mounted.
    pub bpf_root: PathBuf,
    /// `state-dir`: directory of the agent's run-time files.
    pub state_dir: PathBuf,
    /// `socket-path`: where the agent listens.
    pub socket_path: PathBuf,
    /// The CNI configuration and the plugin's log.
    pub cni: CniConfig,
    /// How to reach the Kubernetes API.
    pub k8s: KubernetesConfig,
    /// Health endpoint and probes.
    pub health: HealthConfig,
    /// `ipam-cilium-node-update-rate`: how often the node's needs are published while its blocks cover them.
    pub ipam_update_rate: Duration,
    pub(super) entries: Vec<Entry>,
    pub(super) notices: Vec<String>,
    pub(super) sections: BTreeMap<String, Section>,
}

/// `write-cni-conf-when-ready`, `cni-*`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CniConfig {
    /// `write-cni-conf-when-ready`: the file to write; absent when the agent must write none (`custom-cni-conf`).
    pub conf_path: Option<PathBuf>,
    /// `cni-log-file`: where the plugin logs.
    pub log_file: PathBuf,
    /// `cni-exclusive`: whether other CNI configurations are set aside.
    pub exclusive: bool,
    /// `cni-status-on-exhaustion`: whether CNI STATUS fails while a pool is full.
    pub status_on_exhaustion: bool,
}

/// `k8s-*`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KubernetesConfig {
    /// `k8s-kubeconfig-path`; absent inside a cluster.
    pub kubeconfig_path: Option<PathBuf>,
    /// `k8s-api-server`: URL that replaces the kubeconfig's; absent for the kubeconfig's.
    pub api_server: Option<String>,
}

/// `enable-*health*`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthConfig {
    /// `enable-health-checking`: whether nodes are probed at all.
    pub enabled: bool,
    /// `enable-endpoint-health-checking`: whether this node has a health endpoint (`lxc_health`).
    pub endpoint: bool,
    /// `cluster-health-port`: TCP port of the responder.
    pub port: u16,
}

/// One key of the effective configuration, as `kinesin config view` prints it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// ConfigMap key; `backend.<name>.<key>` for a backend's own.
    pub key: String,
    /// The value that runs.
    pub value: String,
    /// `default`, a file, an environment variable, a flag, or the key that this one follows from.
    pub source: String,
}

impl Config {
    /// Reads and checks the sources: defaults, then the directory or the file, then the environment, then flags.
    ///
    /// Touches nothing but the files it reads.
    ///
    /// # Errors
    /// [`ConfigError`] with every problem that was found.
    pub fn load(sources: &Sources) -> Result<Self, ConfigError> {
        resolve::resolve(layers::read(sources))
    }

    /// Every key of ours, every other key that was set, and every key of a section, sorted by key.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Keys that were accepted although their feature is not built, one sentence each, for the log.
    #[must_use]
    pub fn notices(&self) -> &[String] {
        &self.notices
    }

    /// The section `backendConfig.<name>`; empty if nothing was set.
    #[must_use]
    pub fn section(&self, name: &str) -> Section {
        self.sections.get(name).cloned().unwrap_or_else(|| Section::new(name, serde_json::Map::new()))
    }

    /// Names of all sections that were written, whether or not such a backend exists.
    pub fn section_names(&self) -> impl Iterator<Item = &str> {
        self.sections.keys().map(String::as_str)
    }

    /// Keys whose value differs between the two, sorted.
    #[must_use]
    pub fn changed(&self, other: &Self) -> Vec<String> {
        let mine: BTreeSet<_> = self.entries.iter().map(|entry| (&entry.key, &entry.value)).collect();
        let theirs: BTreeSet<_> = other.entries.iter().map(|entry| (&entry.key, &entry.value)).collect();
        let keys: BTreeSet<_> = mine.symmetric_difference(&theirs).map(|(key, _)| (*key).clone()).collect();
        keys.into_iter().collect()
    }
}
