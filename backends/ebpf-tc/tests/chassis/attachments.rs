//! What is attached, in every way of attaching: taken over from another, given up, and how long it takes.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    time::{Duration, Instant},
};

use aya::programs::{SchedClassifier, tc::TcAttachType};
use kinesin_abi::DropReason;
use kinesin_core::values::Family;
use kinesin_loader::{Attachment, Direction, link};
use kinesin_netlink::{Netlink, VethSpec};
use kinesin_packet::samples::packets::{draft, udp as datagram};
use netlink_packet_route::tc::TcHandle;

use crate::{
    contract::{host_and_pod_reach_each_other, talk_in_every_way},
    node::{Node, Ways},
    outage::Stream,
    pod::Pod,
};

/// Programs on a host end.
pub(crate) const ENDPOINT: [(&str, Direction); 2] =
    [("from_container", Direction::Ingress), ("to_container", Direction::Egress)];

pub(crate) fn link_pins(node: &Node) -> Vec<String> {
    let path = node.pins().join("links");
    node.run(move |_| {
        let entries = fs::read_dir(path).expect("links");
        entries.map(|entry| entry.expect("entry").file_name().to_string_lossy().into_owned()).collect()
    })
}

/// A place on a device: its name, whether it is that of a link, and the direction.
pub(crate) type Place = (String, bool, Direction);

/// What runs where: of links the revision, which counts changes, and the programs, of filters the programs.
pub(crate) fn on_devices(node: &Node) -> BTreeMap<Place, (u64, Vec<u32>)> {
    node.block(|| async {
        let netlink = Netlink::new().expect("socket");
        let mut all = BTreeMap::new();
        for link in netlink.links().await.expect("list") {
            let filters = [
                (Direction::Ingress, TcAttachType::Ingress, netlink.ingress_filters(link.index).await),
                (Direction::Egress, TcAttachType::Egress, netlink.egress_filters(link.index).await),
            ];
            for (direction, tcx, filters) in filters {
                let (revision, found) = SchedClassifier::query_tcx(&link.name, tcx).expect("query");
                let programs = found.iter().map(aya::programs::ProgramInfo::id).collect();
                all.insert((link.name.clone(), true, direction), (revision, programs));
                let programs = filters.expect("list").iter().map(|filter| filter.program).collect();
                all.insert((link.name.clone(), false, direction), (0, programs));
            }
        }
        all.retain(|_, (_, programs): &mut (u64, Vec<u32>)| !programs.is_empty());
        all
    })
}

/// Numbers of the programs that tcx runs on the node's devices.
pub(crate) fn programs_on_links(node: &Node) -> Vec<u32> {
    let all = on_devices(node).into_iter().filter(|((_, is_link, _), _)| *is_link);
    all.flat_map(|(_, (_, programs))| programs).collect()
}

/// Takes off the filter of this program; the answer tells whether there was one.
pub(crate) fn take_filter(node: &Node, device: &str, direction: Direction, program: &'static str) -> bool {
    let place = Attachment { device: device.to_owned(), ifindex: 0, direction };
    node.run(move |_| link::detach_filters(&place, program).expect("list filters"))
}

/// Deletes the qdisc that filters hang on, and all of them with it.
pub(crate) fn delete_clsact(node: &Node, ifindex: u32) {
    node.block(move || async move {
        let (connection, handle, _) = rtnetlink::new_connection().expect("socket");
        let connection = tokio::spawn(connection);
        let mut request = handle.qdisc().del(i32::try_from(ifindex).expect("an index"));
        request.message_mut().header.parent = TcHandle { major: 0xffff, minor: 0xfff1 };
        request.execute().await.expect("delete clsact");
        connection.abort();
    });
}

