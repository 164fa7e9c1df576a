//! Devices of the node that change under the agent.

use kinesin_netlink::Link;

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
