//! Devices of the node that change under the agent.

use ipnet::IpNet;
use kinesin_agent_api::types::StatusResponse;
use kinesin_netlink::{Link, Netlink};

use crate::{
    cluster::{CIDRS, Cluster},
    node::{Node, until},
    pods::Pod,
};

fn found(node: &Node, wanted: impl Fn(&Link) -> bool) -> Option<Link> {
    node.links().into_iter().find(wanted)
}

/// Sooner than the periodic pass, which is a minute away and further than a test waits.
#[test]
fn changed_devices_are_noticed_at_once() {
    let mut node = Node::new();
    let _cluster = Cluster::new(&node, &CIDRS);
    node.start();
    node.ready();

    node.shell("ip link set eth0 mtu 1400");
    let mut number = 0;
    until("pods get the uplink's new MTU", || {
        number += 1;
        let pod = Pod::new(format!("c{number}"));
        pod.add(&node).ok();
        let mtu = found(&node, |link| link.name.starts_with("lxc") && link.name != "lxc_health").map(|link| link.mtu);
        pod.del(&node).ok();
        mtu == Some(1400)
    });

    for device in ["cilium_host", "lxc_health"] {
        let before = found(&node, |link| link.name == device).expect("it is there").index;
        node.shell(&format!("ip link delete {device}"));
        until(&format!("{device} is there again"), || {
            found(&node, |link| link.name == device && link.up).is_some_and(|link| link.index != before)
        });
    }
}

/// A router address that the kernel does not receive by keeps nobody waiting, is named, and serves again when it is received.
#[test]
fn a_router_address_that_is_not_received_is_named_and_holds_no_pod() {
    let mut node = Node::new();
    let _cluster = Cluster::new(&node, &CIDRS);
    node.start();
    node.ready();
    let device = found(&node, |link| link.name == "cilium_host").expect("it is there").index;
    let addresses = node.runtime.block_on(async {
        Netlink::in_netns(&node.netns).expect("socket").addresses_of(device).await.expect("addresses")
    });
    let cidr: IpNet = CIDRS[1].parse().expect("a network");
    let router = addresses.into_iter().map(|net| net.addr()).find(|ip| cidr.contains(ip)).expect("an IPv6 address");

    node.shell(&format!("ip -6 route del local {router} dev cilium_host table local; ip link set eth0 mtu 1490"));
    let named = format!("router address {router} are not received");
    node.status_when("told", |status| status.cilium.msg.contains(&named));
    let pod = Pod::new("c1");
    pod.add(&node).ok();

    node.shell(&format!("ip -6 route add local {router} dev cilium_host table local"));
    node.status_when("without complaint", |status| status.cilium.msg.is_empty());
    let is_led = || {
        let routes = async { Netlink::in_netns(&node.netns).expect("socket").routes().await.expect("routes") };
        node.runtime.block_on(routes).iter().any(|route| route.dst == cidr && route.dev == device)
    };
    until("the node reaches its pods by it again", is_led);
    pod.del(&node).ok();
}

/// What was looked for is named with what comes nearest, and pods on the node are connected all the same.
#[test]
fn an_uplink_that_is_down_is_named() {
    let mut node = Node::new();
    let cluster = Cluster::new(&node, &CIDRS);
    node.start();
    node.ready();
    cluster.set_peer(&node, "vxlan:8472");
    node.status_when("routed", |status| status.routing.peers == 1);
    node.shell("ip link set eth0 down");
    let failing = |status: &StatusResponse| {
        let failing = status.controllers.iter().find(|found| found.consecutive_errors > 0);
        failing.map(|found| found.message.clone()).unwrap_or_default()
    };
    let told = failing(&node.status_when("told", |status| failing(status).contains("eth0")));
    for part in ["no device that is up has the node's address 192.168.10.100", "\"eth0\" is down; set it up"] {
        assert!(told.contains(part), "{told}");
    }
    Pod::new("c1").add(&node).ok();
    node.shell("ip link set eth0 up");
    node.status_when("well", |status| failing(status).is_empty());
}
