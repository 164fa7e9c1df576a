//! Superpackets of UDP in Geneve, where a VXLAN device is all that the kernel has for it.

use kinesin_abi::{Entry, Mark, STAND_IN, carrier};
use kinesin_packet::{
    Verdict,
    host::{self, Buffer},
    samples::{
        node,
        packets::{draft, geneve, tcp, udp, udp_around, vxlan},
    },
};

const IDENTITY: u32 = 0x00ab_cdef;

/// A packet from another node to a pod, by Geneve.
struct Incoming {
    over_v6: bool,
    frame: Vec<u8>,
    options: &'static [u8],
}

impl Incoming {
    fn udp(over_v6: bool) -> Self {
        Self { over_v6, frame: draft("10.244.3.9", "10.244.1.11", 17, udp(4000, 5000, 1000)).bytes(), options: &[] }
    }

    fn around(&self, data: &[u8]) -> Vec<u8> {
        let (from, to) = if self.over_v6 {
            ("fd00:192:168:10::103", "fd00:192:168:10::101")
        } else {
            ("192.168.10.103", "192.168.10.101")
        };
        let mut outer = draft(from, to, 17, udp_around(50000, 6081, data));
        // That of the device, which a buffer has not.
        outer.eth_destination = [0; 6];
        outer.bytes()
    }

    fn bytes(&self) -> Vec<u8> {
        self.around(&geneve(IDENTITY, self.options, &self.frame))
    }

    /// Where UDP starts.
    fn udp_at(&self) -> usize {
        if self.over_v6 { 54 } else { 34 }
    }
}

/// What becomes of it on a node with these devices of the kernel's.
fn judge(bytes: Vec<u8>, segment_size: usize, overlays: u32) -> (Verdict, Buffer) {
    let mut tables = node::tables();
    tables.constants.overlays = overlays;
    let mut packet = Buffer { segment_size, ..Buffer::new(bytes) };
    let verdict = host::run(Entry::FromNetdev, &mut packet, &tables, node::DEVICE);
    (verdict, packet)
}

#[test]
fn superpackets_of_udp_become_vxlan_and_go_to_the_device() {
    for over_v6 in [false, true] {
        let incoming = Incoming::udp(over_v6);
        let (verdict, packet) = judge(incoming.bytes(), 500, STAND_IN);
        assert_eq!((verdict, packet.mark), (Verdict::Pass, Mark::OVERLAY.0));
        assert_eq!(packet.bytes, incoming.around(&vxlan(IDENTITY, &incoming.frame)), "as if it had been VXLAN");
        // A device of Geneve's own takes it as it is.
        let (verdict, packet) = judge(incoming.bytes(), 500, 1 << carrier::GENEVE);
        assert_eq!((verdict, packet.mark), (Verdict::Pass, Mark::OVERLAY.0));
        assert_eq!(packet.bytes, incoming.bytes());
    }
}

#[test]
fn all_else_is_taken_out_by_programs() {
    for over_v6 in [false, true] {
        let udp = Incoming::udp(over_v6);
        let at = udp.udp_at();
        let changed = |place: usize, value: u8| {
            let mut bytes = udp.bytes();
            bytes[place] = value;
            bytes
        };
        let of_tcp =
            Incoming { frame: draft("10.244.3.9", "10.244.1.11", 6, tcp(1000)).bytes(), ..Incoming::udp(over_v6) };
        let with_options = Incoming { options: &[1, 2, 3, 0], ..Incoming::udp(over_v6) };
        for (what, bytes, segment_size, overlays) in [
            ("no superpacket", udp.bytes(), 0, STAND_IN),
            ("TCP", of_tcp.bytes(), 500, STAND_IN),
            ("options", with_options.bytes(), 500, STAND_IN),
            ("a checksum outside", changed(at + 7, 1), 500, STAND_IN),
            ("a reserved bit of the first word", changed(at + 9, 1), 500, STAND_IN),
            ("a reserved bit of the second word", changed(at + 15, 1), 500, STAND_IN),
            ("no device", udp.bytes(), 500, 0),
            ("VXLAN's device alone", udp.bytes(), 500, 1 << carrier::VXLAN),
        ] {
            let (verdict, packet) = judge(bytes, segment_size, overlays);
            assert_eq!(verdict, Verdict::Deliver { ifindex: node::NEIGHBOUR }, "{what}, over IPv6: {over_v6}");
            assert_eq!((packet.mark, packet.bytes.len()), (0, if what == "TCP" { 1054 } else { 1042 }), "{what}");
        }
    }
}
