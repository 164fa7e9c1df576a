//! What holds for every packet, whatever its bytes.

use kinesin_abi::{
    DropReason, EndpointKey, EndpointValue, Entry, IpcacheKey, IpcacheValue, carrier, endpoint_flag, ipcache_flag,
};
use kinesin_packet::{
    ETH_LEN, Kind, Outcome, Verdict, checksum,
    host::{self, Buffer},
    pipeline,
    samples::{
        node,
        packets::{checksum as plain_checksum, draft, tcp, udp, wrong_checksum},
        rows,
    },
    tunnel::decap,
};
use proptest::prelude::*;

fn run(entry: u8, packet: &mut Buffer, tokens: u32) -> Verdict {
    let tables = node::tables();
    tables.error_tokens.set(tokens);
    host::run(Entry::from_number(entry).unwrap(), packet, &tables, node::DEVICE)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), entry in 0..5_u8) {
        let _ = run(entry, &mut Buffer::new(bytes), 1);
    }

    #[test]
    fn no_change_of_a_real_packet_makes_it_panic(
        row in any::<prop::sample::Index>(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
        cut in any::<prop::sample::Index>(),
        segment in prop_oneof![Just(0_usize), 1..2000_usize],
        entry in 0..5_u8,
    ) {
        let rows = rows();
        let mut bytes = row.get(&rows).packet.bytes.clone();
        for (at, value) in changes {
            let length = bytes.len();
            bytes[at.index(length)] = value;
        }
        bytes.truncate(cut.index(bytes.len() + 1));
        let mut packet = Buffer { segment_size: segment, ..Buffer::new(bytes) };
        let verdict = run(entry, &mut packet, 1);
        if matches!(verdict, Verdict::Answer(_)) {
            prop_assert_eq!(wrong_checksum(&packet.bytes), None);
        }
    }

    #[test]
    fn a_pod_speaks_only_from_its_own_address(source in any::<[u8; 4]>(), last in any::<[u8; 16]>()) {
        let spoofed4 = std::net::Ipv4Addr::from(source);
        let spoofed6 = std::net::Ipv6Addr::from(last);
        prop_assume!(spoofed4.to_string() != "10.244.1.10" && spoofed6.to_string() != "fd00:10:244:1::a");
        for bytes in [
            draft(&spoofed4.to_string(), "10.244.1.11", 6, tcp(4)).bytes(),
            draft(&spoofed6.to_string(), "fd00:10:244:1::b", 6, tcp(4)).bytes(),
        ] {
            let verdict = run(Entry::FromContainer as u8, &mut Buffer::new(bytes), 1);
            prop_assert!(matches!(verdict, Verdict::Drop(_)), "{:?}", verdict);
        }
    }

    /// Whatever stands before it, a datagram for a node's tunnel port does not leave.
    #[test]
    fn options_do_not_hide_a_tunnel_port(count in 0..8_usize, kinds in prop::collection::vec(prop_oneof![Just(0_u8), Just(43), Just(60)], 8)) {
        let mut headers = Vec::new();
        for at in 0..count {
            let next = if at + 1 == count { 17 } else { kinds[at + 1] };
            headers.extend([next, 0, 1, 4, 0, 0, 0, 0]);
        }
        let mut packet = draft("fd00:10:244:1::a", "fd00:192:168:10::102", 17, udp(1, 8472, 8));
        if count > 0 {
            packet = packet.extensions(kinds[0], &headers);
        }
        let verdict = run(Entry::FromContainer as u8, &mut Buffer::new(packet.bytes()), 1);
        prop_assert!(matches!(verdict, Verdict::Drop(_)), "{:?}", verdict);
    }

    #[test]
    fn checksum_after_a_ttl_step_is_the_recomputed_one(ttl in 2..=255_u8, id in any::<[u8; 2]>(), to in any::<u8>()) {
        let mut bytes = draft("10.244.1.10", &format!("10.244.2.{to}"), 6, tcp(0)).ttl(ttl).bytes();
        bytes[18..20].copy_from_slice(&id);
        bytes[24..26].fill(0);
        let sum = plain_checksum(&bytes[ETH_LEN..34]);
        bytes[24..26].copy_from_slice(&sum.to_be_bytes());
        let mut packet = Buffer::new(bytes);
        let verdict = run(Entry::FromContainer as u8, &mut packet, 1);
        prop_assert!(matches!(verdict, Verdict::Carry(_)), "{:?}", verdict);
        let stored = [packet.bytes[24], packet.bytes[25]];
        packet.bytes[24..26].fill(0);
        prop_assert_eq!(stored, plain_checksum(&packet.bytes[ETH_LEN..34]).to_be_bytes());
    }

    #[test]
    fn fold_agrees_with_the_plain_way(words in prop::collection::vec(any::<u32>(), 1..40)) {
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        let sum = words.iter().map(|word| u64::from(*word)).sum();
        prop_assert_eq!(checksum::fold(sum).to_ne_bytes(), plain_checksum(&bytes).to_be_bytes());
    }

    /// Nothing on the way changes: what one node puts into a tunnel, another takes out as it was, two hops older.
    #[test]
    fn what_goes_in_comes_out(
        identity in 1..0x0100_0000_u32,
        class in prop_oneof![Just(0_u8), Just(0xb8), Just(0xb9), Just(0xba), Just(0xbb)],
        data in 0..600_usize,
        ttl in 3..=255_u8,
        carrier in prop_oneof![Just(carrier::VXLAN), Just(carrier::GENEVE)],
        is_v6 in any::<bool>(),
        is_over_v6 in any::<bool>(),
    ) {
        let ends = if is_v6 { ["fd00:10:244:1::a", "fd00:10:244:3::9"] } else { ["10.244.1.10", "10.244.3.9"] };
        let (own, peer) = if is_over_v6 {
            (host::table_address("fd00:192:168:10::101".parse().unwrap()), "fd00:192:168:10::103")
        } else {
            (host::table_address("192.168.10.101".parse().unwrap()), "192.168.10.103")
        };
        let before = draft(ends[0], ends[1], 17, udp(4000, 53, data)).class(class).ttl(ttl).bytes();
        let mut tables = node::tables();
        tables.devices.get_mut(&node::DEVICE).unwrap().identity = identity;
        let (peer, family) = host::table_address(peer.parse().unwrap());
        for value in tables.ipcache.values_mut().filter(|value| value.carrier == carrier::VXLAN) {
            (value.node, value.node_family, value.carrier) = (peer, family, carrier);
        }
        let mut packet = Buffer::new(before.clone());
        let verdict = host::run(Entry::FromContainer, &mut packet, &tables, node::DEVICE);
        prop_assert!(matches!(verdict, Verdict::Carry(_)), "{:?}", verdict);

        // The other node: the two change places, and the pod is its own.
        let mut there = node::tables();
        (there.constants.underlay4, there.constants.underlay6) =
            if is_over_v6 { (0, peer) } else { (peer[0], [0; 4]) };
        there.endpoints.clear();
        let (addr, kind) = host::table_address(ends[1].parse().unwrap());
        let pod = EndpointValue { ifindex: 7, flags: endpoint_flag::READY, ..EndpointValue::default() };
        there.endpoints.insert(EndpointKey { addr, family: kind, pad: [0; 3] }, pod);
        let node = IpcacheValue { flags: ipcache_flag::NODE, ..IpcacheValue::default() };
        let length = if is_over_v6 { 128 } else { 32 };
        there.ipcache.insert((length, IpcacheKey { family: [own.1, 0, 0, 0], addr: own.0 }), node);
        packet.bytes[..6].fill(0);
        let mut out = Outcome::new();
        pipeline::from_netdev(&mut packet, &there, &mut out, 0);
        prop_assert_eq!(out.kind, Kind::Decapsulate);
        // The node itself is one of the cluster's to others.
        prop_assert_eq!(out.peer.identity, if identity == 1 { 6 } else { identity });
        prop_assert_eq!(decap::strip(&mut packet, &out), Ok(()));
        pipeline::from_overlay(&mut packet, &there, &mut out, 0);
        prop_assert_eq!(out.verdict(), Verdict::Deliver { ifindex: 7 });
        let expected = draft(ends[0], ends[1], 17, udp(4000, 53, data)).class(class).ttl(ttl - 2).bytes();
        prop_assert_eq!(&packet.bytes[12..], &expected[12..]);
    }

    /// What means something on its own node only does not leave it.
    #[test]
    fn identities_that_do_not_fit_are_not_carried(identity in 0x0100_0000..=u32::MAX) {
        let mut tables = node::tables();
        tables.devices.get_mut(&node::DEVICE).unwrap().identity = identity;
        let mut packet = Buffer::new(draft("10.244.1.10", "10.244.3.9", 6, tcp(4)).bytes());
        let verdict = host::run(Entry::FromContainer, &mut packet, &tables, node::DEVICE);
        prop_assert_eq!(verdict, Verdict::Drop(DropReason::InvalidIdentity));
    }

    /// Routers that spread by ports spread our flows.
    #[test]
    fn flows_have_ports_of_their_own(a in any::<u8>(), is_v6 in any::<bool>()) {
        let mut ports = std::collections::BTreeSet::new();
        for source in 1000..1256_u16 {
            let ends = if is_v6 {
                ["fd00:10:244:1::a".to_owned(), format!("fd00:10:244:3::{a:x}")]
            } else {
                ["10.244.1.10".to_owned(), format!("10.244.3.{a}")]
            };
            let mut packet = Buffer::new(draft(&ends[0], &ends[1], 17, udp(source, 53, 8)).bytes());
            let verdict = host::run(Entry::FromContainer, &mut packet, &node::tables(), node::DEVICE);
            prop_assert!(matches!(verdict, Verdict::Carry(_)), "{:?}", verdict);
            ports.insert([packet.bytes[34], packet.bytes[35]]);
        }
        // 256 of 16,384 by chance: two meet about twice.
        prop_assert!(ports.len() > 240, "{} ports", ports.len());
    }
}
