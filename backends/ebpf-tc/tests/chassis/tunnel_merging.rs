//! Segments that come in by a tunnel are merged before programs take them out of it (GRO), by VXLAN and by Geneve, whatever
//! devices the kernel has for them.

use std::{
    collections::BTreeSet,
    fs,
    io::{self, Read as _},
    net::{IpAddr, TcpListener, TcpStream, UdpSocket},
    os::fd::AsRawFd as _,
    thread,
    time::{Duration, Instant},
};

use kinesin_abi::{
    DropReason,
    tunnel::{INNER_DESTINATION, SOURCE_PORTS},
};
use kinesin_core::{
    chassis::ChassisReport,
    values::{Carrier, Family},
};
use kinesin_netlink::{LinkKind, Netlink, TunnelKind, TunnelSpec, has_feature, switch_features};
use kinesin_packet::samples::packets::{Draft, checksum, draft, geneve, tcp, udp as datagram, udp_around, vxlan};
use nix::{
    mount::{MsFlags, mount},
    sys::socket::{MsgFlags, recv, setsockopt, sockopt::RcvBufForce},
};

use crate::{
    disturbed::stream,
    node::{Node, Ways, ip},
    pod::{Pod, exchanges_udp, hears_nothing, packet, pings},
    tunnel_strangers::{PEER4, PEER6, Target},
    tunnels::{Way, open_to, pair_by, underlay},
};

/// What the chassis calls the VXLAN device that listens in a Geneve device's place.
const STAND_IN: &str = "cilium_gro";
/// Devices that make the kernel listen on a tunnel's port.
const LISTENERS: [&str; 3] = ["cilium_vxlan", "cilium_geneve", STAND_IN];
/// What a device says that it can do itself. Without it the kernel cuts packets and makes their checksums before the device
/// has them, as a network card does.
const OF_CARDS: [&str; 8] = [
    "tx-tcp-segmentation",
    "tx-tcp-ecn-segmentation",
    "tx-tcp-mangleid-segmentation",
    "tx-tcp6-segmentation",
    "tx-udp_tnl-segmentation",
    "tx-udp_tnl-csum-segmentation",
    "tx-gso-partial",
    "tx-checksum-ip-generic",
];
/// The longest frame on a link with an MTU of 1500.
const FRAME: usize = 1514;

/// `node` sends what fits the link, with checksums, and the other end may merge it.
fn cut(node: &Node) {
    let changed = node.run(|_| switch_features("eth0", &OF_CARDS, false)).expect("switched");
    assert!(changed, "a veth device does all of that");
    assert!(!node.run(|_| has_feature("eth0", "tx-tcp-segmentation")).expect("a feature"));
}

/// The device merges what comes in, as a network card's driver does.
fn merge(node: &Node) {
    node.run(|_| switch_features("eth0", &["rx-gro"], true)).expect("switched");
    assert!(node.run(|_| has_feature("eth0", "rx-gro")).expect("a feature"));
}

/// A packet socket with room for all that a test sends.
fn watch(socket: UdpSocket) -> UdpSocket {
    setsockopt(&socket, RcvBufForce, &(16 << 20)).expect("buffer");
    socket
}

fn watch_uplink(node: &Node) -> UdpSocket {
    let index = node.block(|| async { Netlink::new().expect("socket").link("eth0").await.expect("eth0").index });
    watch(packet(&node.netns, index))
}

/// All frames that came by so far.
fn frames(socket: &UdpSocket) -> Vec<Vec<u8>> {
    let mut bytes = vec![0; 1 << 17];
    let mut all = Vec::new();
    while let Ok(length) = recv(socket.as_raw_fd(), &mut bytes, MsgFlags::MSG_DONTWAIT) {
        all.push(bytes[..length].to_vec());
    }
    all
}

