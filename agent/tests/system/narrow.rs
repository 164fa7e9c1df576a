//! Ways to other nodes that carry less than this one's uplink, as those nodes announce it or routers say.

use std::{collections::BTreeMap, net::Ipv4Addr, time::Duration};

use kinesin_abi::{EndpointKey, FAMILY_V4, LAYOUT, PathMtuValue, map};
use kinesin_loader::Table;
use kinesin_netlink::Netlink;
use nix::time::{ClockId, clock_gettime};

use crate::{
    cluster::{CIDRS, Cluster, PEER, PEER_ADDRESSES, PEER_CIDRS},
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

/// What routers said of ways to nodes, as the node's programs note it.
fn table(node: &Node) -> Table<EndpointKey, PathMtuValue> {
    let pin = node.path(&format!("/sys/fs/bpf/kinesin/v{LAYOUT}/maps/{}", map::PATH_MTU));
    Table::pinned(map::PATH_MTU, &pin).expect("the programs are there")
}

/// A router has said so of the way to the other node, so long ago.
fn say(node: &Node, mtu: u32, ago: Duration) {
    let address: Ipv4Addr = PEER_ADDRESSES[0].parse().expect("an address");
    let addr = [u32::from_ne_bytes(address.octets()), 0, 0, 0];
    let now = Duration::from(clock_gettime(ClockId::CLOCK_BOOTTIME).expect("a clock"));
    // Before the machine ran counts as when it began to.
    let told = u64::try_from(now.saturating_sub(ago).as_nanos()).expect("it fits");
    let key = EndpointKey { addr, family: FAMILY_V4, pad: [0; 3] };
    table(node).insert(key, PathMtuValue { told, mtu, pad: 0 }).expect("written");
}

#[test]
fn what_a_router_says_holds_over_a_restart_and_for_ten_minutes() {
    let mut node = Node::new();
    let cluster = Cluster::new(&node, &CIDRS);
    cluster.set_peer(&node, "vxlan:8472");
    node.start();
    node.ready();
    wait_for_routes(&node, [1450, 1450]);

    say(&node, 1300, Duration::ZERO);
    wait_for_routes(&node, [1250, 1280]);
    let told = "1300 bytes, as a router on the way says".to_owned();
    node.status_when("told", |status| status.routing.path_mtus.get(PEER) == Some(&told));
    node.kill();
    node.start();
    node.ready();
    wait_for_routes(&node, [1250, 1280]);
    // Whoever says less counts.
    cluster.annotate_peer(&node, MTU, "1290");
    wait_for_routes(&node, [1240, 1280]);

    // A minute short of what it holds, and then beyond. A machine that has not run as long has no such time.
    cluster.annotate_peer(&node, MTU, "1500");
    say(&node, 1310, Duration::from_secs(540));
    wait_for_routes(&node, [1260, 1280]);
    if clock_gettime(ClockId::CLOCK_BOOTTIME).is_ok_and(|now| now.tv_sec() > 610) {
        say(&node, 1310, Duration::from_secs(601));
        wait_for_routes(&node, [1450, 1450]);
        until("it is forgotten", || table(&node).entries().expect("read").is_empty());
        node.status_when("without complaint", |status| status.routing.path_mtus.is_empty());
    }
}
