//! The table of packets on the host.

use kinesin_packet::{
    Verdict, host,
    samples::{node, packets::wrong_checksum, rows},
};

#[test]
fn pipeline_agrees_with_the_table() {
    let tables = node::tables();
    for row in rows() {
        tables.error_tokens.set(1);
        let mut packet = row.packet.clone();
        let verdict = host::run(row.entry, &mut packet, &tables, node::DEVICE);
        assert_eq!(verdict, row.verdict, "{}", row.name);
        assert_eq!(tables.learned.take(), row.learned(), "{}", row.name);
        if let Some(check) = row.bytes {
            check(&row.packet.bytes, &packet.bytes);
        }
        if matches!(verdict, Verdict::Answer(_)) {
            assert_eq!(wrong_checksum(&packet.bytes), None, "{}", row.name);
        }
    }
}

#[test]
fn names_of_the_table_are_unique() {
    let mut names: Vec<_> = rows().into_iter().map(|row| row.name).collect();
    let count = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), count);
}
