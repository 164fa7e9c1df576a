//! The backends of this distribution: a crate that is named here is linked, and so registers itself.

use kinesin_cluster_pool as _;
use kinesin_ebpf_tc as _;
use kinesin_encap_geneve as _;
use kinesin_encap_vxlan as _;
use kinesin_host_scope as _;
use kinesin_multi_pool as _;
use kinesin_native_routing as _;

#[cfg(test)]
mod tests {
    use kinesin_core::registry::Registry;

    #[test]
    fn exactly_these_backends_are_compiled_in() {
        let registry = Registry::collect().expect("no name is taken twice");
        let found: Vec<_> =
            registry.descriptors().iter().map(|backend| format!("{} {}", backend.role, backend.name)).collect();
        assert_eq!(
            found,
            [
                "ipam cluster_pool",
                "ipam host_scope",
                "ipam multi_pool",
                "routing geneve",
                "routing native",
                "routing vxlan",
                "chassis ebpf",
            ]
        );
    }
}
