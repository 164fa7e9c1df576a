//! Pod CIDRs that are missing, wrong, or change.

use std::{
    net::{IpAddr, SocketAddr, UdpSocket},
    time::Duration,
};

use ipnet::IpNet;
use kinesin_agent_api::types::State;

use crate::{
    cluster::{CIDRS, Cluster},
    leaks,
    node::{Node, until},
    pods::{self, Pod},
};

fn within(addresses: &[IpAddr], cidrs: &[&str]) -> bool {
    let cidrs: Vec<IpNet> = cidrs.iter().map(|cidr| cidr.parse().expect("a network")).collect();
    addresses.iter().all(|address| cidrs.iter().any(|cidr| cidr.contains(address)))
}

/// Whether a datagram goes from one pod to the other's address and back.
pub(crate) fn reaches(from: &Pod, from_ip: IpAddr, to: &Pod, to_ip: IpAddr) -> bool {
    let bind = |pod: &Pod, ip| pod.netns.run(|| UdpSocket::bind(SocketAddr::new(ip, 0))).expect("enter").expect("bind");
    let (asking, answering) = (bind(from, from_ip), bind(to, to_ip));
    for socket in [&asking, &answering] {
        socket.set_read_timeout(Some(Duration::from_millis(500))).expect("socket");
    }
    let mut buffer = [0; 8];
    // The first datagram may be lost to neighbour discovery of a busy machine.
    (0..4).any(|_| {
        asking.send_to(b"ask", answering.local_addr().expect("address")).is_ok()
            && answering.recv_from(&mut buffer).is_ok_and(|(_, peer)| answering.send_to(b"answer", peer).is_ok())
            && asking.recv_from(&mut buffer).is_ok()
    })
}

#[test]
fn wrong_pod_cidrs_are_named_and_right_ones_are_taken() {
    let mut node = Node::new();
    let cluster = Cluster::empty(&node);
    node.start();
    let good = CIDRS;
    let cases: [(&[&str], &[&str]); 5] = [
        (&[], &["spec.podCIDRs", "n1"]),
        (&["192.168.10.0/25", good[1]], &["192.168.10.0/25", "192.168.10.0/24", "overlap"]),
        (&[good[0], "fd00:192:168::/48"], &["fd00:192:168::/48", "fd00:192:168:10::/64", "overlap"]),
        (&["10.244.1.0/31", good[1]], &["10.244.1.0/31", "larger pod CIDR"]),
        (&[good[0]], &["no IPv6 pod CIDR", "both families"]),
    ];
    let pod = Pod::new("c1");
    for (number, (cidrs, told)) in cases.into_iter().enumerate() {
        if number == 0 {
            cluster.create_node(&node, cidrs);
        } else {
            cluster.replace_node(&node, cidrs);
        }
        let status = node.status_when(&format!("aware of {cidrs:?}"), |status| {
            told.iter().all(|part| status.cilium.msg.contains(part))
        });
        assert_eq!(status.cilium.state, State::Failure);
        let error = pod.add(&node).error();
        assert!(told.iter().all(|part| error.contains(part)), "{error}");
        assert_eq!(node.files("/var/run/cilium/state/endpoints"), Vec::<String>::new());
        assert!(node.links().iter().all(|link| !link.name.starts_with("lxc")), "nothing is left");
    }
    cluster.replace_node(&node, &good);
    node.ready();
    pod.add(&node).ok();
    assert_eq!(leaks::consistent(&node).ids.len(), 1);
}

#[test]
fn changed_pod_cidr_keeps_old_pods_and_gives_new_addresses() {
    let mut node = Node::new();
    let cluster = Cluster::new(&node, &CIDRS);
    let later = ["10.244.9.0/24", "fd00:10:244:9::/64"];
    node.start();
    node.ready();
    let (old, new) = (Pod::new("old"), Pod::new("new"));
    let old_result = old.add(&node).ok();
    let old_ips = pods::addresses(&old_result);
    cluster.replace_node(&node, &later);
    let both = [&CIDRS[..], &later[..]].concat();
    let published = |cluster: &Cluster, node: &Node, wanted: &[&str]| {
        let mut found = cluster.published_cidrs(node);
        found.sort();
        let mut wanted: Vec<String> = wanted.iter().map(ToString::to_string).collect();
        wanted.sort();
        found == wanted
    };
    until("both CIDRs are published", || published(&cluster, &node, &both));

    for restart in [false, true] {
        if restart {
            node.kill();
            node.start();
            node.ready();
        }
        assert_eq!(old.add(&node).ok(), old_result);
        let new_ips = pods::addresses(&new.add(&node).ok());
        assert!(within(&new_ips, &later), "{new_ips:?}");
        for (from, to) in old_ips.iter().zip(&new_ips) {
            assert!(reaches(&old, *from, &new, *to) && reaches(&new, *to, &old, *from), "{from} and {to}");
        }
        until("both CIDRs are published", || published(&cluster, &node, &both));
        assert_eq!(leaks::consistent(&node).ids.len(), 2);
    }
    old.del(&node).ok();
    let third = Pod::new("third");
    assert!(within(&pods::addresses(&third.add(&node).ok()), &later));
    new.del(&node).ok();
    third.del(&node).ok();
    leaks::nothing_left(&node);
}

#[test]
fn running_node_goes_on_when_its_new_pod_cidr_is_wrong() {
    let mut node = Node::new();
    let cluster = Cluster::new(&node, &CIDRS);
    node.start();
    node.ready();
    let (one, two) = (Pod::new("one"), Pod::new("two"));
    let ips = pods::addresses(&one.add(&node).ok());
    cluster.replace_node(&node, &["192.168.10.0/24", "fd00:10:244:9::/64"]);
    let status = node.status_when("aware", |status| {
        status.controllers.iter().any(|found| found.message.contains("192.168.10.0/24"))
    });
    assert_eq!(status.cilium.state, State::Ok, "it serves: {status:?}");
    let more = pods::addresses(&two.add(&node).ok());
    assert!(within(&more, &CIDRS), "{more:?}");
    assert!(reaches(&one, ips[0], &two, more[0]) && reaches(&one, ips[1], &two, more[1]));

    // The same after a restart, whose blocks are the wrong ones.
    node.kill();
    node.start();
    node.ready();
    let three = Pod::new("three");
    assert!(within(&pods::addresses(&three.add(&node).ok()), &CIDRS));
    assert_eq!(leaks::consistent(&node).ids.len(), 3);
}
