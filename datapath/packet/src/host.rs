//! A packet in a byte buffer and tables in ordered maps: the pipeline's world outside the kernel.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    net::IpAddr,
    vec::Vec,
};

use kinesin_abi::{
    Address, Constants, DeviceValue, EndpointKey, EndpointValue, Entry, FAMILY_V4, FAMILY_V6, IpcacheKey, IpcacheValue,
    MAX_TUNNEL_PORTS, Mark, carrier,
};

use crate::{
    ETH_LEN, Outcome, Packet, Tables, Verdict, answer, pipeline,
    tunnel::{self, decap, device, encap, told},
};

/// A packet in memory.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Buffer {
    /// Its bytes, Ethernet header first.
    pub bytes: Vec<u8>,
    /// See [`Packet::segment_size`].
    pub segment_size: usize,
    /// Ethernet address of the device that it is on; that of a test run's is zero.
    pub device_mac: [u8; 6],
    /// See [`Packet::mark`].
    pub mark: u32,
}

impl Buffer {
    /// A packet that will not be segmented.
    #[must_use]
    pub fn new(bytes: Vec<u8>) -> Self {
        Self { bytes, ..Self::default() }
    }
}

impl Packet for Buffer {
    fn len(&self) -> usize {
        self.bytes.len()
    }

    fn bounds(&self) -> (usize, usize) {
        let start = self.bytes.as_ptr().expose_provenance();
        (start, start + self.bytes.len())
    }

    fn segment_size(&self) -> usize {
        self.segment_size
    }

    fn is_addressed_to_us(&self) -> bool {
        self.bytes.starts_with(&self.device_mac)
    }

    fn pull(&mut self, length: usize) -> bool {
        length <= self.bytes.len()
    }

    fn set_len(&mut self, length: usize) -> bool {
        self.bytes.resize(length, 0);
        true
    }

    fn grow_front(&mut self, length: usize) -> bool {
        self.bytes.splice(0..0, core::iter::repeat_n(0, length));
        true
    }

    fn encapsulate(&mut self, length: usize, _family: u8) -> bool {
        if self.bytes.len() < ETH_LEN {
            return false;
        }
        self.bytes.splice(ETH_LEN..ETH_LEN, core::iter::repeat_n(0, length));
        true
    }

    fn decapsulate(&mut self, length: usize, _outer: u8, _inner: u8) -> bool {
        if self.bytes.len() < ETH_LEN + length {
            return false;
        }
        self.bytes.drain(ETH_LEN..ETH_LEN + length);
        true
    }

    fn mark(&self) -> u32 {
        self.mark
    }

    fn write_u8(&mut self, offset: usize, value: u8) -> bool {
        self.bytes.get_mut(offset).map(|byte| *byte = value).is_some()
    }
}

/// An address as the tables have it, with its family.
#[must_use]
pub fn table_address(ip: IpAddr) -> (Address, u8) {
    match ip {
        IpAddr::V4(ip) => ([u32::from_ne_bytes(ip.octets()), 0, 0, 0], FAMILY_V4),
        IpAddr::V6(ip) => {
            let octets = ip.octets();
            let word = |at: usize| u32::from_ne_bytes([octets[at], octets[at + 1], octets[at + 2], octets[at + 3]]);
            ([word(0), word(4), word(8), word(12)], FAMILY_V6)
        }
    }
}

/// Tables in memory.
#[derive(Debug, Clone, Default)]
pub struct HostTables {
    /// Constants as they would be set at load time.
    pub constants: Constants,
    /// By device index.
    pub devices: BTreeMap<u32, DeviceValue>,
    /// By address.
    pub endpoints: BTreeMap<EndpointKey, EndpointValue>,
    /// By prefix length within the address and key.
    pub ipcache: BTreeMap<(u8, IpcacheKey), IpcacheValue>,
    /// ICMP errors that may still be sent.
    pub error_tokens: Cell<u32>,
    /// What was learned of ways: an address inside the prefix, the node, and the MTU in bytes. The prefix table stays as it is.
    pub learned: RefCell<Vec<(IpcacheKey, EndpointKey, u16)>>,
}

impl HostTables {
    /// The longest prefix that holds an address, with what is known of it.
    #[must_use]
    pub fn ipcache_entry(&self, key: &IpcacheKey) -> Option<(&(u8, IpcacheKey), &IpcacheValue)> {
        let covers = |length: u8, prefix: &IpcacheKey| {
            prefix.family == key.family && leading_equal(&prefix.addr, &key.addr) >= u32::from(length)
        };
        let covering = self.ipcache.iter().filter(|((length, prefix), _)| covers(*length, prefix));
        covering.max_by_key(|((length, _), _)| *length)
    }
}

impl Tables for HostTables {
    fn device(&self, ifindex: u32) -> Option<&DeviceValue> {
        self.devices.get(&ifindex)
    }

    fn endpoint(&self, key: &EndpointKey) -> Option<&EndpointValue> {
        self.endpoints.get(key)
    }

