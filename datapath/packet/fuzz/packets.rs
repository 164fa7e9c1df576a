//! Packets, and the tables that they meet.
//!
//! Input of `packets`: the entry point, the bytes per segment (two bytes, 0 for none), whether an ICMP error may be sent,
//! and the packet. Input of `tables`: the number of a packet of the table in `samples.rs`, then map values. Input of
//! `tunnels`: which tunnel over which family and whether an ICMP error may be sent, the outer traffic class, the network (three
//! bytes), the first two bytes of Geneve's header, then everything behind the tunnel's header. With another bit of the first
//! byte set it is a router's word about such a packet from this node: the network's bytes are the MTU and how much is quoted.

use kinesin_abi::{DropReason, Entry, FAMILY_V4, carrier, identity, read_record};
use kinesin_packet::{
    ETH_LEN, Verdict,
    host::{self, Buffer, HostTables},
    ip::{Header, Ip, V4, V6, ethertype},
    samples::{
        node,
        packets::{checksum, draft, geneve, too_big, udp_around, vxlan, wrong_checksum},
        rows,
    },
};

/// Any packet on the node of the samples.
pub(crate) fn packets(input: &[u8]) {
    let Some((&[entry, high, low, tokens], bytes)) = input.split_first_chunk() else { return };
    let segment_size = usize::from(u16::from_be_bytes([high, low]));
    let packet = Buffer { segment_size, ..Buffer::new(bytes.to_vec()) };
    let tables = node::tables();
    tables.error_tokens.set((tokens & 1).into());
    judge(entry_of(entry), &packet, &tables);
}

/// Real packets on a node whose tables hold anything at all.
pub(crate) fn tables(input: &[u8]) {
    let Some((&[entry, which, features, slots], mut rest)) = input.split_first_chunk() else { return };
    let mut tables = node::tables();
    tables.error_tokens.set(1);
    tables.constants.features = features.into();
    tables.constants.slot_mask = u32::from(slots) << (features >> 6);
    let rows = rows();
    let row = &rows[usize::from(which) % rows.len()];
    if let Some(value) = take(&mut rest, 56) {
        tables.devices.extend([(node::DEVICE, value)]);
    }
    for value in tables.endpoints.values_mut() {
        match take(&mut rest, 40) {
            Some(written) => *value = written,
            None => break,
        }
    }
    for value in tables.ipcache.values_mut() {
        match take(&mut rest, 28) {
            Some(written) => *value = written,
            None => break,
        }
    }
    judge(entry_of(entry), &row.packet, &tables);
}

/// Whatever a node of the cluster puts into a tunnel to this node.
pub(crate) fn tunnels(input: &[u8]) {
    let Some((&[way, class, a, b, c, options, flags], inside)) = input.split_first_chunk() else { return };
    let vni = u32::from_be_bytes([0, a, b, c]);
    let (port, data) = if way & 1 == 0 {
        (8472, vxlan(vni, inside))
    } else {
        let mut data = geneve(vni, &[], inside);
        data[..2].copy_from_slice(&[options, flags]);
        (6081, data)
    };
    let ends = if way & 2 == 0 {
        ["192.168.10.103", "192.168.10.101"]
    } else {
        ["fd00:192:168:10::103", "fd00:192:168:10::101"]
    };
    if way & 8 != 0 {
        let sent = draft(ends[1], ends[0], 17, udp_around(50000, port, &data)).class(class).fragment(0x4000).bytes();
        return told(ends, u16::from_be_bytes([a, b]), &sent[ETH_LEN..sent.len().min(ETH_LEN + usize::from(c))]);
    }
    let mut outer = draft(ends[0], ends[1], 17, udp_around(50000, port, &data)).class(class);
    outer.eth_destination = [0; 6];
    let packet = Buffer::new(outer.bytes());
    let tables = node::tables();
    tables.error_tokens.set((way >> 2 & 1).into());
    judge(Entry::FromNetdev, &packet, &tables);
    let verdict = host::run(Entry::FromNetdev, &mut packet.clone(), &tables, node::DEVICE);
    let is_in = !matches!(verdict, Verdict::Drop(_));
    assert!(!is_in || (vni != 0 && vni != identity::HOST), "nobody, or the node itself, got in: {verdict:?}");
    assert!(
        matches!(verdict, Verdict::Drop(_) | Verdict::Deliver { .. } | Verdict::ToHost(_) | Verdict::Answer(_)),
        "out of a tunnel comes what is for this node, and nothing else: {verdict:?}"
    );
}