/// Where the IP header after an Ethernet header ends, its protocol, and its source; of frames without extension headers.
fn ip_of(frame: &[u8]) -> Option<(usize, u8, IpAddr)> {
    match frame.get(12..14)? {
        [0x08, 0x00] => Some((34, *frame.get(23)?, <[u8; 4]>::try_from(frame.get(26..30)?).ok()?.into())),
        [0x86, 0xdd] => Some((54, *frame.get(20)?, <[u8; 16]>::try_from(frame.get(22..38)?).ok()?.into())),
        _ => None,
    }
}

/// What follows the IP header in the TCP packets of a sender.
fn tcp_from(frames: &[Vec<u8>], sender: IpAddr) -> Vec<&[u8]> {
    let of_sender =
        |frame: &&Vec<u8>| ip_of(frame).is_some_and(|(_, protocol, source)| (protocol, source) == (6, sender));
    frames.iter().filter(of_sender).map(|frame| &frame[ip_of(frame).expect("it was found").0..]).collect()
}

fn longest<T: AsRef<[u8]>>(all: &[T]) -> usize {
    all.iter().map(|one| one.as_ref().len()).max().unwrap_or(0)
}

/// Sends streams until one's packets get to the pod merged, and wants all of them whole; the answer is no when none did.
fn arrives_merged(from: &Pod, (to, node): (&Pod, &Node), way: Way, family: Family) -> bool {
    let what = format!("{family} by {way:?}");
    // Merged is what waits together. On a busy machine nothing may.
    for _ in 0..20 {
        let (inside, outside) = (watch(to.packet()), watch_uplink(node));
        stream(from, to, family, &what);
        let (inside, outside) = (frames(&inside), frames(&outside));
        let inside = tcp_from(&inside, from.ip(family));
        assert!(inside.len() > 10, "{what}: {}", inside.len());
        let port: u16 = if way.carrier == Carrier::Vxlan { 8472 } else { 6081 };
        let first: u32 = if way.carrier == Carrier::Vxlan { 0x0800_0000 } else { 0x6558 };
        for frame in outside.iter().filter(|frame| frame.len() > FRAME) {
            // Only packets of the tunnel pass, and they say what each of their segments said.
            let (end, protocol, source) = ip_of(frame).expect("IP");
            assert_eq!((protocol, Family::of(&source)), (17, way.under), "{what}");
            assert_eq!(frame[end + 2..end + 4], port.to_be_bytes(), "{what}");
            assert_eq!(frame[end + 8..end + 12], first.to_be_bytes(), "{what}");
            assert_eq!(frame[end + 12..end + 16], (from.endpoint.identity.0 << 8).to_be_bytes(), "{what}");
        }
        let is_merged = longest(&inside) > FRAME;
        if is_merged {
            assert!(longest(&outside) > FRAME, "merged at the uplink, and not behind it, {what}");
            return true;
        }
    }
    false
}

/// Takes all devices from a node that make the kernel listen on tunnels' ports.
fn remove_listeners(node: &Node) {
    node.block(|| async {
        let netlink = Netlink::new().expect("socket");
        for name in LISTENERS {
            netlink.delete_link_by_name(name).await.expect("remove");
        }
    });
}

/// Makes a VXLAN device that takes anything, and raises it.
fn listen(node: &Node, name: &'static str, port: u16) {
    node.block(move || async move {
        let netlink = Netlink::new().expect("socket");
        let (source_ports, mac) = (SOURCE_PORTS, Some(INNER_DESTINATION));
        let spec = TunnelSpec { name, kind: TunnelKind::Vxlan, port, source_ports, mac };
        netlink.add_tunnel(&spec).await.expect("a VXLAN device");
        netlink.set_up(netlink.link(name).await.expect("it").index).await.expect("up");
    });
}

#[test]
fn segments_are_merged_before_they_are_taken_out_of_a_tunnel() {
    for carrier in [Carrier::Vxlan, Carrier::Geneve] {
        for under in Family::ALL {
            let way = Way { carrier, under, is_direct: true, is_told: true };
            let (mut a, mut b) = pair_by(way, ["bpf", "bpf"]);
            let (from, to) = (a.pod(10), b.pod(20));
            cut(&a);
            merge(&b);
            for family in Family::ALL {
                assert!(arrives_merged(&from, (&to, &b), way, family), "{family} by {way:?}");
            }
            let report = b.apply().expect("apply");
            assert!(!report.degraded.iter().any(|text| text.contains("merged")), "{report:?}");
            for node in [&a, &b] {
                assert_eq!(node.drops(), [], "{way:?}");
            }
        }
    }
}

