//! What holds for every packet, whatever its bytes.

use kinesin_abi::Entry;
use kinesin_packet::{
    ETH_LEN, Verdict, checksum,
    host::{self, Buffer},
    samples::{
        node,
        packets::{checksum as plain_checksum, draft, tcp, udp, wrong_checksum},
        rows,
    },
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
}