/// A router's word that a packet from the second of `ends` to the first was too big.
fn told(ends: [&str; 2], mtu: u16, quote: &[u8]) {
    let router = if ends[1].contains(':') { "fd00::1" } else { "192.168.10.1" };
    let mut message = too_big(router, ends[1], mtu, quote);
    message.eth_destination = [0; 6];
    let packet = Buffer::new(message.bytes());
    let tables = node::tables();
    judge(Entry::FromNetdev, &packet, &tables);
    let verdict = host::run(Entry::FromNetdev, &mut packet.clone(), &tables, node::DEVICE);
    assert_eq!(verdict, Verdict::Pass, "the node's own stack hears it all the same");
    for (_, node, learned) in tables.learned.take() {
        assert_eq!(node.addr, host::table_address(ends[0].parse().expect("an address")).0, "of nobody else");
        assert!(mtu != 0 && learned >= mtu, "{learned} of {mtu}");
    }
}

/// What is learned of a way is less than was known, and leaves what every host takes.
fn judge_learned(entry: Entry, tables: &HostTables) {
    for (prefix, node, mtu) in tables.learned.take() {
        assert_eq!(entry, Entry::FromNetdev, "nobody else is told");
        let (_, found) = tables.ipcache_entry(&prefix).expect("what is not known is not learned of");
        assert_eq!((found.node, found.node_family), (node.addr, node.family));
        let known = if found.mtu == 0 { tables.constants.mtu } else { tables.constants.mtu.min(found.mtu.into()) };
        let least = if prefix.family[0] == FAMILY_V4 { 576 } else { 1280 };
        let inside = u32::from(mtu).checked_sub(carrier::overhead(found.carrier, found.node_family));
        assert!(u32::from(mtu) < known && inside.is_some_and(|inside| inside >= least), "{mtu} of {known}");
    }
}

/// The next record of `size` bytes, by [`read_record`].
macro_rules! take_record {
    ($($ty:ident),+) => {
        trait Record: Sized { fn read(bytes: &[u8]) -> Option<Self>; }
        $( impl Record for kinesin_abi::$ty { fn read(bytes: &[u8]) -> Option<Self> { read_record(bytes) } } )+
    };
}
take_record!(DeviceValue, EndpointValue, IpcacheValue);

fn take<T: Record>(rest: &mut &[u8], size: usize) -> Option<T> {
    let value = T::read(rest)?;
    *rest = &rest[size..];
    Some(value)
}

fn entry_of(number: u8) -> Entry {
    Entry::from_number(number % 5).unwrap_or(Entry::FromContainer)
}

