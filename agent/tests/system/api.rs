//! An API server that is late, away, or talks nonsense.

use kinesin_agent_api::types::{Endpoint, State};

use crate::{
    cluster::{CIDRS, Cluster, Nonsense},
    leaks,
    node::{Node, until},
    pods::{self, Pod},
};

#[test]
fn first_start_waits_for_the_api_server_and_says_so() {
    let mut node = Node::new();
    node.start();
    let told = |text: &str| text.contains("spec.podCIDRs") && text.contains("n1");
    let status = node.status_when("waiting", |status| {
        told(&status.cilium.msg) && status.kubernetes.status.msg.contains("cannot watch")
    });
    assert_eq!(status.cilium.state, State::Failure);
    assert_eq!(status.kubernetes.status.state, State::Failure);
    assert!(status.kubernetes.status.msg.contains("Connection refused"), "{}", status.kubernetes.status.msg);
    let pod = Pod::new("c1");
    let error = pod.add(&node).error();
    assert!(told(&error), "{error}");
    pod.del(&node).ok();
    assert!(!node.directory.path().join("net.d").exists(), "the runtime is not told before the node is ready");

    let _cluster = Cluster::new(&node, &CIDRS);
    node.ready();
    pod.add(&node).ok();
    assert_eq!(leaks::consistent(&node).ids.len(), 1);
    node.status_when("connected", |status| status.kubernetes.status.state == State::Ok);
}

#[test]
fn restart_without_the_api_server_serves() {
    let mut node = Node::new();
    let mut cluster = Cluster::new(&node, &CIDRS);
    node.start();
    node.ready();
    let pods = Pod::several(2);
    let results: Vec<_> = pods.iter().map(|pod| pod.add(&node).ok()).collect();
    cluster.stop(&node);
    node.kill();

    node.start();
    node.ready();
    let mut endpoints: Vec<Endpoint> = node.get("/endpoint");
    let health = endpoints.extract_if(.., |endpoint| endpoint.spec.container_id.is_empty()).collect::<Vec<_>>();
    assert!(health.len() == 1 && health[0].status.identity.labels == ["reserved:health"], "{health:?}");
    let one: Endpoint = node.get(&format!("/endpoint/{}", health[0].id));
    assert_eq!(one, health[0]);
    assert!(endpoints.len() == 2 && endpoints.iter().all(|endpoint| endpoint.status.restored), "{endpoints:?}");
    for (pod, result) in pods.iter().zip(&results) {
        assert_eq!(pod.add(&node).ok(), *result);
    }
    let new = Pod::new("new");
    let leased = pods::addresses(&new.add(&node).ok());
    assert!(results.iter().all(|result| pods::addresses(result).iter().all(|old| !leased.contains(old))));
    pods[0].del(&node).ok();

    cluster.start(&node);
    until("the cluster knows", || cluster.published_endpoints(&node) == ["c1", "new"]);
    node.status_when("connected", |status| status.kubernetes.status.state == State::Ok);
}

#[test]
fn lost_api_server_is_reported_and_pods_come_and_go() {
    let mut node = Node::new();
    let mut cluster = Cluster::new(&node, &CIDRS);
    node.start();
    node.ready();
    node.status_when("connected", |status| status.kubernetes.status.state == State::Ok);
    let pods = Pod::several(2);
    pods[0].add(&node).ok();
    cluster.stop(&node);
    let status = node.status_when("aware", |status| status.kubernetes.status.state == State::Failure);
    assert!(status.kubernetes.status.msg.contains("running pods go on"), "{}", status.kubernetes.status.msg);
    assert_eq!(status.cilium.state, State::Ok);
    pods[1].add(&node).ok();
    pods[0].del(&node).ok();
    assert_eq!(leaks::consistent(&node).ids.len(), 1);
    cluster.start(&node);
    until("the cluster knows", || cluster.published_endpoints(&node) == ["c1"]);
}

#[test]
fn nonsense_in_place_of_an_api_server_is_reported_and_survived() {
    let mut node = Node::new();
    let mut cluster = Cluster::new(&node, &CIDRS);
    node.start();
    node.ready();
    let pod = Pod::new("c1");
    let result = pod.add(&node).ok();
    cluster.stop(&node);
    let answers: [(&[u8], &str); 5] = [
        (b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 5\r\n\r\noops!", "500"),
        (b"HTTP/1.1 410 Gone\r\nContent-Length: 0\r\n\r\n", "410"),
        (b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{\"items\":", ""),
        (b"\x16\x03\x01\x00\x00 this is no HTTP\x00\xff", ""),
        (b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 12\r\n\r\n<html></html", ""),
    ];
    for (answer, told) in answers {
        let _nonsense = Nonsense::start(&node, answer);
        // Both under a running agent and under one that starts with it.
        for restart in [false, true] {
            if restart {
                node.kill();
                node.start();
                node.ready();
            }
            let status = node.status_when("aware", |status| {
                status.kubernetes.status.state == State::Failure && status.kubernetes.status.msg.contains(told)
            });
            assert_eq!(status.cilium.state, State::Ok, "{status:?}");
            assert_eq!(pod.add(&node).ok(), result);
            assert_eq!(leaks::consistent(&node).ids.len(), 1);
        }
    }
    cluster.start(&node);
    node.status_when("connected", |status| status.kubernetes.status.state == State::Ok);
    until("the cluster knows", || cluster.published_endpoints(&node) == ["c1"]);
    pod.del(&node).ok();
    leaks::nothing_left(&node);
}

#[test]
fn new_node_is_not_misled_by_nonsense() {
    let mut node = Node::new();
    let nonsense = Nonsense::start(&node, b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n");
    node.start();
    let status = node.status_when("aware", |status| status.kubernetes.status.msg.contains("403"));
    assert!(status.kubernetes.status.msg.contains("ClusterRole"), "{}", status.kubernetes.status.msg);
    assert_eq!(status.cilium.state, State::Failure);
    drop(nonsense);
    let _cluster = Cluster::new(&node, &CIDRS);
    node.ready();
}
