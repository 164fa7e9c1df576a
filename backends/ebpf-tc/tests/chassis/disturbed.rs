//! A network that loses, delays and reorders what one of two nodes sends: streams are whole in the end, and what is
//! missing is missing in the network.

use std::{
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    os::fd::AsRawFd as _,
    thread,
    time::{Duration, Instant},
};

use kinesin_core::values::{Carrier, Family};
use kinesin_netlink::Netlink;
use nix::{
    libc::ENOENT,
    sys::socket::{
        AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, setsockopt, socket, sockopt::RcvBufForce,
    },
};
use rtnetlink::{
    packet_core::{
        DefaultNla, NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload,
    },
    packet_route::{
        RouteNetlinkMessage,
        tc::{TcAttribute, TcHandle, TcMessage},
    },
};

use crate::{
    node::Node,
    pod::Pod,
    stock::skip,
    tunnel_switch::send_by,
    tunnels::{Way, pair},
};

/// A gap longer than this in a stream is a stall. The kernel sends again what was lost after a fifth of a second and more.
const STALL: Duration = Duration::from_secs(20);
/// Bytes of a stream.
const LENGTH: usize = 1 << 18;
/// Datagrams of a stream.
const DATAGRAMS: u64 = 200;

/// What the network does to what a node sends.
#[derive(Debug, Clone, Copy, Default)]
struct Netem {
    delay: Duration,
    /// The delay differs by so much, which reorders.
    jitter: Duration,
    /// Lost, of a hundred.
    loss: u32,
    /// Sent at once, past those that wait, of a hundred.
    reorder: u32,
}

impl Netem {
    /// `struct tc_netem_qopt` and `TCA_NETEM_REORDER` (include/uapi/linux/pkt_sched.h, Linux 6.18).
    fn options(self) -> Vec<u8> {
        // Times are in 64 ns (`PSCHED_SHIFT`), chances in parts of 2^32.
        let ticks = |time: Duration| u32::try_from(time.as_nanos() / 64).expect("a short time");
        let chance = |percent: u32| u32::MAX / 100 * percent;
        let gap = u32::from(self.reorder > 0);
        let mut bytes = Vec::new();
        for word in [ticks(self.delay), 10_000, chance(self.loss), gap, 0, ticks(self.jitter)] {
            bytes.extend(word.to_ne_bytes());
        }
        if self.reorder > 0 {
            // Length and kind, the chance, no correlation.
            bytes.extend(12_u16.to_ne_bytes());
            bytes.extend(3_u16.to_ne_bytes());
            bytes.extend(chance(self.reorder).to_ne_bytes());
            bytes.extend([0; 4]);
        }
        bytes
    }

    /// Puts it on a node's uplink, in the place of another; the answer is no where the kernel has none.
    fn put(self, node: &Node) -> bool {
        /// Of a qdisc's options.
        const TCA_OPTIONS: u16 = 2;
        let index = uplink(node);
        let options = TcAttribute::Other(DefaultNla::new(TCA_OPTIONS, self.options()));
        let answer = node.run(move |_| {
            let mut message = TcMessage::with_index(index);
            message.header.parent = TcHandle::ROOT;
            message.header.handle = TcHandle { major: 1, minor: 0 };
            message.attributes = vec![TcAttribute::Kind("netem".to_owned()), options];
            let flags = NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE;
            ask(RouteNetlinkMessage::NewQueueDiscipline(message), flags)
        });
        match answer.into_iter().next() {
            Some(NetlinkPayload::Error(error)) if error.raw_code() == -ENOENT => false,
            Some(NetlinkPayload::Error(error)) if error.code.is_none() => true,
            other => panic!("{other:?}"),
        }
    }
}

fn uplink(node: &Node) -> i32 {
    let find = || async { Netlink::new().expect("socket").link("eth0").await.expect("eth0").index };
    i32::try_from(node.block(find)).expect("an index")
}

/// Asks the kernel of the calling thread's namespace; what it says, up to the end of its answer.
fn ask(message: RouteNetlinkMessage, flags: u16) -> Vec<NetlinkPayload<RouteNetlinkMessage>> {
    let mut request = NetlinkMessage::from(message);
    request.header.flags = NLM_F_REQUEST | flags;
    request.finalize();
    let mut bytes = vec![0; request.buffer_len()];
    request.serialize(&mut bytes);
    let socket = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkRoute);
    let socket = socket.expect("netlink socket");
    send(socket.as_raw_fd(), &bytes, MsgFlags::empty()).expect("send");
    let (mut all, mut buffer) = (Vec::new(), vec![0; 1 << 16]);
    loop {
        let length = recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty()).expect("an answer");
        let mut rest = &buffer[..length];
        while !rest.is_empty() {
            let answer = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest).expect("an answer");
            let size = (answer.header.length as usize).next_multiple_of(4).min(rest.len());
            rest = &rest[size..];
            match answer.payload {
                NetlinkPayload::Done(_) => return all,
                NetlinkPayload::Error(_) => {
                    all.push(answer.payload);
                    return all;
                }
                payload => all.push(payload),
            }
        }
    }
}

/// How much the network has dropped so far of what a node sent.
fn lost(node: &Node) -> u64 {
    let index = uplink(node);
    let answers =
        node.run(move |_| ask(RouteNetlinkMessage::GetQueueDiscipline(TcMessage::with_index(index)), NLM_F_DUMP));
    let drops = answers.into_iter().filter_map(|answer| match answer {
        NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewQueueDiscipline(found)) if found.header.index == index => {
            let is_netem = found.attributes.contains(&TcAttribute::Kind("netem".to_owned()));
            let stats = found.attributes.iter().find_map(|attribute| match attribute {
                TcAttribute::Stats(stats) => Some(u64::from(stats.drops)),
                _ => None,
            });
            stats.filter(|_| is_netem)
        }
        _ => None,
    });
    drops.sum()
}

