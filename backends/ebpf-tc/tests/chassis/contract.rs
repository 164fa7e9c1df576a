//! What `Chassis` promises: attach, apply, detach, retire.

use std::{
    fs,
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use aya::programs::{SchedClassifier, tc::TcAttachType};
use kinesin_abi::DropReason;
use kinesin_core::{chassis::ChassisError, values::Family};
use kinesin_loader::{Attachment, Direction, link};
use kinesin_netlink::{Netlink, Sysctl};

use crate::{
    node::Node,
    pod::{Pod, exchanges_tcp, exchanges_udp, hears_nothing, pings, udp},
};

fn talk_in_every_way(a: &Pod, b: &Pod) {
    for family in Family::ALL {
        assert!(exchanges_udp(&a.udp(family, 0), &b.udp(family, 0)), "UDP over {family}");
        assert!(exchanges_tcp(&a.netns, &b.netns, b.ip(family)), "TCP over {family}");
        assert!(pings(&a.netns, b.ip(family)), "echo over {family}");
    }
}

fn host_and_pod_reach_each_other(node: &Node, pod: &Pod) {
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
    for enable_tcx in [true, false] {
        let mut node = Node::alone(enable_tcx);
        let (a, b) = (node.pod(10), node.pod(11));
        talk_in_every_way(&a, &b);
        host_and_pod_reach_each_other(&node, &a);
        let report = node.apply().expect("apply");
        assert_eq!(report.attach_mode, if enable_tcx { "TCX" } else { "Legacy TC" });
        assert_eq!(report.degraded, Vec::<String>::new());
    }
}

#[test]
fn chassis_1_nothing_reaches_a_pod_that_is_not_attached() {
    let mut node = Node::alone(true);
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
fn chassis_3_same_state_changes_nothing_and_what_was_altered_is_put_back() {
    let mut node = Node::alone(true);
    let (a, b) = (node.pod(10), node.pod(11));
    assert_eq!(node.apply().expect("apply").changes, 0, "attach had left nothing to do");

    let pins = node.pins();
    let host_end = a.endpoint.clone();
    node.block(move || async move {
        let netlink = Netlink::new().expect("socket");
        let host = netlink.link("cilium_host").await.expect("cilium_host").index;
        for address in netlink.addresses_of(host).await.expect("list") {
            netlink.delete_address(host, address).await.expect("remove");
        }
        for route in netlink.routes().await.expect("list").iter().filter(|route| route.dev == host) {
            netlink.delete_route(route).await.expect("remove");
        }
        for file in fs::read_dir(pins.join("links")).expect("links") {
            fs::remove_file(file.expect("entry").path()).expect("remove");
        }
        let key = format!("ipv4/conf/{}/rp_filter", host_end.device);
        Sysctl::here().set(&key, "1").expect("sysctl");
        let devices = aya::maps::MapData::from_pin(pins.join("maps/KIN_DEVICES")).expect("pin");
        let mut devices: aya::maps::HashMap<_, u32, kinesin_abi::DeviceValue> =
            aya::maps::HashMap::try_from(aya::maps::Map::from_map_data(devices).expect("map")).expect("hash");
        devices.remove(&host_end.ifindex).expect("remove");
    });
    assert!(node.apply().expect("apply").changes >= 8);
    assert_eq!(node.apply().expect("apply").changes, 0);
    talk_in_every_way(&a, &b);
    host_and_pod_reach_each_other(&node, &a);

    node.block(|| async {
        let netlink = Netlink::new().expect("socket");
        assert!(netlink.delete_link_by_name("cilium_host").await.expect("remove"));
    });
    assert!(node.apply().expect("apply").changes > 0);
    assert_eq!(node.apply().expect("apply").changes, 0);
    host_and_pod_reach_each_other(&node, &a);
}

#[test]
fn chassis_3_endpoint_that_left_the_state_is_cut_off() {
    let mut node = Node::alone(true);
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
    let mut node = Node::alone(true);
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
    let mut node = Node::alone(true);
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
    let mut node = Node::alone(true);
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
    for enable_tcx in [true, false] {
        let mut node = Node::alone(enable_tcx);
        let pods = [node.pod(10), node.pod(11)];
        let before = programs_on_links(&node);
        assert_eq!(before.len(), if enable_tcx { 6 } else { 0 });
        // An agent that has just started knows of nothing that an earlier one made.
        node.restart();
        node.retire().expect("retire");
        node.retire().expect("retire again");
        assert!(has_no_pins(&node));
        for pod in &pods {
            for (program, direction) in [("from_container", Direction::Ingress), ("to_container", Direction::Egress)] {
                assert!(!has_filter(&node, &pod.endpoint.device, pod.endpoint.ifindex, direction, program));
            }
        }
        assert_eq!(programs_on_links(&node), Vec::<u32>::new());
        let links = node.block(|| async { Netlink::new().expect("socket").links().await.expect("list") });
        assert!(!links.iter().any(|link| link.name.starts_with("cilium_")));
        let end = Instant::now() + Duration::from_secs(5);
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

fn link_pins(node: &Node) -> Vec<String> {
    let path = node.pins().join("links");
    node.run(move |_| {
        let entries = fs::read_dir(path).expect("links");
        entries.map(|entry| entry.expect("entry").file_name().to_string_lossy().into_owned()).collect()
    })
}

/// Numbers of the programs that tcx runs on the node's devices.
fn programs_on_links(node: &Node) -> Vec<u32> {
    node.run(|runtime| {
        let links = runtime.block_on(async { Netlink::new().expect("socket").links().await.expect("list") });
        let mut all = Vec::new();
        for link in links {
            for direction in [TcAttachType::Ingress, TcAttachType::Egress] {
                let (_, found) = SchedClassifier::query_tcx(&link.name, direction).expect("query");
                all.extend(found.iter().map(aya::programs::ProgramInfo::id));
            }
        }
        all
    })
}

/// Whether a clsact filter of this program is there; it is gone afterwards.
fn has_filter(node: &Node, device: &str, ifindex: u32, direction: Direction, program: &'static str) -> bool {
    let place = Attachment { device: device.to_owned(), ifindex, direction };
    node.run(move |_| link::detach_filters(&place, program).expect("list filters"))
}

#[test]
fn change_of_the_attach_mode_leaves_no_second_attachment() {
    let mut node = Node::alone(true);
    let (a, b) = (node.pod(10), node.pod(11));
    assert_eq!(programs_on_links(&node).len(), 6);
    node.enable_tcx = false;
    node.restart();
    node.apply().expect("apply");
    assert_eq!(node.apply().expect("apply").changes, 0);
    assert_eq!(programs_on_links(&node), Vec::<u32>::new());
    assert_eq!(link_pins(&node), Vec::<String>::new());
    talk_in_every_way(&a, &b);
    node.enable_tcx = true;
    node.restart();
    node.apply().expect("apply");
    assert_eq!(programs_on_links(&node).len(), 6);
    assert!(!has_filter(&node, "lxc10", a.endpoint.ifindex, Direction::Ingress, "from_container"));
    assert!(!has_filter(&node, "eth0", 0, Direction::Ingress, "from_netdev"));
    talk_in_every_way(&a, &b);
}

#[test]
fn second_agent_on_a_node_is_refused_with_the_first_ones_process() {
    let node = Node::alone(true);
    let (rival, desired) = (node.rival(), node.desired());
    let error = node.block(move || async move { rival.apply(&desired).await }).expect_err("the node is taken");
    assert!(matches!(error, ChassisError::Busy { pid } if pid == std::process::id()), "{error}");
}

#[test]
fn pins_of_another_layout_are_refused_and_kept() {
    let node = Node::unapplied(true);
    let other = node.bpffs().join("kinesin/v999/maps");
    let made = other.clone();
    node.run(move |_| fs::create_dir_all(made).expect("directory"));
    let error = node.apply().expect_err("another layout").to_string();
    assert!(error.contains("v999") && error.contains(&format!("v{}", kinesin_abi::LAYOUT)), "{error}");
    assert!(node.run(move |_| other.is_dir()));
}

#[test]
fn attach_loads_nothing_and_takes_milliseconds() {
    for enable_tcx in [true, false] {
        let node = Node::alone(enable_tcx);
        let pods: Vec<_> = (10..60).map(|number| Pod::new(&node, number)).collect();
        let mut times: Vec<_> = pods
            .iter()
            .map(|pod| {
                let start = Instant::now();
                node.attach(&pod.endpoint).expect("attach");
                start.elapsed()
            })
            .collect();
        times.sort_unstable();
        let median = times[times.len() / 2];
        eprintln!("attach, tcx {enable_tcx}: median {median:?}, longest {:?}", times[times.len() - 1]);
        // tcx waits for two RCU grace periods under the RTNL (`tcx_entry_sync`, 6.18), several milliseconds each; this
        // allows for a machine that does much else.
        assert!(median < Duration::from_millis(150), "{times:?}");
    }
}