/// On any kernel, also on one that has Geneve devices: nothing else merges, and a VXLAN device on Geneve's port does.
#[test]
fn a_vxlan_device_on_geneves_port_is_what_merges_geneve() {
    for under in Family::ALL {
        let way = Way { carrier: Carrier::Geneve, under, is_direct: true, is_told: true };
        let (mut a, mut b) = pair_by(way, ["bpf", "bpf"]);
        let (from, to) = (a.pod(10), b.pod(20));
        cut(&a);
        merge(&b);
        remove_listeners(&b);
        for family in Family::ALL {
            let inside = watch(to.packet());
            stream(&from, &to, family, "without a device");
            let inside = frames(&inside);
            let inside = tcp_from(&inside, from.ip(family));
            assert!(inside.len() > 100 && longest(&inside) <= FRAME, "{}, {}", inside.len(), longest(&inside));
        }
        listen(&b, "by_hand", 6081);
        for family in Family::ALL {
            assert!(arrives_merged(&from, (&to, &b), way, family), "{family} by {way:?}");
        }
        assert_eq!(b.drops(), [], "{way:?}");
    }
}

/// Sends so many bytes from pod to pod; the answer is how long it took until all were there.
fn send_all(from: &Pod, to: &Pod, length: u64) -> Duration {
    let address = to.ip(Family::V4);
    let listener = to.netns.run(|| TcpListener::bind((address, 0)).expect("bind")).expect("namespace");
    let target = listener.local_addr().expect("address");
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("accept");
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("timeout");
        io::copy(&mut stream, &mut io::sink()).expect("it is read")
    });
    let begun = Instant::now();
    let mut client = from.netns.run(|| TcpStream::connect(target)).expect("namespace").expect("connect");
    client.set_write_timeout(Some(Duration::from_secs(20))).expect("timeout");
    io::copy(&mut io::repeat(7).take(length), &mut client).expect("it is sent");
    drop(client);
    assert_eq!(server.join().expect("server"), length);
    begun.elapsed()
}

/// Tells what a stream gains. Set `KINESIN_STREAM_MB` and `--no-capture` for figures that mean something; what is said in
/// the README comes of `KINESIN_STREAM_MB=1000`.
#[test]
fn a_stream_is_whole_merged_and_not_and_this_is_how_fast() {
    let megabytes = std::env::var("KINESIN_STREAM_MB").map_or(4, |text| text.parse().expect("a number of megabytes"));
    let length: u64 = megabytes * 1_000_000;
    for (carrier, port) in [(Carrier::Vxlan, 8472), (Carrier::Geneve, 6081)] {
        let way = Way { carrier, under: Family::V4, is_direct: true, is_told: true };
        let (mut a, mut b) = pair_by(way, ["bpf", "bpf"]);
        let (from, to) = (a.pod(10), b.pod(20));
        cut(&a);
        merge(&b);
        for _ in 0..if megabytes > 4 { 3 } else { 1 } {
            remove_listeners(&b);
            let apart = send_all(&from, &to, length);
            listen(&b, "cilium_vxlan", port);
            let merged = send_all(&from, &to, length);
            let rate = |took: Duration| length as f64 * 8e-9 / took.as_secs_f64();
            eprintln!("{carrier}: {:.2} Gbit/s not merged, {:.2} merged by a VXLAN device", rate(apart), rate(merged));
        }
        assert_eq!(b.drops(), [], "{way:?}");
    }
}

/// Segments of one flow on the wire, each sent by itself.
const SEGMENTS: usize = 8;
/// Bytes of data in one.
const DATA: usize = 400;

