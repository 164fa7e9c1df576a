//! Offloads, switched in a namespace of the test's own. Needs root.

use kinesin_netlink::{NetNs, Netlink, VethSpec, switch_features};

#[test]
fn as_root_a_feature_is_switched_once_and_unknown_ones_are_left_alone() {
    let netns = NetNs::anonymous().expect("root");
    let test = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
        runtime.block_on(async {
            let spec = VethSpec { name: "a", mac: None, peer_name: "b", peer_mac: None, peer_netns: None, mtu: None };
            Netlink::new().expect("socket").add_veth(&spec).await.expect("veth");
        });
        let feature = "tx-udp-segmentation";
        for (on, changes) in [(false, true), (false, false), (true, true), (true, false)] {
            assert_eq!(switch_features("a", &[feature, "tx-by-pigeon"], on).expect("switched"), changes, "{on}");
        }
        assert!(!switch_features("a", &["tx-by-pigeon"], false).expect("nothing to switch"));
        for wrong in ["missing0", "", "a-name-that-is-far-too-long", "a\0b"] {
            let error = switch_features(wrong, &[feature], false).expect_err("no such device").to_string();
            assert!(error.contains(feature) && error.contains("off"), "{error}");
        }
    };
    netns.run(test).expect("the test in the namespace");
}
