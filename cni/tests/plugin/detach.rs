//! DEL and GC.

use kinesin_agent_api::{DeleteQueue, ErrorBody, ErrorKind};
use serde_json::{Value, json};
use std::{fs, time::Duration};

use crate::node::{CONTAINER, Node, config, pod};

#[test]
fn deletion_takes_everything_away_and_may_be_repeated() {
    let node = Node::new();
    let (netns, path) = pod();
    let result = node.command("ADD", &path, json!({})).ok();
    assert_eq!(node.command("DEL", &path, json!({"prevResult": result})).ok(), Value::Null);
    assert!(node.host_ends().is_empty() && node.agent().shared().endpoints.is_empty());
    assert_eq!(node.links(&netns).len(), 1, "only lo is left");
    // As containerd does: once more, without namespace and result.
    node.command("DEL", "", json!({})).ok();
    node.command("DEL", "/run/netns/kinesin-gone", json!({})).ok();
    assert!(node.queued().is_empty());
}

#[test]
fn deletion_succeeds_when_namespace_and_arguments_are_gone() {
    let node = Node::new();
    let (netns, path) = pod();
    node.command("ADD", &path, json!({})).ok();
    drop(netns);
    let env = [("CNI_COMMAND", "DEL"), ("CNI_CONTAINERID", CONTAINER), ("CNI_IFNAME", "eth0"), ("CNI_ARGS", "garbage")];
    node.run(&env, &config(json!({}))).ok();
    assert!(node.agent().shared().endpoints.is_empty());
}

#[test]
fn other_interface_of_the_container_stays() {
    let node = Node::new();
    let (_first, first) = pod();
    let (_second, second) = pod();
    node.command("ADD", &first, json!({})).ok();
    let other =
        [("CNI_COMMAND", "ADD"), ("CNI_CONTAINERID", CONTAINER), ("CNI_IFNAME", "net1"), ("CNI_NETNS", &*second)];
    node.run(&other, &config(json!({}))).ok();
    node.command("DEL", &first, json!({})).ok();
    assert_eq!(node.host_ends().len(), 1);
    assert_eq!(node.agent().shared().endpoints.len(), 1);
}

#[test]
fn deletion_waits_in_the_queue_while_the_agent_is_away() {
    let mut node = Node::new();
    let (_netns, path) = pod();
    node.command("ADD", &path, json!({})).ok();
    node.stop_agent();
    node.command("DEL", &path, json!({})).ok();
    node.command("DEL", "", json!({})).ok();
    assert!(node.host_ends().is_empty(), "the device goes all the same");
    assert_eq!(node.queued().len(), 1, "a repeated deletion is queued once");
    let queue = DeleteQueue::beside(&node.socket());
    let lock = queue.lock_exclusive(Duration::from_secs(1)).expect("no plugin keeps the lock");
    let request = queue.read(&lock).expect("read").remove(0).request.expect("valid");
    assert_eq!((&*request.container_id, &*request.container_interface_name), (CONTAINER, "eth0"));
}

#[test]
fn release_is_never_lost_when_the_queue_fails() {
    let node = Node::without_agent();
    fs::write(node.directory.path().join("deleteQueue"), b"in the way").expect("file");
    let error = node.command("DEL", "", json!({})).error(11);
    assert!(error.contains("cannot be queued") && error.contains("deleteQueue"), "{error}");
    fs::remove_file(node.directory.path().join("deleteQueue")).expect("remove");
    fs::create_dir(node.directory.path().join("deleteQueue")).expect("directory");
    for number in 0..256 {
        fs::write(node.directory.path().join(format!("deleteQueue/{number}.delete")), b"{}").expect("file");
    }
    let error = node.command("DEL", "", json!({})).error(11);
    assert!(error.contains("256 deletions"), "{error}");
}

#[test]
fn deletion_that_the_agent_could_not_do_is_repeated_by_the_runtime() {
    let node = Node::new();
    let (_netns, path) = pod();
    node.command("ADD", &path, json!({})).ok();
    let refuse =
        |kind| node.agent().shared().refuse_delete = Some((500, ErrorBody { kind, message: "why".to_owned() }));
    refuse(ErrorKind::Unavailable);
    assert!(node.command("DEL", &path, json!({})).error(11).contains("why"));
    assert!(node.host_ends().is_empty());
    refuse(ErrorKind::Invalid);
    node.command("DEL", &path, json!({})).ok();
}

#[test]
fn collection_removes_exactly_what_the_runtime_does_not_list() {
    let node = Node::new();
    let pods: Vec<_> = (0..3).map(|_| pod()).collect();
    for (number, (_, path)) in pods.iter().enumerate() {
        let container = format!("c{number}");
        let env =
            [("CNI_COMMAND", "ADD"), ("CNI_CONTAINERID", &*container), ("CNI_IFNAME", "eth0"), ("CNI_NETNS", path)];
        node.run(&env, &config(json!({}))).ok();
    }
    let gc = |extra: Value| node.run(&[("CNI_COMMAND", "GC"), ("CNI_PATH", "/opt/cni/bin")], &config(extra));
    assert!(gc(json!({})).error(7).contains("cni.dev/valid-attachments"), "no list is not an empty list");
    assert_eq!(node.host_ends().len(), 3);
    gc(json!({"cni.dev/valid-attachments": [{"containerID": "c1", "ifname": "eth0"}, {"containerID": "x", "ifname": "y"}]})).ok();
    let ids: Vec<_> = node.agent().shared().endpoints.keys().cloned().collect();
    assert_eq!((ids, node.host_ends().len()), (vec!["cni-attachment-id:c1:eth0".to_owned()], 1));
    gc(json!({"cni.dev/valid-attachments": []})).ok();
    assert!(node.host_ends().is_empty() && node.agent().shared().endpoints.is_empty());
}

#[test]
fn collection_needs_the_agent() {
    let node = Node::without_agent();
    node.run(&[("CNI_COMMAND", "GC")], &config(json!({"cni.dev/valid-attachments": []}))).error(11);
}
