//! Nodes whose uplinks carry less than this one's, as they announce it.

use std::collections::BTreeMap;

use kinesin_netlink::Netlink;

use crate::{
    cluster::{CIDRS, Cluster, PEER, PEER_CIDRS},
    node::{Node, until},
};

const MTU: &str = "routing.kinesin.io/mtu";

/// MTU of the routes to the other node's pods.
fn route_mtus(node: &Node) -> BTreeMap<String, Option<u32>> {
    let routes = node.runtime.block_on(async { Netlink::in_netns(&node.netns).expect("socket").routes().await });
    let routes = routes.expect("routes").into_iter().map(|route| (route.dst.to_string(), route.mtu));
    routes.filter(|(dst, _)| PEER_CIDRS.contains(&dst.as_str())).collect()
}

fn wait_for_routes(node: &Node, [v4, v6]: [u32; 2]) {
    let wanted = PEER_CIDRS.into_iter().map(str::to_owned).zip([Some(v4), Some(v6)]).collect();
    let mut last = BTreeMap::new();
    let mut is_there = || {
        last = route_mtus(node);
        last == wanted
    };
    until(&format!("routes have the MTU {wanted:?}"), &mut is_there);
}

#[test]
fn a_narrower_node_is_taken_at_its_word_unless_it_is_nonsense() {
    let mut node = Node::new();
    let cluster = Cluster::new(&node, &CIDRS);
    cluster.set_peer(&node, "vxlan:8472");
    node.start();
    node.ready();
    wait_for_routes(&node, [1450, 1450]);
    until("the own MTU is announced", || cluster.annotation(&node, MTU).as_deref() == Some("1500"));

    // IPv6 pods keep their least MTU.
    for (said, mtus) in [("1400", [1350, 1350]), ("1300", [1250, 1280])] {
        cluster.annotate_peer(&node, MTU, said);
        wait_for_routes(&node, mtus);
        let told = format!("{said} bytes, as it announces");
        node.status_when("told", |status| status.routing.path_mtus.get(PEER) == Some(&told));
    }
    // It stays known over a restart, also while nobody could tell it.
    node.kill();
    node.start();
    node.ready();
    wait_for_routes(&node, [1250, 1280]);

    for nonsense in ["0", "1279", "65536", "wide"] {
        cluster.annotate_peer(&node, MTU, nonsense);
        let status = node.status_when("refused", |status| status.cilium.msg.contains(&format!("{nonsense:?}")));
        assert!(status.cilium.msg.contains(PEER) && status.routing.path_mtus.is_empty(), "{status:?}");
        wait_for_routes(&node, [1450, 1450]);
    }
    cluster.annotate_peer(&node, MTU, "9000");
    node.status_when("without complaint", |status| status.cilium.msg.is_empty());
    wait_for_routes(&node, [1450, 1450]);

    node.shell("ip link set eth0 mtu 1420");
    until("the new MTU is announced", || cluster.annotation(&node, MTU).as_deref() == Some("1420"));
    wait_for_routes(&node, [1370, 1370]);
}
