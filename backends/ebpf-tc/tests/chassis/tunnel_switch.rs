//! From any carrier to any other under traffic: node by node, mixed for a while, and nothing is lost.

use std::{sync::Arc, thread, time::Duration};

use kinesin_core::{
    routing::Path,
    values::{Carrier, Family},
};

use crate::{
    node::Node,
    outage::Stream,
    tunnels::{Way, both_tunnels, pair, underlay},
};

/// Time for traffic in a mixed state.
const A_WHILE: Duration = Duration::from_millis(60);

/// `node` sends to `peer` by another carrier from now on.
pub(crate) fn send_by(node: &mut Node, peer: &Node, carrier: Carrier, under: Family) {
    let next = |prefix: &ipnet::IpNet| {
        let family = if carrier == Carrier::Native { Family::of_net(prefix) } else { under };
        let to = underlay(peer, family);
        Path { prefix: *prefix, node: to, carrier, next_hop: Some(to), mtu_bytes: None }
    };
    node.paths = peer.spec.pod_cidrs.iter().map(next).collect();
    let (chassis, paths) = (Arc::clone(&node.chassis), node.paths.clone());
    node.block(move || async move { chassis.set_paths(&paths).await }).expect("set_paths");
    thread::sleep(A_WHILE);
}

#[test]
fn carriers_change_under_traffic_without_loss() {
    let first = Way { carrier: Carrier::Vxlan, under: Family::V4, is_direct: true, is_told: true };
    let (mut a, mut b) = pair(first);
    let (one, other) = (a.pod(10), b.pod(20));
    let streams: Vec<_> = Family::ALL
        .into_iter()
        .flat_map(|family| [Stream::start(&one, &other, family), Stream::start(&other, &one, family)])
        .collect();
    let steps = [
        (Carrier::Geneve, Family::V6),
        (Carrier::Native, Family::V4),
        (Carrier::Geneve, Family::V4),
        (Carrier::Vxlan, Family::V6),
        (Carrier::Native, Family::V6),
    ];
    for (carrier, under) in steps {
        send_by(&mut a, &b, carrier, under);
        send_by(&mut b, &a, carrier, under);
    }
    // Nobody sends by tunnel any more, so that they can be closed, and opened again, one node after the other.
    for tunnels in [Vec::new(), both_tunnels()] {
        for node in [&mut a, &mut b] {
            node.spec.tunnels.clone_from(&tunnels);
            node.apply().expect("apply");
            thread::sleep(A_WHILE);
        }
    }
    send_by(&mut a, &b, Carrier::Vxlan, Family::V4);
    // A new agent finds the tunnels at work, and goes on with them.
    a.restart();
    a.apply().expect("apply");
    send_by(&mut b, &a, Carrier::Vxlan, Family::V4);
    for (number, stream) in streams.into_iter().enumerate() {
        let (sent, received) = stream.end();
        assert!(sent > 100, "stream {number}: {sent}");
        assert_eq!(received, sent, "stream {number}");
    }
    for node in [&a, &b] {
        assert_eq!(node.drops(), []);
    }
}