/// Runs the pipeline, and holds what comes out against what went in.
fn judge(entry: Entry, before: &Buffer, tables: &HostTables) {
    let tokens = tables.error_tokens.get();
    let mut after = before.clone();
    let (end, verdict) = host::run_to_end(entry, &mut after, tables, node::DEVICE);
    judge_learned(entry, tables);
    tables.error_tokens.set(tokens);
    let mut again = before.clone();
    assert_eq!(host::run(entry, &mut again, tables, node::DEVICE), verdict, "the same packet has the same fate");
    assert_eq!(again, after, "and the same bytes");
    judge_learned(entry, tables);

    match verdict {
        Verdict::Answer(_) => assert_eq!(wrong_checksum(&after.bytes), None, "an answer has right checksums"),
        Verdict::Carry(peer) if carrier::overhead(peer.carrier, peer.family) > 0 => {
            // What went in is inside, behind another Ethernet header.
            let room = carrier::overhead(peer.carrier, peer.family) as usize;
            assert_eq!(after.bytes.len(), before.bytes.len() + room);
            let inside = [&before.bytes[..12], &after.bytes[room + 12..]].concat();
            forwarded(before, &Buffer::new(inside));
        }
        Verdict::Deliver { .. } | Verdict::ToHost(_) if (entry, end) == (Entry::FromNetdev, Entry::FromOverlay) => {
            // What comes out was inside; the congestion mark alone may have come in from outside.
            let removed = before.bytes.len() - after.bytes.len();
            let mut inside = [&after.bytes[..14], &before.bytes[14 + removed..]].concat();
            let was_right = has_right_checksum(&inside);
            inside[15] = after.bytes[15];
            if inside[12] == 0x08 && was_right {
                let end = ETH_LEN + usize::from(inside[14] & 15) * 4;
                inside[24..26].fill(0);
                let sum = checksum(&inside[ETH_LEN..end]);
                inside[24..26].copy_from_slice(&sum.to_be_bytes());
            }
            // A wrong one may have become right by the mark that was just put in.
            forwarded_with(&Buffer::new(inside), &after, was_right);
        }
        Verdict::Decapsulate(_) => panic!("it was taken apart"),
        Verdict::Deliver { .. } | Verdict::ToHost(_) | Verdict::Carry(_) => forwarded(before, &after),
        // The stack does what a router does, and must find the packet as it was.
        Verdict::ToStack(_) | Verdict::Pass | Verdict::Absorb => assert_eq!(*before, after, "{verdict:?}"),
        Verdict::Slot(stage) => assert_ne!(tables.constants.slot_mask & stage.bit(), 0, "an empty slot gets nothing"),
        Verdict::Drop(reason) => assert_ne!(reason, DropReason::Slot, "no slot program has run"),
    }
}

/// Whether the header of a packet that is IPv4 has a right checksum; IPv6 has none that could be wrong.
fn has_right_checksum(packet: &[u8]) -> bool {
    packet[12] != 0x08 || checksum(&packet[ETH_LEN..ETH_LEN + usize::from(packet[14] & 15) * 4]) == 0
}

/// What is forwarded differs in the Ethernet header, the TTL and its checksum, and nowhere else.
fn forwarded(before: &Buffer, after: &Buffer) {
    forwarded_with(before, after, has_right_checksum(&before.bytes));
}

/// As [`forwarded`], where the checksum of what went in was right or not.
fn forwarded_with(before: &Buffer, after: &Buffer, was_right: bool) {
    assert_eq!(before.bytes.len(), after.bytes.len());
    assert_eq!(before.bytes[12..14], after.bytes[12..14]);
    let mut blank = [before.bytes.clone(), after.bytes.clone()];
    let (old, new, at) = match u16::from_ne_bytes([before.bytes[12], before.bytes[13]]) {
        ethertype::IPV4 => (parsed::<V4>(before), parsed::<V4>(after), 22),
        ethertype::IPV6 => (parsed::<V6>(before), parsed::<V6>(after), 21),
        other => panic!("only IP is forwarded, not {other:#x}"),
    };
    assert!(new.ttl == old.ttl || (old.ttl > 1 && new.ttl == old.ttl - 1), "TTL {} to {}", old.ttl, new.ttl);
    assert_eq!(Header { ttl: old.ttl, ..new }, old);
    for bytes in &mut blank {
        bytes[..12].fill(0);
        bytes[at] = 0;
        if at == 22 {
            bytes[24..26].fill(0);
        }
    }
    assert_eq!(blank[0], blank[1]);
    assert!(!was_right || has_right_checksum(&after.bytes), "the checksum stays right");
}

fn parsed<I: Ip>(packet: &Buffer) -> Header {
    I::parse(packet).unwrap_or_else(|reason| panic!("forwarded although {reason:?}"))
}
