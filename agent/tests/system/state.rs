//! State directories and pins that cannot be used, and what is left of damaged ones.

use std::fs;

use crate::{
    cluster::{CIDRS, Cluster},
    leaks,
    node::Node,
    pods::{self, Pod},
};

/// Fills what is left of the file system at `directory`; `more` is what may follow in small pieces.
fn fill(node: &Node, directory: &str) {
    // The last blocks are taken one by one, so that not even a small file fits.
    node.shell(&format!(
        "cd {directory}; cat /dev/zero > filler 2>/dev/null || true; \
         i=0; while echo x > filler$i 2>/dev/null; do i=$((i+1)); done; true"
    ));
}

#[test]
fn read_only_state_directory_is_refused_by_name() {
    let mut node = Node::new();
    let _cluster = Cluster::new(&node, &CIDRS);
    for (what, mounted) in [("before its first use", "/var/run/cilium"), ("later", "/var/run/cilium/state")] {
        node.shell(&format!("mkdir -p {mounted}/endpoints; mount -t tmpfs -o ro tmpfs {mounted}"));
        let said = node.refused(node.agent_command(&[]));
        assert!(
            said.contains("/var/run/cilium/state") && said.contains("Read-only") && said.contains("key state-dir"),
            "{what}: {said}"
        );
        assert!(node.files("/sys/fs/bpf/kinesin").is_empty(), "{what}: nothing is touched");
        node.shell(&format!("umount {mounted}"));
    }
    node.start();
    node.ready();
}

#[test]
fn full_disk_at_start_is_named_and_heals() {
    let mut node = Node::new();
    let _cluster = Cluster::new(&node, &CIDRS);
    node.shell("mkdir -p /var/run/cilium/state; mount -t tmpfs -o size=64k tmpfs /var/run/cilium/state");
    fill(&node, "/var/run/cilium/state");
    node.start();
    let told = |text: &str| {
        ["/var/run/cilium/state/", "No space left", "key state-dir", "free space"]
            .iter()
            .all(|part| text.contains(part))
    };
    node.status_when("aware", |status| status.controllers.iter().any(|found| told(&found.message)));
    let pod = Pod::new("c1");
    let error = pod.add(&node).error();
    assert!(told(&error), "{error}");
    leaks::nothing_left(&node);
    node.shell("rm /var/run/cilium/state/filler*");
    node.status_when("content", |status| status.controllers.iter().all(|found| found.message.is_empty()));
    pod.add(&node).ok();
    assert_eq!(leaks::consistent(&node).ids.len(), 1);
}

#[test]
fn full_disk_refuses_pods_by_name_and_leaves_nothing() {
    let mut node = Node::new();
    let _cluster = Cluster::new(&node, &CIDRS);
    node.shell("mkdir -p /var/run/cilium/state; mount -t tmpfs -o size=64k tmpfs /var/run/cilium/state");
    node.start();
    node.ready();
    let (old, new) = (Pod::new("old"), Pod::new("new"));
    let result = old.add(&node).ok();
    let before = leaks::consistent(&node);
    fill(&node, "/var/run/cilium/state");
    let error = new.add(&node).error();
    assert!(error.contains("/var/run/cilium/state/endpoints/") && error.contains("free space"), "{error}");
    assert!(error.contains("No space left"), "{error}");
    assert_eq!(leaks::consistent(&node), before);
    new.del(&node).ok();

    // A restart on the full disk goes on with what is there.
    node.kill();
    node.start();
    node.ready();
    assert_eq!(leaks::consistent(&node), before);
    assert_eq!(old.add(&node).ok(), result);
    old.del(&node).ok();
    leaks::nothing_left(&node);
    node.shell("rm /var/run/cilium/state/filler*");
    new.add(&node).ok();
    new.del(&node).ok();
    leaks::nothing_left(&node);
}

#[test]
fn damaged_state_costs_no_more_than_what_it_held() {
    let mut node = Node::new();
    let _cluster = Cluster::new(&node, &CIDRS);
    node.start();
    node.ready();
    let pods = Pod::several(3);
    let results: Vec<_> = pods.iter().map(|pod| pod.add(&node).ok()).collect();
    node.kill();
    let files = node.files("/var/run/cilium/state/endpoints");
    fs::write(node.path("/var/run/cilium/state/endpoints").join(&files[0]), "{\"id\": 1,").expect("damaged");
    fs::write(node.path("/var/run/cilium/state/endpoints/9.tmp"), "{").expect("written");
    fs::write(node.path("/var/run/cilium/state/node.json"), [0xff, 0]).expect("damaged");
    fs::write(node.path("/var/run/cilium/state/config.json"), "[").expect("damaged");
    node.start();
    node.ready();
    assert!(node.said().contains("damaged state file"), "it is said");
    let mut endpoints: Vec<kinesin_agent_api::types::Endpoint> = node.get("/endpoint");
    endpoints.retain(|endpoint| !endpoint.spec.container_id.is_empty());
    assert_eq!(endpoints.len(), 2);
    // The runtime's next requests put everything right.
    for (pod, result) in pods.iter().zip(&results) {
        let again = pod.add(&node).ok();
        let lost = !endpoints.iter().any(|endpoint| endpoint.spec.container_id == pod.container);
        assert!(lost || again == *result, "{again} {result}");
    }
    for pod in &pods {
        pod.del(&node).ok();
    }
    leaks::nothing_left(&node);
}

#[test]
fn pins_of_another_layout_are_left_alone_and_named() {
    let mut node = Node::new();
    let _cluster = Cluster::new(&node, &CIDRS);
    node.shell("mkdir -p /sys/fs/bpf/kinesin/v999/maps/of_a_later_version /sys/fs/bpf/cilium/socketlb");
    node.start();
    let status = node.status_when("aware of the layout", |status| status.cilium.msg.contains("v999"));
    for part in ["/sys/fs/bpf/kinesin", "v999", "drain the node", "go on with the version"] {
        assert!(status.cilium.msg.contains(part), "{}", status.cilium.msg);
    }
    let pod = Pod::new("c1");
    let error = pod.add(&node).error();
    assert!(error.contains("v999"), "{error}");
    pod.del(&node).ok();
    assert_eq!(node.files("/sys/fs/bpf/kinesin"), ["v999"]);
    assert_eq!(node.files("/sys/fs/bpf/kinesin/v999/maps"), ["of_a_later_version"]);
    node.kill();
    let output = node.agent_command(&[]).arg("cleanup").output().expect("run");
    assert!(!output.status.success(), "cleanup cannot remove what it does not know, and says so");
    assert_eq!(node.files("/sys/fs/bpf/kinesin/v999/maps"), ["of_a_later_version"]);

    node.shell("rmdir -p /sys/fs/bpf/kinesin/v999/maps/of_a_later_version 2>/dev/null || true");
    node.start();
    node.ready();
    assert_eq!(pods::addresses(&pod.add(&node).ok()).len(), 2);
    assert_eq!(node.files("/sys/fs/bpf/cilium"), ["socketlb"]);
}

#[test]
fn missing_bpffs_is_named_with_its_remedy() {
    let mut node = Node::new();
    let _cluster = Cluster::new(&node, &CIDRS);
    node.shell("mkdir /run/no-bpffs");
    node.start_with(node.agent_command(&["--bpf-root=/run/no-bpffs"]));
    let status = node.status_when("aware of it", |status| status.cilium.msg.contains("/run/no-bpffs"));
    assert!(status.cilium.msg.contains("mount -t bpf"), "{}", status.cilium.msg);
    assert_eq!(node.files("/run/no-bpffs"), Vec::<String>::new());
}
