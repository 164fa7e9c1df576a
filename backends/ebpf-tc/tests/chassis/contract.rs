//! What `Chassis` promises: attach, apply, detach, retire.

use std::{
    collections::BTreeSet,
    fs,
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use kinesin_abi::DropReason;
use kinesin_core::{chassis::ChassisError, values::Family};
use kinesin_loader::{Attachment, Direction};
use kinesin_netlink::Netlink;

use crate::{
    attachments::{link_pins, programs_on_links, take_filter},
    node::{Node, Ways},
    pod::{Pod, exchanges_tcp, exchanges_udp, hears_nothing, pings, udp},
};

/// By datagrams, connections and echoes of both families.
pub(crate) fn talk_in_every_way(a: &Pod, b: &Pod) {
    for family in Family::ALL {
        assert!(exchanges_udp(&a.udp(family, 0), &b.udp(family, 0)), "UDP over {family}");
        assert!(exchanges_tcp(&a.netns, &b.netns, b.ip(family)), "TCP over {family}");
        assert!(pings(&a.netns, b.ip(family)), "echo over {family}");
    }
}

/// In both directions, by every address of the node.
pub(crate) fn host_and_pod_reach_each_other(node: &Node, pod: &Pod) {
    for address in node.spec.router.iter().chain(&node.spec.addresses) {
        assert!(pings(&pod.netns, *address), "pod to {address}");
    }
    for family in Family::ALL {
        assert!(pings(&node.netns, pod.ip(family)), "node to pod over {family}");
        let router = *node.spec.router.iter().find(|ip| Family::of(ip) == family).expect("both families");
        assert!(exchanges_udp(&udp(&node.netns, router, 0), &pod.udp(family, 0)), "node to pod by UDP over {family}");
        assert!(exchanges_tcp(&pod.netns, &node.netns, router), "pod to node by TCP over {family}");
    }
}

#[test]
fn chassis_1_attached_pods_and_their_node_reach_each_other() {
    for ways in Ways::ALL {
        let mut node = Node::alone(ways);
        let (a, b) = (node.pod(10), node.pod(11));
        talk_in_every_way(&a, &b);
        host_and_pod_reach_each_other(&node, &a);
        let report = node.apply().expect("apply");
        assert_eq!(report.attach_mode, ways.text());
        assert_eq!(report.degraded, Vec::<String>::new());
    }
}

#[test]
fn chassis_1_nothing_reaches_a_pod_that_is_not_attached() {
    let mut node = Node::alone(Ways::Default);
    let a = node.pod(10);
    let b = Pod::new(&node, 11);
    let sniffer = b.packet();
    for family in Family::ALL {
        let socket = a.udp(family, 0);
        for _ in 0..20 {
            socket.send_to(b"too early", (b.ip(family), 9)).expect("send");
        }
    }
    assert!(hears_nothing(&sniffer));
    node.attach(&b.endpoint).expect("attach");
    b.raise(&node);
    talk_in_every_way(&a, &b);
}

#[test]
fn chassis_3_endpoint_that_left_the_state_is_cut_off() {
    let mut node = Node::alone(Ways::Default);
    let (a, b) = (node.pod(10), node.pod(11));
    node.endpoints.remove(&b.endpoint.id);
    assert!(node.apply().expect("apply").changes > 0);
    assert_eq!(node.apply().expect("apply").changes, 0);
    for family in Family::ALL {
        assert!(!pings_at_once(&a, b.ip(family)), "to it over {family}");
        let before = node.counted(DropReason::NoConfiguration as u8);
        assert!(!pings_at_once(&b, a.ip(family)), "from it over {family}");
        assert!(node.counted(DropReason::NoConfiguration as u8) > before);
    }
    // Its device goes, and with it what is left of it.
    let device = b.endpoint.device.clone();
    node.block(|| async move { Netlink::new().expect("socket").delete_link_by_name(&device).await.expect("remove") });
    node.apply().expect("apply");
    let of_device = |name: &str| Attachment::ifindex_of_pin(name) == Some(b.endpoint.ifindex);
    assert!(!link_pins(&node).iter().any(|name| of_device(name)));
}

/// Like `pings`, for an answer that is not expected.
fn pings_at_once(pod: &Pod, to: IpAddr) -> bool {
    let socket = pod.udp(Family::of(&to), 0);
    // Port 9 is closed: whoever gets the datagram answers with an error, which the socket reports.
    socket.connect((to, 9)).expect("connect");
    socket.send(b"?").expect("send");
    socket.set_read_timeout(Some(Duration::from_millis(200))).expect("timeout");
    let error = socket.recv(&mut [0; 8]).expect_err("nobody sends data");
    error.kind() == std::io::ErrorKind::ConnectionRefused
}

#[test]
fn chassis_4_attach_and_detach_can_be_repeated() {
    let mut node = Node::alone(Ways::Default);
    let (a, b) = (node.pod(10), node.pod(11));
    node.attach(&b.endpoint).expect("attach again");
    assert_eq!(node.apply().expect("apply").changes, 0);
    talk_in_every_way(&a, &b);
    node.detach(&b.endpoint).expect("detach");
    node.detach(&b.endpoint).expect("detach again");
    let stranger = Pod::new(&node, 77);
    node.detach(&stranger.endpoint).expect("detach of an unknown one");
    assert!(!pings_at_once(&a, b.ip(Family::V4)));
    node.attach(&b.endpoint).expect("attach once more");
    talk_in_every_way(&a, &b);
}

#[test]
fn chassis_4_detach_leaves_the_new_holder_of_an_address_alone() {
    let mut node = Node::alone(Ways::Default);
    let (a, old) = (node.pod(10), node.pod(11));
    let mut new = Pod::new(&node, 12);
    // The address moves to the new pod while the old one's removal is still on its way.
    new.endpoint.addresses.clone_from(&old.endpoint.addresses);
    node.attach(&new.endpoint).expect("attach");
    node.detach(&old.endpoint).expect("detach");
    let chassis = Arc::clone(&node.chassis);
    let rows = node.block(move || async move { chassis.addresses().await }).expect("addresses");
    for address in &new.endpoint.addresses {
        let row = rows.iter().find(|row| row.ip == *address).expect("the address is in the table");
        assert_eq!((row.id, row.ifindex, row.mac), (12, new.endpoint.ifindex, new.endpoint.mac));
    }
    drop(a);
}

#[test]
fn chassis_5_a_missing_device_is_reported_and_keeps_nobody_else() {
    let mut node = Node::alone(Ways::Default);
    let gone = Pod::new(&node, 12);
    node.endpoints.insert(gone.endpoint.id, gone.endpoint.clone());
    let device = gone.endpoint.device.clone();
    node.block(|| async move { Netlink::new().expect("socket").delete_link_by_name(&device).await.expect("remove") });
    let (a, b) = (node.pod(10), node.pod(11));
    let report = node.apply().expect("apply");
    assert_eq!(report.failed.keys().copied().collect::<Vec<_>>(), [gone.endpoint.id]);
    assert!(report.failed[&gone.endpoint.id].contains("lxc12"), "{:?}", report.failed);
    talk_in_every_way(&a, &b);
    let error = node.attach(&gone.endpoint).expect_err("no device");
    assert!(matches!(&error, ChassisError::Device { device, .. } if device == "lxc12"), "{error}");
}

#[test]
fn chassis_8_retire_leaves_nothing() {
    for ways in Ways::ALL {
        let mut node = Node::alone(ways);
        let pods = [node.pod(10), node.pod(11)];
        let before = programs_on_links(&node);
        assert_eq!(before.len(), ways.links());
        // An agent that has just started knows of nothing that an earlier one made.
        node.restart();
        node.retire().expect("retire");
        node.retire().expect("retire again");
        assert!(has_no_pins(&node));
        for pod in &pods {
            for (program, direction) in [("from_container", Direction::Ingress), ("to_container", Direction::Egress)] {
                assert!(!take_filter(&node, &pod.endpoint.device, direction, program));
            }
        }
        assert_eq!(programs_on_links(&node), Vec::<u32>::new());
        let links = node.block(|| async { Netlink::new().expect("socket").links().await.expect("list") });
        assert!(!links.iter().any(|link| link.name.starts_with("cilium_")));
        let end = Instant::now() + Duration::from_secs(60);
        // The kernel frees programs a grace period later.
        while before.iter().any(|id| is_loaded(*id)) {
            assert!(Instant::now() < end, "programs are left: {before:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

fn has_no_pins(node: &Node) -> bool {
    let path = node.bpffs().join("kinesin");
    node.run(move |_| !path.exists())
}

fn is_loaded(id: u32) -> bool {
    aya::programs::loaded_programs().any(|info| info.is_ok_and(|info| info.id() == id))
}

#[test]
fn chassis_7_idle_pods_and_their_node_drop_nothing() {
    let mut node = Node::alone(Ways::Default);
    let pods = [node.pod(10), node.pod(11)];
    // Routers are solicited after a second at most (RFC 4861 section 6.3.7), groups are reported within two.
    std::thread::sleep(Duration::from_millis(3500));
    assert_eq!(node.drops(), []);
    let counters = node.counters();
    // The kernels of node and pods were not silent, and it has a name.
    let signalling = counters.iter().find(|counter| counter.reason == kinesin_abi::SIGNALLING).expect("signalling");
    assert_eq!(signalling.text, "Link signalling");
    drop(pods);
}

#[test]
fn listed_addresses_are_those_of_pods_and_node_and_no_others() {
    let mut node = Node::alone(Ways::Default);
    let pod = node.pod(10);
    node.apply().expect("apply");
    let chassis = Arc::clone(&node.chassis);
    let rows = node.block(move || async move { chassis.addresses().await }).expect("addresses");
    let of = |host| rows.iter().filter(|row| row.host == host).map(|row| row.ip).collect::<BTreeSet<_>>();
    assert_eq!(of(false), pod.endpoint.addresses.iter().copied().collect());
    assert_eq!(of(true), node.spec.addresses.iter().chain(&node.spec.router).copied().collect());
}

#[test]
fn forwarded_packets_are_counted_as_success() {
    let mut node = Node::alone(Ways::Default);
    let (a, b) = (node.pod(10), node.pod(11));
    assert!(pings(&a.netns, b.ip(Family::V4)));
    let counters = node.counters();
    let texts: BTreeSet<_> = counters.iter().filter(|found| found.reason == 0).map(|found| &*found.text).collect();
    assert_eq!(texts, BTreeSet::from(["Success"]));
}

#[test]
fn second_agent_on_a_node_is_refused_with_the_first_ones_process() {
    let node = Node::alone(Ways::Default);
    let (rival, desired) = (node.rival(), node.desired());
    let error = node.block(move || async move { rival.apply(&desired).await }).expect_err("the node is taken");
    assert!(matches!(error, ChassisError::Busy { pid } if pid == std::process::id()), "{error}");
}

#[test]
fn pins_of_another_layout_are_refused_and_kept() {
    let node = Node::unapplied(Ways::Default);
    let other = node.bpffs().join("kinesin/v999/maps");
    let made = other.clone();
    node.run(move |_| fs::create_dir_all(made).expect("directory"));
    let error = node.apply().expect_err("another layout").to_string();
    assert!(error.contains("v999") && error.contains(&format!("v{}", kinesin_abi::LAYOUT)), "{error}");
    assert!(node.run(move |_| other.is_dir()));
}
