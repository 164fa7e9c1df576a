//! A node on a good day, repeated requests, and a second agent.

use kinesin_agent_api::types::{Endpoint, EndpointState};

use crate::{
    cluster::{CIDRS, Cluster},
    leaks,
    node::{Node, until},
    pods::{self, Pod},
};

#[test]
fn pods_come_and_go_without_a_trace() {
    let mut node = Node::new();
    let cluster = Cluster::new(&node, &CIDRS);
    node.start();
    let status = node.ready();
    assert_eq!(status.cilium.msg, "");
    let pods = Pod::several(8);
    for pod in &pods {
        assert_eq!(pods::addresses(&pod.add(&node).ok()).len(), 2);
    }
    let held = leaks::consistent(&node);
    assert_eq!((held.ids.len(), held.addresses.len(), held.orphans.len()), (8, 16, 0));
    let endpoints: Vec<Endpoint> = node.get("/endpoint");
    assert!(endpoints.iter().all(|endpoint| endpoint.status.state == EndpointState::Ready), "{endpoints:?}");
    until("all pods are published", || cluster.published_endpoints(&node).len() == 8);
    until("the node is published", || cluster.published_cidrs(&node) == CIDRS);
    until("the CNI configuration is there", || node.directory.path().join("net.d/05-cilium.conflist").exists());
    for pod in &pods {
        pod.del(&node).ok();
    }
    leaks::nothing_left(&node);
    until("no pod is published", || cluster.published_endpoints(&node).is_empty());
    // A restart looks at everything anew.
    node.kill();
    node.start();
    node.ready();
    leaks::nothing_left(&node);
    leaks::no_stale_pins(&node);
}

#[test]
fn repeated_and_impossible_requests_leave_nothing() {
    let mut node = Node::new();
    let _cluster = Cluster::new(&node, &CIDRS);
    node.start();
    node.ready();
    let pod = Pod::new("c1");
    pod.del(&node).ok();
    let first = pod.add(&node).ok();
    assert_eq!(pod.add(&node).ok(), first);
    assert_eq!(leaks::consistent(&node).ids.len(), 1);

    let lost = Pod::new("c2");
    let error = lost.add_in(&node, "/run/netns/no-such-pod").error();
    assert!(error.contains("/run/netns/no-such-pod"), "{error}");
    let error = lost.add_in(&node, "/etc/hostname").error();
    assert!(error.contains("/etc/hostname"), "{error}");
    assert_eq!(leaks::consistent(&node).ids.len(), 1);

    pod.del(&node).ok();
    pod.del(&node).ok();
    lost.del(&node).ok();
    leaks::nothing_left(&node);
}

#[test]
fn second_agent_names_the_first_and_leaves_it_alone() {
    let mut node = Node::new();
    let _cluster = Cluster::new(&node, &CIDRS);
    node.start();
    node.ready();
    let pod = Pod::new("c1");
    pod.add(&node).ok();
    let before = leaks::consistent(&node);
    let said = node.refused(node.agent_command(&[]));
    assert!(said.contains(&format!("process {}", node.pid())) && said.contains("stop the other one"), "{said}");
    let said = node.refused({
        let mut cleanup = node.agent_command(&[]);
        cleanup.arg("cleanup");
        cleanup
    });
    assert!(said.contains(&format!("process {}", node.pid())) && said.contains("stop the agent first"), "{said}");
    assert!(node.runs());
    assert_eq!(leaks::consistent(&node), before);
    Pod::new("c2").add(&node).ok();
}

#[test]
fn agent_stops_when_asked_and_cleanup_removes_everything() {
    let mut node = Node::new();
    let _cluster = Cluster::new(&node, &CIDRS);
    node.start();
    node.ready();
    let pods = Pod::several(2);
    for pod in &pods {
        pod.add(&node).ok();
    }
    let status = node.terminate();
    assert!(status.success(), "{status}");
    assert!(!node.files("/sys/fs/bpf/kinesin").is_empty(), "the datapath stays");

    let output = node.agent_command(&[]).arg("cleanup").output().expect("run");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(node.files("/sys/fs/bpf/kinesin"), Vec::<String>::new());
    assert_eq!(node.files("/var/run/cilium/state"), Vec::<String>::new());
    let links: Vec<_> = node.links().into_iter().map(|link| link.name).collect();
    assert_eq!(links, ["lo", "eth0"]);
}
