//! The labs that each kernel gets: together they run every backend and every way of attaching programs, in no more labs
//! than there are backends of one kind.

/// One lab of two nodes, with both address families.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Setup {
    /// Name, which is that of the IPAM backend.
    pub(crate) name: &'static str,
    /// The routing backend.
    pub(crate) routing: &'static str,
    /// What else is special, for the page.
    pub(crate) options: &'static str,
    /// The chart's values.
    pub(crate) values: &'static str,
}

/// All of them.
pub(crate) const SETUPS: [Setup; 3] = [
    Setup {
        name: "host_scope",
        routing: "vxlan",
        options: "as it is by default",
        values: r#"{"backends": {"ipam": "host_scope", "routing": "vxlan"}}"#,
    },
    Setup {
        name: "cluster_pool",
        routing: "geneve",
        options: "`endpointAttach: link`, `underlayProtocol: ipv6`",
        values: r#"{
            "backends": {"ipam": "cluster_pool", "routing": "geneve"},
            "backendConfig": {"ebpf": {"endpointAttach": "link"}},
            "underlayProtocol": "ipv6"
        }"#,
    },
    Setup {
        name: "multi_pool",
        routing: "native",
        options: "`enable-tcx: false`",
        values: r#"{
            "backends": {"ipam": "multi_pool", "routing": "native"},
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
            assert_eq!(values["backends"]["routing"], setup.routing);
        }
        let different = |name: fn(Setup) -> &'static str| SETUPS.map(name).into_iter().collect::<BTreeSet<_>>().len();
        assert_eq!(different(|setup| setup.name), SETUPS.len());
        assert_eq!(different(|setup| setup.routing), SETUPS.len());
    }
}
