//! What the node holds, as tests demand it; the places that are counted are those of `kinesin_conformance::leaks`.

use std::{collections::BTreeSet, fs, time::Duration};

use kinesin_agent_api::delete_queue::DeleteQueue;
pub(crate) use kinesin_conformance::leaks::Held;
use kinesin_conformance::leaks::{self, Site};
use kinesin_loader::Table;

use crate::{
    cluster::{CIDRS, Cluster},
    node::{Node, PATIENCE, until},
    pods::Pod,
};

fn site(node: &Node) -> Site {
    let (netns, runtime) = (node.netns.clone(), node.runtime.handle().clone());
    // The tests are the runtime themselves.
    Site { netns, root: node.path("/"), runtime_dirs: Vec::new(), runtime }
}

/// Demands that all places agree.
pub(crate) fn consistent(node: &Node) -> Held {
    leaks::held(&site(node)).unwrap_or_else(|difference| panic!("{difference}"))
}

/// Demands that no pod has left anything.
pub(crate) fn nothing_left(node: &Node) {
    assert_eq!(consistent(node), Held::default());
    assert_eq!(site(node).queued(), 0);
}

/// What is held once what goes on has come to rest.
pub(crate) fn settled(node: &Node) -> Held {
    leaks::settled(&site(node), PATIENCE).unwrap_or_else(|difference| panic!("{difference}"))
}

/// What a node without pods has: devices, routes, pins, prefixes and processes.
pub(crate) fn surroundings(node: &Node) -> BTreeSet<String> {
    leaks::surroundings(&site(node)).unwrap_or_else(|error| panic!("{error}"))
}

/// Demands that every pinned link belongs to a device that exists; right after a start, which removes the others.
pub(crate) fn no_stale_pins(node: &Node) {
    assert_eq!(leaks::stale_pins(&site(node)), Ok(Vec::new()));
}

/// Everything that the other tests demand of these functions would mean nothing if they saw nothing.
#[test]
fn a_leak_is_seen_wherever_it_is() {
    let mut node = Node::new();
    let _cluster = Cluster::new(&node, &CIDRS);
    node.start();
    node.ready();
    let pod = Pod::new("c1");
    pod.add(&node).ok();
    let (held, before) = (consistent(&node), surroundings(&node));
    let told = || leaks::held(&site(&node)).expect_err("a leak");
    // What is planted below; the kernel's own route to a router's IPv6 address may come this late.
    let is_planted = |leak: &&String| ["777", "10.77.7.", "process sleep"].iter().any(|part| leak.contains(part));
    let new = || surroundings(&node).difference(&before).filter(is_planted).cloned().collect::<Vec<_>>();

    let file = node.path("/var/run/cilium/state/endpoints/777.json");
    fs::write(&file, "{}").expect("written");
    assert!(told().starts_with("state files"), "{}", told());
    fs::remove_file(&file).expect("removed");

    let pin = node.path(&format!("/sys/fs/bpf/kinesin/{}/maps/KIN_DEVICES", node.files("/sys/fs/bpf/kinesin")[0]));
    let mut devices: Table<u32, [u8; 56]> = Table::pinned("KIN_DEVICES", &pin).expect("the device map");
    // The agent looks after its maps when devices change, such as the pod's just now, and puts this right.
    until("it is seen", || {
        devices.insert(777, [0; 56]).expect("written");
        leaks::held(&site(&node)).is_err_and(|told| told.starts_with("indices in the device map"))
    });
    devices.remove(&777).expect("removed");

    let queue = DeleteQueue::beside(&node.path("/var/run/cilium/cilium.sock"));
    // As a plugin holds it while it writes, so that the agent, which looks into the queue when it starts, waits.
    let lock = queue.lock_shared(PATIENCE).expect("the queue's lock");
    fs::write(queue.directory().join("777.delete"), "{}").expect("written");
    let waiting = leaks::settled(&site(&node), Duration::ZERO).expect_err("a deletion waits");
    assert!(waiting.ends_with("1 deletions wait"), "{waiting}");
    fs::remove_file(queue.directory().join("777.delete")).expect("removed");
    drop(lock);

    node.shell("ip link add lxc777 type veth peer name other777");
    assert_eq!(consistent(&node).orphans, BTreeSet::from(["lxc777".to_owned()]));
    assert_eq!(new(), ["device lxc777", "device other777"]);
    node.shell("ip link delete lxc777");

    node.shell("ip route add 10.77.7.0/24 dev eth0");
    assert!(new().iter().any(|leak| leak.starts_with("route to 10.77.7.0/24")), "{:?}", new());
    node.shell("ip route delete 10.77.7.0/24 dev eth0");

    let mut process = node.command("sleep").arg("77").spawn().expect("run");
    until("it is seen", || new().iter().any(|leak| leak.starts_with("process sleep")));
    process.kill().expect("killed");
    process.wait().expect("waited");

    assert_eq!((consistent(&node), new()), (held, Vec::new()), "what was planted is gone");
    assert!(before.is_subset(&surroundings(&node)), "nothing else is");
    pod.del(&node).ok();
    nothing_left(&node);
}