    fn ipcache(&self, key: &IpcacheKey) -> Option<&IpcacheValue> {
        self.ipcache_entry(key).map(|(_, value)| value)
    }

    fn take_error_token(&self) -> bool {
        let left = self.error_tokens.get();
        self.error_tokens.set(left.saturating_sub(1));
        left > 0
    }

    fn learn(&self, prefix: &IpcacheKey, node: &EndpointKey, mtu_bytes: u16) {
        self.learned.borrow_mut().push((*prefix, *node, mtu_bytes));
    }

    fn features(&self) -> u32 {
        self.constants.features
    }

    fn slot_mask(&self) -> u32 {
        self.constants.slot_mask
    }

    fn mtu(&self) -> u32 {
        self.constants.mtu
    }

    fn router4(&self) -> u32 {
        self.constants.router4
    }

    fn router6(&self) -> [u32; 4] {
        self.constants.router6
    }

    fn tunnel_ports(&self) -> [u16; MAX_TUNNEL_PORTS] {
        self.constants.tunnel_ports
    }

    fn vxlan_port(&self) -> u16 {
        self.constants.vxlan_port
    }

    fn geneve_port(&self) -> u16 {
        self.constants.geneve_port
    }

    fn vxlan_device(&self) -> u32 {
        self.constants.vxlan_device
    }

    fn geneve_device(&self) -> u32 {
        self.constants.geneve_device
    }

    fn overlays(&self) -> u32 {
        self.constants.overlays
    }

    fn underlay4(&self) -> u32 {
        self.constants.underlay4
    }

    fn underlay6(&self) -> [u32; 4] {
        self.constants.underlay6
    }

    fn host_eth(&self) -> [u32; 3] {
        self.constants.host_eth
    }
}

/// How many leading bits two addresses share.
fn leading_equal(a: &Address, b: &Address) -> u32 {
    let number =
        |address: &Address| address.iter().fold(0_u128, |all, word| all << 32 | u128::from(u32::from_be(*word)));
    (number(a) ^ number(b)).leading_zeros()
}

/// Runs one entry of the pipeline as the kernel program does: decides, takes out of an encapsulation and decides again,
/// writes the answer if there is one, and encapsulates. Beside the verdict it tells where the packet met it. With a kernel's
/// device in the tables the packet ends as what the device is given, going out, or is passed on to it, coming in.
pub fn run_to_end(entry: Entry, packet: &mut Buffer, tables: &HostTables, ifindex: u32) -> (Entry, Verdict) {
    let mut out = Outcome::new();
    match entry {
        Entry::FromContainer => pipeline::from_container(packet, tables, &mut out, ifindex, 0),
        Entry::ToContainer => pipeline::to_container(packet, tables, &mut out, ifindex, 0),
        Entry::FromNetdev => pipeline::from_netdev(packet, tables, &mut out, 0),
        Entry::FromHost => pipeline::from_host(packet, tables, &mut out, 0),
        Entry::FromOverlay => pipeline::from_overlay(packet, tables, &mut out, 0),
    }
    if out.is_told {
        told::learn(packet, tables);
    }
    match out.verdict() {
        Verdict::Answer(what) => {
            let own_mac = tables.device(ifindex).map(|device| answer::host_mac(device.eth));
            match answer::write(packet, tables, what, own_mac) {
                Ok(()) => (entry, out.verdict()),
                Err(reason) => (entry, Verdict::Drop(reason)),
            }
        }
        Verdict::Carry(peer) if matches!(peer.carrier, carrier::VXLAN | carrier::GENEVE) => {
            let written = if tunnel::device_of(tables, peer.carrier) == 0 {
                encap::write(packet, tables, &peer, out.value)
            } else {
                device::wrap(packet, tables, &peer, out.value, &mut device::Key::default())
            };
            match written {
                Ok(()) => (entry, out.verdict()),
                Err(reason) => (entry, Verdict::Drop(reason)),
            }
        }
        Verdict::Decapsulate(_) if device::takes(packet, tables, &out) => match device::admit(packet, tables, &out) {
            Ok(()) => {
                packet.mark = Mark::OVERLAY.0;
                (entry, Verdict::Pass)
            }
            Err(reason) => (Entry::FromOverlay, Verdict::Drop(reason)),
        },
        Verdict::Decapsulate(_) => {
            if let Err(reason) = decap::strip(packet, &out) {
                return (Entry::FromOverlay, Verdict::Drop(reason));
            }
            pipeline::from_overlay(packet, tables, &mut out, 0);
            match out.verdict() {
                Verdict::Answer(what) => match answer::write(packet, tables, what, None) {
                    Ok(()) => (Entry::FromOverlay, out.verdict()),
                    Err(reason) => (Entry::FromOverlay, Verdict::Drop(reason)),
                },
                verdict => (Entry::FromOverlay, verdict),
            }
        }
        verdict => (entry, verdict),
    }
}

/// The verdict of [`run_to_end`].
pub fn run(entry: Entry, packet: &mut Buffer, tables: &HostTables, ifindex: u32) -> Verdict {
    run_to_end(entry, packet, tables, ifindex).1
}
