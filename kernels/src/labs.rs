//! The labs that each kernel gets: together they run every backend and every way of attaching programs.

/// One lab of two nodes, with both address families.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Setup {
    /// Name, which is that of the IPAM backend.
    pub(crate) name: &'static str,
    /// What else is special, for the page.
    pub(crate) attachment: &'static str,
    /// The chart's values.
    pub(crate) values: &'static str,
}

/// All of them.
pub(crate) const SETUPS: [Setup; 3] = [
    Setup { name: "host_scope", attachment: "as it is by default", values: r#"{"backends": {"ipam": "host_scope"}}"# },
    Setup {
        name: "cluster_pool",
        attachment: "`endpointAttach: link`",
        values: r#"{"backends": {"ipam": "cluster_pool"}, "backendConfig": {"ebpf": {"endpointAttach": "link"}}}"#,
    },
    Setup {
        name: "multi_pool",
        attachment: "`enable-tcx: false`",
        values: r#"{
            "backends": {"ipam": "multi_pool"},
            "bpf": {"enableTCX": false},
            "ipam": {"operator": {"autoCreateCiliumPodIPPools": {"default": {
                "ipv4": {"cidrs": ["10.244.0.0/16"], "maskSize": 26},
                "ipv6": {"cidrs": ["fd00:10:100::/112"], "maskSize": 122}
            }}}}
        }"#,
    },
];

/// Nodes of a lab.
pub(crate) const NODES: usize = 2;
/// The node whose attachments are looked at.
pub(crate) const WORKER: &str = "cilium-w1";

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use super::*;

    #[test]
    fn each_setup_is_of_another_backend_and_its_values_say_so() {
        for setup in SETUPS {
            let values: Value = serde_json::from_str(setup.values).expect(setup.name);
            assert_eq!(values["backends"]["ipam"], setup.name);
        }
        assert_eq!(SETUPS.map(|setup| setup.name).into_iter().collect::<BTreeSet<_>>().len(), SETUPS.len());
    }
}
