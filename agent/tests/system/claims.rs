//! Nodes that claim one pod CIDR.

use std::{net::IpAddr, thread, time::Duration};

use kinesin_netlink::Netlink;

use crate::{
    cluster::{CIDRS, Cluster},
    node::{Node, until},
};

const CLAIMED: [&str; 2] = ["10.244.5.0/24", "fd00:10:244:5::/64"];

/// Where the routes to these pod CIDRs lead.
fn next_hops(node: &Node) -> Vec<IpAddr> {
    let routes = node.runtime.block_on(async {
        let inside = Netlink::in_netns(&node.netns).expect("socket");
        inside.routes().await.expect("routes")
    });
    let leads = |cidr: &&str| routes.iter().find(|route| route.dst.to_string() == **cidr)?.via;
    CLAIMED.iter().filter_map(leads).collect()
}

fn addresses(number: u8) -> [String; 2] {
    [format!("192.168.10.{number}"), format!("fd00:192:168:10::{number}")]
}

fn wait_for(node: &Node, number: u8) {
    let wanted: Vec<IpAddr> = addresses(number).iter().map(|ip| ip.parse().expect("an address")).collect();
    until(&format!("the pod CIDRs are those of number {number}"), || next_hops(node) == wanted);
}

#[test]
fn a_newcomer_with_another_nodes_pod_cidr_cuts_nobody_off() {
    let mut node = Node::new();
    let mut cluster = Cluster::new(&node, &CIDRS);
    let native = ["--routing-mode=native", "--auto-direct-node-routes=true"];
    node.start_with(node.agent_command(&native));
    node.ready();
    cluster.create_other(&node, "w9", &addresses(109), &CLAIMED);
    wait_for(&node, 109);
    // Ages are told in whole seconds.
    thread::sleep(Duration::from_millis(1100));
    cluster.create_other(&node, "w1", &addresses(101), &CLAIMED);
    let refused = |node: &mut Node| {
        let status = node.status_when("aware of w1", |status| status.routing.unreachable.contains_key("w1"));
        assert_eq!(status.routing.unreachable.len(), 1, "{:?}", status.routing.unreachable);
        let told = format!("{:?}", status.routing.unreachable);
        for part in
            ["w1", "overlaps 10.244.5.0/24 of node w9, which is the elder node", "give node w1 another pod CIDR"]
        {
            assert!(told.contains(part), "{told}");
        }
    };
    refused(&mut node);
    wait_for(&node, 109);

    // An agent that starts without API server decides as before, by what it has saved.
    cluster.stop(&node);
    node.kill();
    node.start_with(node.agent_command(&native));
    node.ready();
    refused(&mut node);
    wait_for(&node, 109);

    cluster.start(&node);
    cluster.delete_other(&node, "w9");
    wait_for(&node, 101);
    node.status_when("without complaint", |status| status.routing.unreachable.is_empty());
    // Whoever comes back under the same name is young.
    thread::sleep(Duration::from_millis(1100));
    cluster.create_other(&node, "w9", &addresses(109), &CLAIMED);
    node.status_when("aware", |status| format!("{:?}", status.routing.unreachable).contains("w9"));
    wait_for(&node, 101);
}