/// What stands at a place of a stream; blocks of 256 differ too.
fn byte_at(place: usize) -> u8 {
    (place ^ place >> 8) as u8
}

/// Sends a stream from one pod to another, and wants it whole without a stall.
pub(crate) fn stream(from: &Pod, to: &Pod, family: Family, what: &str) {
    let address = to.ip(family);
    let listener = to.netns.run(|| TcpListener::bind((address, 0)).expect("bind")).expect("namespace");
    let target = listener.local_addr().expect("address");
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("accept");
        stream.set_read_timeout(Some(STALL)).expect("timeout");
        let mut received = Vec::new();
        let end = stream.read_to_end(&mut received);
        (received, end.map(|_| ()))
    });
    let client = from.netns.run(|| TcpStream::connect_timeout(&target, STALL)).expect("namespace");
    let mut client = client.unwrap_or_else(|error| panic!("connect, {what}: {error}"));
    client.set_write_timeout(Some(STALL)).expect("timeout");
    let sent: Vec<u8> = (0..LENGTH).map(byte_at).collect();
    client.write_all(&sent).unwrap_or_else(|error| panic!("write, {what}: {error}"));
    drop(client);
    let (received, end) = server.join().expect("server");
    end.unwrap_or_else(|error| panic!("after {} bytes, {what}: {error}", received.len()));
    assert!(received == sent, "{what}: {} bytes, or others", received.len());
}

/// Sends numbered datagrams; the answer is how many arrived, each once and whole.
fn datagrams(from: &Pod, to: &Pod, family: Family, what: &str) -> u64 {
    let (source, sink) = (from.udp(family, 0), to.udp(family, 0));
    setsockopt(&sink, RcvBufForce, &(8 << 20)).expect("buffer");
    let target = sink.local_addr().expect("address");
    let last = u64::MAX;
    let receiver = thread::spawn(move || {
        let (mut seen, mut bytes) = (vec![false; DATAGRAMS as usize], [0; 2048]);
        sink.set_read_timeout(Some(STALL)).expect("timeout");
        loop {
            let length = sink.recv(&mut bytes).expect("the last one arrives");
            let number = u64::from_ne_bytes(bytes[..8].try_into().expect("eight"));
            if number == last {
                return seen.into_iter().filter(|it| *it).count() as u64;
            }
            assert!(length == 1000 && bytes[8..length].iter().all(|byte| *byte == number as u8), "it is whole");
            assert!(!std::mem::replace(&mut seen[number as usize], true), "it comes once");
        }
    });
    for number in 0..DATAGRAMS {
        let mut bytes = [number as u8; 1000];
        bytes[..8].copy_from_slice(&number.to_ne_bytes());
        source.send_to(&bytes, target).expect("send");
        thread::sleep(Duration::from_micros(300));
    }
    // Behind all that may be late. Any of these may be lost, and one is enough.
    thread::sleep(Duration::from_millis(300));
    let begun = Instant::now();
    while !receiver.is_finished() && begun.elapsed() < STALL {
        let _ = source.send_to(&last.to_ne_bytes(), target);
        thread::sleep(Duration::from_millis(20));
    }
    receiver.join().unwrap_or_else(|_| panic!("{what}"))
}

fn is_whole_by(carrier: Carrier, under: Family, netem: Netem) {
    let (mut a, mut b) = pair(Way { carrier: Carrier::Vxlan, under, is_direct: true, is_told: true });
    if carrier != Carrier::Vxlan {
        send_by(&mut a, &b, carrier, under);
        send_by(&mut b, &a, carrier, under);
    }
    let (one, other) = (a.pod(10), b.pod(20));
    if !netem.put(&a) {
        return skip("netem");
    }
    for family in Family::ALL {
        let what = |way: &str| format!("{way}, {family} by {carrier:?} over {under}, {netem:?}");
        stream(&one, &other, family, &what("out"));
        stream(&other, &one, family, &what("back"));
        let before = lost(&a);
        let arrived = datagrams(&one, &other, family, &what("datagrams out"));
        let missing = DATAGRAMS - arrived;
        let lost = lost(&a) - before;
        assert!(missing <= lost, "{}: {missing} are missing, and the network lost {lost}", what("datagrams out"));
        // What this node sends nobody disturbs.
        assert_eq!(datagrams(&other, &one, family, &what("datagrams back")), DATAGRAMS);
    }
    for node in [&a, &b] {
        assert_eq!(node.drops(), [], "{carrier:?}");
    }
}

const CASES: [Netem; 2] = [
    // Reordered and late, and nothing is lost: what is sent again was never missing.
    Netem { delay: Duration::from_millis(4), jitter: Duration::from_millis(3), loss: 0, reorder: 25 },
    Netem { delay: Duration::from_millis(2), jitter: Duration::from_millis(1), loss: 2, reorder: 0 },
];

#[test]
fn streams_are_whole_natively_though_the_network_loses_and_reorders() {
    for netem in CASES {
        // Each family by its own.
        is_whole_by(Carrier::Native, Family::V4, netem);
    }
}

#[test]
fn streams_are_whole_in_vxlan_though_the_network_loses_and_reorders() {
    for (netem, under) in CASES.into_iter().zip(Family::ALL) {
        is_whole_by(Carrier::Vxlan, under, netem);
    }
}

#[test]
fn streams_are_whole_in_geneve_though_the_network_loses_and_reorders() {
    for (netem, under) in CASES.into_iter().zip([Family::V6, Family::V4]) {
        is_whole_by(Carrier::Geneve, under, netem);
    }
}