/// A TCP segment with its place in a flow and its checksum.
fn segment(source: &str, destination: &str, number: usize) -> Draft {
    let mut bytes = tcp(DATA);
    bytes[4..8].copy_from_slice(&u32::try_from(1 + number * DATA).expect("small").to_be_bytes());
    // An acknowledgement alone: with a push nothing would be put behind it.
    bytes[13] = 0x10;
    // The kernel merges no packets without DF whose identification stays the same.
    with_checksum(draft(source, destination, 6, bytes).fragment(0x4000))
}

fn with_checksum(mut draft: Draft) -> Draft {
    let octets = |address| match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    let length = u32::try_from(draft.payload.len()).expect("small").to_be_bytes();
    let pseudo = [&octets(draft.source)[..], &octets(draft.destination), &length, &[0, 0, 0, draft.protocol]].concat();
    let sum = checksum(&[&pseudo[..], &draft.payload].concat());
    draft.payload[16..18].copy_from_slice(&sum.to_be_bytes());
    draft
}

/// The receiver holds packets back for those that may follow, as a network card under load does, so that what is sent one
/// by one can be merged.
fn hold_back(target: &Target, sysfs: &tempfile::TempDir) {
    let path = sysfs.path().to_owned();
    target.node.run(move |_| {
        mount(Some("sysfs"), &path, Some("sysfs"), MsFlags::empty(), None::<&str>).expect("sysfs");
        // In nanoseconds: longer than it takes to send the segments, on a slow machine too.
        fs::write(path.join("class/net/eth0/gro_flush_timeout"), "20000000").expect("written");
    });
    let outside = target.node.outside.as_ref().expect("the wire's other end");
    outside.run(|| switch_features("eth0", &OF_CARDS, false)).expect("namespace").expect("switched");
    merge(&target.node);
}

/// Sends segments in Geneve with `options`, to be told by `vni` for each; the answer is what comes to the pod, all of it
/// when `wanted` bytes of data have come.
fn send_in_geneve(
    target: &Target,
    under: Family,
    family: Family,
    options: impl Fn(&[u8]) -> Vec<u8>,
    vni: impl Fn(usize) -> u32,
) -> Vec<Vec<u8>> {
    let (source, destination) = match family {
        Family::V4 => ("10.244.2.20", "10.244.1.10"),
        Family::V6 => ("fd00:10:244:2::14", "fd00:10:244:1::a"),
    };
    let peer = if under == Family::V4 { PEER4 } else { PEER6 };
    let own = underlay(&target.node, under).to_string();
    let watched = watch(target.pod.packet());
    for number in 0..SEGMENTS {
        let frame = segment(source, destination, number).bytes();
        let data = geneve(vni(number), &options(&frame), &frame);
        target.send(draft(peer, &own, 17, udp_around(50000, 6081, &data)).fragment(0x4000));
    }
    let mut arrived: Vec<Vec<u8>> = Vec::new();
    for _ in 0..500 {
        arrived.extend(tcp_from(&frames(&watched), ip(source)).into_iter().map(<[u8]>::to_vec));
        if arrived.iter().map(|one| one.len() - 20).sum::<usize>() >= SEGMENTS * DATA {
            return arrived;
        }
        thread::sleep(Duration::from_millis(10));
    }
    arrived
}

fn segment_payload(family: Family, number: usize) -> Vec<u8> {
    match family {
        Family::V4 => segment("10.244.2.20", "10.244.1.10", number).payload,
        Family::V6 => segment("fd00:10:244:2::14", "fd00:10:244:1::a", number).payload,
    }
}

/// All segments arrived as they were sent, none merged with another.
fn are_apart(arrived: &[Vec<u8>], family: Family) -> bool {
    let expected: BTreeSet<_> = (0..SEGMENTS).map(|number| segment_payload(family, number)).collect();
    arrived.len() == SEGMENTS && arrived.iter().cloned().collect::<BTreeSet<_>>() == expected
}

