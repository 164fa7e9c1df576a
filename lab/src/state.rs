//! What is known of a lab between commands.

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

use crate::{
    LabError,
    layout::{self, Layout},
    process::Process,
    spec::{Families, PodRange, Spec, node_addresses, pod_ranges},
};

/// The file `state.json` of a lab; written under the lab's lock, whole.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct State {
    pub(crate) name: String,
    pub(crate) families: Families,
    #[serde(default = "one")]
    pub(crate) segments: usize,
    pub(crate) mtu_bytes: u16,
    pub(crate) pod_ranges: Vec<PodRange>,
    pub(crate) bin_dir: PathBuf,
    pub(crate) nodes: Vec<NodeState>,
    pub(crate) segment: Option<Process>,
    pub(crate) control: Option<Process>,
    /// Port of the API server on this machine's loopback; kept over restarts.
    pub(crate) api_port: u16,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct NodeState {
    pub(crate) name: String,
    /// Of which segment of the underlay.
    #[serde(default)]
    pub(crate) segment: usize,
    pub(crate) addresses: Vec<IpNet>,
    pub(crate) holder: Option<Process>,
}

/// What labs had before there was a choice.
fn one() -> usize {
    1
}

impl State {
    pub(crate) fn new(spec: &Spec) -> Self {
        let nodes = spec.node_names().into_iter().enumerate().map(|(index, name)| NodeState {
            name,
            segment: index % spec.segments.max(1),
            addresses: node_addresses(spec.families, spec.segments, index),
            holder: None,
        });
        Self {
            name: spec.name.clone(),
            families: spec.families,
            segments: spec.segments,
            mtu_bytes: spec.mtu_bytes,
            pod_ranges: pod_ranges(spec.families, &spec.pod_ranges),
            bin_dir: spec.bin_dir.clone(),
            nodes: nodes.collect(),
            segment: None,
            control: None,
            api_port: 0,
        }
    }

    pub(crate) fn load(layout: &Layout) -> Result<Option<Self>, LabError> {
        layout::read_json(&layout.state())
    }

    pub(crate) fn save(&self, layout: &Layout) -> Result<(), LabError> {
        layout::write_json(&layout.state(), self)
    }

    /// What of the specification an existing lab does not have.
    pub(crate) fn difference(&self, spec: &Spec) -> Option<String> {
        if self.nodes.len() != spec.nodes {
            return Some(format!("{} nodes", self.nodes.len()));
        }
        if self.families != spec.families {
            return Some(format!("families {}", self.families));
        }
        if self.segments != spec.segments {
            return Some(format!("{} segments", self.segments));
        }
        if self.pod_ranges != pod_ranges(spec.families, &spec.pod_ranges) {
            let ranges = self.pod_ranges.iter().map(|range| format!("{}={}", range.cidr, range.node_prefix));
            return Some(format!("pod CIDRs from {}", ranges.collect::<Vec<_>>().join(", ")));
        }
        (self.mtu_bytes != spec.mtu_bytes).then(|| format!("an MTU of {} bytes", self.mtu_bytes))
    }

    /// Whether every process of the lab itself runs.
    pub(crate) fn is_whole(&self) -> bool {
        let alive = |process: &Option<Process>| process.is_some_and(|process| process.is_alive());
        alive(&self.segment) && alive(&self.control) && self.nodes.iter().all(|node| alive(&node.holder))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_shape_is_told_apart_from_other_values() {
        let spec = Spec::default();
        let state = State::new(&spec);
        assert_eq!(state.difference(&spec), None);
        assert_eq!(state.difference(&Spec { values: "debug: {enabled: true}".into(), ..spec.clone() }), None);
        assert_eq!(state.difference(&Spec { nodes: 2, ..spec.clone() }).as_deref(), Some("3 nodes"));
        let other = Spec { families: Families::Ipv4, ..spec.clone() };
        assert_eq!(state.difference(&other).as_deref(), Some("families dual"));
        assert_eq!(state.difference(&Spec { segments: 2, ..spec.clone() }).as_deref(), Some("1 segments"));
        assert!(state.difference(&Spec { mtu_bytes: 9000, ..spec }).is_some_and(|told| told.contains("1500")));
        assert!(!state.is_whole());
    }
}