/// What must be attached to a node with one uplink and two pods after `apply`, and nothing else.
fn expect_attached(node: &Node, ways: Ways) {
    let of_node = [("cilium_host", Direction::Egress), ("eth0", Direction::Ingress)];
    let of_pods = ["lxc10", "lxc11"].into_iter().flat_map(|device| ENDPOINT.map(|(_, direction)| (device, direction)));
    let place = |(device, direction): (&str, _), is_link| (device.to_owned(), is_link, direction);
    let of_node = of_node.into_iter().map(|at| place(at, ways != Ways::Filters));
    let expected: BTreeSet<_> = of_pods.map(|at| place(at, ways == Ways::Links)).chain(of_node).collect();
    let end = Instant::now() + Duration::from_secs(5);
    // The kernel frees a link a moment after its pin is gone.
    loop {
        let found = on_devices(node);
        if found.keys().cloned().collect::<BTreeSet<_>>() == expected {
            assert!(found.values().all(|(_, programs)| programs.len() == 1), "{ways:?}: {found:?}");
            break;
        }
        assert!(Instant::now() < end, "{ways:?}: {found:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(link_pins(node).len(), ways.links(), "{ways:?}");
}

#[test]
fn chassis_6_change_of_the_way_loses_nothing_and_leaves_nothing_of_the_other() {
    let mut node = Node::alone(Ways::Links);
    let (a, b) = (node.pod(10), node.pod(11));
    expect_attached(&node, Ways::Links);
    let streams = Family::ALL.map(|family| Stream::start(&a, &b, family));
    for ways in [Ways::Default, Ways::Links, Ways::Filters, Ways::Default, Ways::Filters, Ways::Links] {
        node.ways = ways;
        node.restart();
        let report = node.apply().expect("apply");
        assert_eq!((report.attach_mode.as_str(), report.failed.len()), (ways.text(), 0));
        assert_eq!(node.apply().expect("apply").changes, 0, "{ways:?}");
        expect_attached(&node, ways);
    }
    for stream in streams {
        let (sent, arrived) = stream.end();
        // Nor does anything come twice: the receiver counts what it gets.
        assert_eq!(arrived, sent);
    }
    talk_in_every_way(&a, &b);
}

#[test]
fn link_and_filter_at_once_decide_as_one() {
    let mut node = Node::alone(Ways::Links);
    let (a, b) = (node.pod(10), node.pod(11));
    // A second name keeps the links when the next agent has put filters in their place.
    let (links, aside) = (node.pins().join("links"), node.bpffs().join("aside"));
    let is_of_pod = format!("-{}-", a.endpoint.ifindex);
    let moved = node.run(move |_| {
        fs::create_dir(&aside).expect("directory");
        let names = fs::read_dir(&links).expect("links").map(|entry| entry.expect("entry").file_name());
        let names: Vec<_> = names.filter(|name| name.to_string_lossy().contains(&is_of_pod)).collect();
        names.iter().for_each(|name| fs::rename(links.join(name), aside.join(name)).expect("rename"));
        names.len()
    });
    assert_eq!(moved, 2);
    node.ways = Ways::Default;
    node.restart();
    node.apply().expect("apply");
    assert_eq!(programs_on_links(&node).len(), Ways::Default.links() + 2, "lxc10 has both");

    talk_in_every_way(&a, &b);
    host_and_pod_reach_each_other(&node, &a);
    let sniffer = b.packet();
    let mut frame = draft(&a.ip(Family::V4).to_string(), &b.ip(Family::V4).to_string(), 17, datagram(1, 2, 8)).bytes();
    let sent_ttl = frame[22];
    a.send_frame(&frame);
    let mut found = [0; 256];
    sniffer.set_read_timeout(Some(Duration::from_secs(3))).expect("timeout");
    while found[12..14] != [0x08, 0x00] || found[23] != 17 {
        sniffer.recv(&mut found).expect("the datagram arrives");
    }
    assert_eq!(found[22], sent_ttl - 1, "aged once");
    // What is dropped is dropped by the first and seen by the second no more.
    frame[26..30].copy_from_slice(&[10, 244, 1, 99]);
    let before = node.counted(DropReason::InvalidSource as u8);
    a.send_frame(&frame);
    assert_eq!(node.counted(DropReason::InvalidSource as u8), before + 1);
    // What is passed on is counted by both.
    let to_node = draft(&a.ip(Family::V4).to_string(), "192.168.10.101", 17, datagram(1, 2, 8)).bytes();
    let before = node.counted(kinesin_abi::FORWARDED);
    (0..10).for_each(|_| a.send_frame(&to_node));
    assert!(node.counted(kinesin_abi::FORWARDED) >= before + 20);
}

#[test]
fn device_that_is_no_uplink_any_more_loses_its_program() {
    for ways in Ways::ALL {
        let mut node = Node::alone(ways);
        node.block(|| async {
            let (name, peer_name) = ("eth1", "wire1");
            let pair = VethSpec { name, mac: None, peer_name, peer_mac: None, peer_netns: None, mtu: None };
            Netlink::new().expect("socket").add_veth(&pair).await.expect("second uplink");
        });
        node.spec.uplinks.push("eth1".to_owned());
        assert!(node.apply().expect("apply").changes > 0);
        node.spec.uplinks.pop();
        // The one that takes it away may be another agent than the one that put it there.
        node.restart();
        node.apply().expect("apply");
        assert_eq!(node.apply().expect("apply").changes, 0);
        assert!(!take_filter(&node, "eth1", Direction::Ingress, "from_netdev"), "{ways:?}");
        assert!(!link_pins(&node).iter().any(|name| name.starts_with("eth1")), "{ways:?}");
    }
}

#[test]
fn successor_of_a_vanished_device_keeps_its_filters() {
    let mut node = Node::alone(Ways::Default);
    let (a, b) = (node.pod(10), node.pod(11));
    let (old, device) = (b.endpoint.clone(), b.endpoint.device.clone());
    node.block(|| async move { Netlink::new().expect("socket").delete_link_by_name(&device).await.expect("remove") });
    // The new pod has the old one's device name; its removal comes late.
    let new = Pod::new(&node, 11);
    node.attach(&new.endpoint).expect("attach");
    new.raise(&node);
    node.detach(&old).expect("detach");
    for (program, direction) in ENDPOINT {
        assert!(take_filter(&node, &new.endpoint.device, direction, program), "{program}");
    }
    drop(a);
}

#[test]
fn attach_loads_nothing() {
    for ways in Ways::ALL {
        let node = Node::alone(ways);
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
        eprintln!("attach, {ways:?}: median {:?}, longest {:?}", times[times.len() / 2], times[times.len() - 1]);
        // All host ends run the same two programs.
        let found = on_devices(&node).into_iter().filter(|((device, ..), _)| device.starts_with("lxc"));
        let found: Vec<u32> = found.flat_map(|(_, (_, programs))| programs).collect();
        assert_eq!((found.len(), found.iter().collect::<BTreeSet<_>>().len()), (100, 2), "{ways:?}");
    }
}

#[test]
fn links_of_a_host_end_without_endpoint_stay_when_filters_are_used() {
    let mut node = Node::alone(Ways::Links);
    let (a, b) = (node.pod(10), node.pod(11));
    node.endpoints.remove(&b.endpoint.id);
    for ways in [Ways::Default, Ways::Filters] {
        node.ways = ways;
        node.restart();
        node.apply().expect("apply");
        // Without programs the node's stack would forward for it. More than one, since its kernel says something now and
        // then, too.
        let before = node.counted(DropReason::NoConfiguration as u8);
        let to_world = draft(&b.ip(Family::V4).to_string(), "1.1.1.1", 17, datagram(1, 2, 8)).bytes();
        (0..100).for_each(|_| b.send_frame(&to_world));
        assert!(node.counted(DropReason::NoConfiguration as u8) >= before + 100, "{ways:?}");
    }
    // It is an endpoint again: filters take the place of its links.
    node.endpoints.insert(b.endpoint.id, b.endpoint.clone());
    node.apply().expect("apply");
    assert_eq!(node.apply().expect("apply").changes, 0);
    assert!(link_pins(&node).is_empty());
    talk_in_every_way(&a, &b);
}