#[test]
fn geneve_with_options_or_of_several_networks_is_not_merged_and_arrives() {
    let target = Target::new("bpf");
    let sysfs = tempfile::tempdir().expect("directory");
    // A stand-in on any kernel: one that has Geneve devices compares options, and merges where they are the same.
    remove_listeners(&target.node);
    listen(&target.node, "by_hand", 6081);
    hold_back(&target, &sysfs);
    // Two whose bytes say IPv4 and IPv6 where the kernel looks for the ethertype, and go on so.
    let [ipv4, ipv6] = [[8, 0, 0x45, 10], [0x86, 0xdd, 0x60, 10]]
        .map(|second| [&[1, 2, 3, 2, 0, 0, 0, 0, 0, 0, 0, 0][..], &second, &[6; 40]].concat());
    let several: [&[u8]; 4] = [&[1, 2, 3, 0], &[1, 2, 3, 1, 5, 6, 7, 8], &ipv4, &ipv6];
    let one = |_| 0x1234;
    for (under, family) in [(Family::V4, Family::V4), (Family::V4, Family::V6), (Family::V6, Family::V4)] {
        let what = format!("{family} over {under}");
        // What would be merged is, so that what is not has a reason.
        let is_merged = || {
            let arrived = send_in_geneve(&target, under, family, |_| Vec::new(), one);
            let data: usize = arrived.iter().map(|one| one.len() - 20).sum();
            assert_eq!(data, SEGMENTS * DATA, "all arrive, {what}");
            longest(&arrived) > 20 + DATA
        };
        assert!((0..50).any(|_| is_merged()), "{what}");
        for options in several {
            let arrived = send_in_geneve(&target, under, family, |_| options.to_vec(), one);
            assert!(are_apart(&arrived, family), "{what}, {options:?}: {arrived:?}");
        }
        // Each segment in another network than its neighbours, so that identities do not mix.
        let arrived = send_in_geneve(&target, under, family, |_| Vec::new(), |number| 0x1234 + (number as u32 & 1));
        assert!(are_apart(&arrived, family), "{what}: {arrived:?}");
    }
}

/// Options that look like an Ethernet, an IPv4 and a TCP header with right checksums, of whose data the rest is.
fn posing(number: usize, frame: &[u8]) -> Vec<u8> {
    let mut bytes = tcp(0);
    let rest = [&[0; 2], frame].concat();
    bytes[4..8].copy_from_slice(&u32::try_from(1 + number * rest.len()).expect("small").to_be_bytes());
    bytes[13] = 0x10;
    bytes.extend(&rest);
    let all = with_checksum(draft("10.244.2.21", "10.244.1.10", 6, bytes).fragment(0x4000)).bytes();
    // A first option's class has to be there: it is the Ethernet address.
    all[..56].to_vec()
}

#[test]
fn options_that_pose_as_segments_spoil_nothing_but_themselves() {
    let mut target = Target::new("bpf");
    let sysfs = tempfile::tempdir().expect("directory");
    remove_listeners(&target.node);
    listen(&target.node, "by_hand", 6081);
    hold_back(&target, &sysfs);
    let other = target.node.pod(11);
    let number = std::cell::Cell::new(0);
    let options = |frame: &[u8]| posing(number.replace((number.get() + 1) % SEGMENTS), frame);
    let expected: BTreeSet<_> = (0..SEGMENTS).map(|number| segment_payload(Family::V4, number)).collect();
    for _ in 0..3 {
        let arrived = send_in_geneve(&target, Family::V4, Family::V4, options, |_| 0x1234);
        // Some are taken for the data of others and lost with them. What comes is what was sent.
        assert!(!arrived.is_empty() && arrived.iter().all(|one| expected.contains(&one[..20 + DATA])), "{arrived:?}");
    }
    for family in Family::ALL {
        assert!(exchanges_udp(&other.udp(family, 0), &target.pod.udp(family, 0)), "{family}");
        let arrived = send_in_geneve(&target, Family::V4, family, |_| Vec::new(), |_| 0x1234);
        assert_eq!(arrived.iter().map(|one| one.len() - 20).sum::<usize>(), SEGMENTS * DATA, "{family}");
    }
}

/// A device by its name: what it is, and whether it is up.
fn device(node: &Node, name: &'static str) -> Option<(LinkKind, bool)> {
    let find = move || async move { Netlink::new().expect("socket").find_link(name).await.expect("list") };
    node.block(find).map(|link| (link.kind, link.up))
}

