//! ADDs that fail leave nothing behind.

use kinesin_agent_api::{EndpointNetworking, ErrorBody, ErrorKind};
use kinesin_netlink::{Netlink, Route, VethSpec};
use serde_json::json;

use crate::node::{CONTAINER, Node, pod};

fn assert_nothing_left(node: &Node, netns: &kinesin_netlink::NetNs) {
    assert_eq!(node.host_ends(), Vec::<String>::new());
    let inside: Vec<_> = node.links(netns).into_iter().filter(|link| link.name == "eth0").collect();
    assert!(inside.is_empty(), "{inside:?}");
}

#[test]
fn refusals_of_the_agent_take_the_pair_away_and_keep_their_words() {
    let table = [
        (
            502,
            ErrorKind::Exhausted,
            11,
            "unable to allocate IP via local cilium agent: [POST /ipam][502] postIpamFailure \"range is full\"; why",
        ),
        (503, ErrorKind::Unavailable, 11, "unable to create endpoint; [PUT /endpoint/"),
        (500, ErrorKind::Internal, 999, "[500] why"),
        (400, ErrorKind::Invalid, 999, "[400] why"),
        (404, ErrorKind::NotFound, 11, "[404] why"),
        (409, ErrorKind::Conflict, 999, "[409] why"),
    ];
    for (status, kind, code, text) in table {
        let node = Node::new();
        let (netns, path) = pod();
        node.agent().shared().refuse_put = Some((status, ErrorBody { kind, message: "why".to_owned() }));
        let error = node.command("ADD", &path, json!({})).error(code);
        assert!(error.contains(text), "{kind:?}: {text:?} not in {error}");
        assert_nothing_left(&node, &netns);
        let last = node.agent().shared().requests.last().cloned();
        assert_eq!(last, Some(format!("DELETE {CONTAINER}:eth0")), "{kind:?}");
    }
}

#[test]
fn unusable_answer_takes_the_pair_and_the_endpoint_away() {
    let node = Node::new();
    let (netns, path) = pod();
    node.agent().shared().networking = Some(EndpointNetworking::default());
    let error = node.command("ADD", &path, json!({})).error(999);
    assert!(error.contains("neither IPv4 nor IPv6"), "{error}");
    assert_nothing_left(&node, &netns);
    assert!(node.agent().shared().endpoints.is_empty());
}

#[test]
fn kernel_refusal_in_the_pod_takes_the_pair_and_the_endpoint_away() {
    let node = Node::new();
    let (netns, path) = pod();
    // More than a veth device can have (Linux `drivers/net/veth.c`, `ETH_MAX_MTU`).
    let mut networking = EndpointNetworking { device_mtu: 70_000, route_mtu: 1500, ..EndpointNetworking::default() };
    networking
        .addressing
        .push(kinesin_agent_api::AddressPair { ip: "10.1.0.9".parse().expect("ip"), pool: "p".into() });
    networking.gateways.push("10.1.0.1".parse().expect("ip"));
    node.agent().shared().networking = Some(networking);
    let error = node.command("ADD", &path, json!({})).error(999);
    assert!(error.contains("cannot set up the pod's network"), "{error}");
    assert_nothing_left(&node, &netns);
    assert!(node.agent().shared().endpoints.is_empty());
}

#[test]
fn failed_rollback_of_the_endpoint_keeps_the_first_error() {
    let node = Node::new();
    let (netns, path) = pod();
    node.agent().shared().networking = Some(EndpointNetworking::default());
    node.agent().shared().refuse_delete = Some((500, ErrorBody { kind: ErrorKind::Internal, message: "stuck".into() }));
    let outcome = node.command("ADD", &path, json!({}));
    assert!(outcome.error(999).contains("neither IPv4 nor IPv6"));
    assert!(outcome.stderr.contains("rollback") && outcome.stderr.contains("stuck"), "{}", outcome.stderr);
    assert_nothing_left(&node, &netns);
}

#[test]
fn absent_agent_is_a_reason_to_try_again() {
    let node = Node::without_agent();
    let (netns, path) = pod();
    let error = node.command("ADD", &path, json!({})).error(11);
    assert!(error.contains("unable to connect to Cilium agent") && error.contains("cilium.sock"), "{error}");
    assert_nothing_left(&node, &netns);
    assert!(node.queued().is_empty(), "an agent that was never asked holds nothing");
}

#[test]
fn failed_repetition_leaves_the_running_pod_alone() {
    let mut node = Node::new();
    let (netns, path) = pod();
    let result = node.command("ADD", &path, json!({})).ok();
    node.stop_agent();
    node.command("ADD", &path, json!({})).error(11);
    assert_eq!(node.connect_from(&netns, &result), 2);
}

#[test]
fn taken_interface_name_is_refused_and_its_owner_kept() {
    let node = Node::new();
    let (netns, path) = pod();
    node.block_on(async {
        let spec = VethSpec {
            name: "other",
            mac: None,
            peer_name: "eth0",
            peer_mac: None,
            peer_netns: Some(&netns),
            mtu: None,
        };
        Netlink::in_netns(&node.netns).expect("socket").add_veth(&spec).await.expect("pair");
    });
    let before = node.links(&netns);
    let error = node.command("ADD", &path, json!({})).error(999);
    assert!(error.contains("interface \"eth0\" already exists"), "{error}");
    assert_eq!(node.links(&netns), before);
    assert!(node.host_ends().is_empty() && node.agent().shared().requests.is_empty());
}

#[test]
fn default_route_of_another_network_is_not_taken_over() {
    let node = Node::new();
    let (netns, path) = pod();
    node.block_on(async {
        let spec = VethSpec {
            name: "other",
            mac: None,
            peer_name: "net1",
            peer_mac: None,
            peer_netns: Some(&netns),
            mtu: None,
        };
        Netlink::in_netns(&node.netns).expect("socket").add_veth(&spec).await.expect("pair");
        let inside = Netlink::in_netns(&netns).expect("socket");
        let link = inside.link("net1").await.expect("net1");
        inside.set_up(link.index).await.expect("up");
        let default = Route::new("0.0.0.0/0".parse().expect("net"), link.index, 4);
        inside.replace_route(&default).await.expect("route");
    });
    let error = node.command("ADD", &path, json!({})).error(999);
    assert!(error.contains("default route"), "{error}");
    assert_nothing_left(&node, &netns);
}

#[test]
fn namespaces_that_are_missing_wrong_or_the_nodes_own_are_named() {
    let node = Node::new();
    let plain = node.directory.path().join("plain");
    std::fs::write(&plain, b"").expect("file");
    for (path, code) in
        [("/run/netns/kinesin-no-such", 4), (plain.to_str().expect("UTF-8"), 4), ("/", 4), ("/proc/self/ns/net", 8)]
    {
        let error = node.command("ADD", path, json!({})).error(code);
        assert!(error.contains(path), "{error}");
    }
    assert!(node.host_ends().is_empty() && node.agent().shared().requests.is_empty());
}