/// The pins of programs on devices, sorted.
fn pins(node: &Node) -> Vec<String> {
    let links = node.pins().join("links");
    node.run(move |_| {
        let mut names: Vec<_> = fs::read_dir(links)
            .expect("links")
            .map(|entry| entry.expect("entry").file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    })
}

/// Segments of Geneve are not merged, by the chassis' own word.
fn is_told(report: &ChassisReport) -> bool {
    report.degraded.iter().any(|text| text.contains("segments that come in by geneve are not merged"))
}

#[test]
fn the_stand_in_is_made_healed_and_removed_and_is_not_there_beside_a_geneve_device() {
    let mut node = Node::unapplied(Ways::Default);
    open_to(&mut node, &[]);
    let report = node.apply().expect("apply");
    assert!(!is_told(&report), "{report:?}");
    if device(&node, "cilium_geneve").is_some() {
        assert_eq!(device(&node, STAND_IN), None);
        // What an agent left on a kernel that had none, and which has the port.
        node.block(|| async {
            Netlink::new().expect("socket").delete_link_by_name("cilium_geneve").await.expect("remove")
        });
        listen(&node, STAND_IN, 6081);
        let report = node.apply().expect("apply");
        assert!(!is_told(&report) && device(&node, "cilium_geneve").is_some_and(|(_, is_up)| is_up), "{report:?}");
        assert_eq!(device(&node, STAND_IN), None);
        return;
    }
    let right = Some((LinkKind::Vxlan { port: 6081, external: true, source_ports: SOURCE_PORTS }, true));
    assert_eq!(device(&node, STAND_IN), right);
    assert!(
        report.tunnel_paths.iter().all(|found| found.path == "bpf" && !found.uplink.contains(STAND_IN)),
        "{report:?}"
    );
    assert_eq!(node.apply().expect("apply").changes, 0);
    // Programs on it: links have pins. A kernel without them has filters, which go with the device.
    let of_it = pins(&node).len();
    // Removed; on another port; down, as an agent that was killed half way leaves it; something else altogether.
    let remove = || async { Netlink::new().expect("socket").delete_link_by_name(STAND_IN).await.expect("remove") };
    type Disturb = fn(&Node);
    let disturbances: [(&str, Disturb); 3] = [
        ("on another port", |node| listen(node, STAND_IN, 4789)),
        ("down", |node| {
            node.block(|| async {
                let (source_ports, mac) = (SOURCE_PORTS, Some(INNER_DESTINATION));
                let spec = TunnelSpec { name: STAND_IN, kind: TunnelKind::Vxlan, port: 6081, source_ports, mac };
                Netlink::new().expect("socket").add_tunnel(&spec).await.expect("a device");
            });
        }),
        ("a bridge", |node| {
            node.block(|| async { Netlink::new().expect("socket").ensure_bridge(STAND_IN).await.expect("a bridge") });
        }),
    ];
    for (what, disturb) in [("removed", (|_| {}) as Disturb)].into_iter().chain(disturbances) {
        node.block(remove);
        disturb(&node);
        // Also by an agent that knows nothing of what was.
        node.restart();
        let report = node.apply().expect("apply");
        assert!(report.changes > 0 && !is_told(&report), "{what}: {report:?}");
        assert_eq!(device(&node, STAND_IN), right, "{what}");
        assert_eq!(pins(&node).len(), of_it, "{what}: its program is attached");
        assert_eq!(node.apply().expect("apply").changes, 0, "{what}");
    }
    // Another port, then no such tunnel, and back.
    node.spec.tunnels[1].port = 6082;
    node.apply().expect("apply");
    let other = LinkKind::Vxlan { port: 6082, external: true, source_ports: SOURCE_PORTS };
    assert_eq!(device(&node, STAND_IN), Some((other, true)));
    let geneve = node.spec.tunnels.pop().expect("two tunnels");
    assert_eq!(geneve.carrier, Carrier::Geneve);
    node.apply().expect("apply");
    assert_eq!(device(&node, STAND_IN), None);
    assert_eq!(pins(&node).len(), of_it.saturating_sub(1), "nothing is left of it");
    assert_eq!(node.apply().expect("apply").changes, 0);
    open_to(&mut node, &[]);
    node.apply().expect("apply");
    assert_eq!(device(&node, STAND_IN), right);
    node.retire().expect("retire");
    assert_eq!(device(&node, STAND_IN), None);
}

#[test]
fn who_has_geneves_port_is_told_and_everything_else_works() {
    let way = Way { carrier: Carrier::Geneve, under: Family::V4, is_direct: true, is_told: true };
    let (mut a, mut b) = pair_by(way, ["bpf", "bpf"]);
    let (one, other) = (a.pod(10), b.pod(20));
    remove_listeners(&a);
    let squatter = a.run(|_| UdpSocket::bind(("0.0.0.0", 6081))).expect("the port is free");
    let report = a.apply().expect("apply");
    assert!(is_told(&report), "{report:?}");
    assert!(report.degraded.iter().all(|text| !text.contains("vxlan are not merged")), "{report:?}");
    for family in Family::ALL {
        assert!(pings(&one.netns, other.ip(family)), "{family}");
        assert!(exchanges_udp(&other.udp(family, 0), &one.udp(family, 0)), "{family}");
    }
    assert_eq!(a.apply().expect("apply").changes, 0);
    drop(squatter);
    let report = a.apply().expect("apply");
    assert!(!is_told(&report), "{report:?}");
    assert!(LISTENERS[1..].iter().filter_map(|name| device(&a, name)).any(|(_, is_up)| is_up));
    assert!(pings(&one.netns, other.ip(Family::V4)));
}

/// The stand-in takes VXLAN out, if somebody sends such to Geneve's port where no program of an uplink refuses it: at the
/// link-local address, which is in no table. It ends on the device.
#[test]
fn no_way_leads_through_the_stand_in() {
    let target = Target::new("bpf");
    if device(&target.node, STAND_IN).is_none() {
        // The kernel's Geneve device is tried in `tunnel_strangers.rs`.
        assert!(device(&target.node, "cilium_geneve").is_some());
        return;
    }
    let listener = target.pod.udp(Family::V4, 5000);
    let frame = draft("10.244.2.20", "10.244.1.10", 17, datagram(4000, 5000, 16)).bytes();
    let own = target.node.block(|| async {
        let netlink = Netlink::new().expect("socket");
        let index = netlink.link("eth0").await.expect("eth0").index;
        let all = netlink.addresses_of(index).await.expect("addresses");
        all.into_iter()
            .find(|net| net.to_string().starts_with("fe80"))
            .expect("a link-local address")
            .addr()
            .to_string()
    });
    let strangers = || target.node.counted(DropReason::UnknownSender as u8);
    let before = strangers();
    for _ in 0..1000 {
        target.send(draft("fe80::99", &own, 17, udp_around(50000, 6081, &vxlan(0x1234, &frame))));
        target.send(draft("fe80::99", &own, 17, udp_around(50000, 6081, &geneve(0x1234, &[], &frame))));
        if strangers() > before {
            break;
        }
        // The address may be used only once the kernel has seen that nobody else has it.
        thread::sleep(Duration::from_millis(10));
    }
    assert!(strangers() > before, "the device sees VXLAN");
    assert!(hears_nothing(&listener));
    // And a node that is known gets VXLAN refused there by the uplink's program.
    let refused = target.node.counted(DropReason::InvalidTunnel as u8);
    let own = underlay(&target.node, Family::V4).to_string();
    target.send(draft(PEER4, &own, 17, udp_around(50000, 6081, &vxlan(0x1234, &frame))));
    for _ in 0..1000 {
        if target.node.counted(DropReason::InvalidTunnel as u8) > refused {
            break;
        }
        thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(target.node.counted(DropReason::InvalidTunnel as u8), refused + 1);
    assert!(hears_nothing(&listener));
}
