//! Offloads of a device, as `ethtool -K` switches them.
//!
//! Source: Linux `include/uapi/linux/ethtool.h`. The numbers of features differ between kernels, so the kernel is asked for
//! the number of a name first. The crate `ethtool` 0.3 reads features and cannot switch them.

use std::{io, net::UdpSocket};

use crate::{NetlinkError, sys};

/// Segmentation that must be done before a packet gets into a tunnel made by BPF programs; TCP's need not.
///
/// UDP superpackets would arrive as they are over a virtual underlay, and no socket takes them. SCTP's, and those of a tunnel
/// of the sender's own, the kernel does not encapsulate (`bpf_skb_net_grow`, Linux 6.18).
pub const BEFORE_TUNNELS: [&str; 8] = [
    "tx-udp-segmentation",
    "tx-sctp-segmentation",
    "tx-udp_tnl-segmentation",
    "tx-udp_tnl-csum-segmentation",
    "tx-gre-segmentation",
    "tx-gre-csum-segmentation",
    "tx-ipxip4-segmentation",
    "tx-ipxip6-segmentation",
];

/// Segmentation of what is in a tunnel over UDP by the device itself.
pub const TUNNEL_SEGMENTATION: &str = "tx-udp_tnl-segmentation";

/// That the kernel tells the device at which ports tunnels listen, and of which kind they are, so that it can read what is in
/// their packets.
pub const TUNNEL_PORTS: &str = "rx-udp_tunnel-port-offload";

/// `ETHTOOL_GDRVINFO`.
const GET_DRIVER: u32 = 0x3;
/// `ETHTOOL_GSTRINGS`.
const GET_STRINGS: u32 = 0x1b;
/// `ETHTOOL_GSSET_INFO`.
const GET_SET_INFO: u32 = 0x37;
/// `ETHTOOL_GFEATURES`.
const GET_FEATURES: u32 = 0x3a;
/// `ETHTOOL_SFEATURES`.
const SET_FEATURES: u32 = 0x3b;
/// `ETH_SS_FEATURES`: the set of strings that are names of features.
const FEATURE_NAMES: u32 = 4;
/// `ETH_GSTRING_LEN` in bytes.
const NAME_BYTES: usize = 32;
/// Names that are believed to be there at most; a kernel of today has some 64.
const NAMES_MAX: u32 = 1024;

/// Switches features of a device in the calling thread's namespace, all with one request; the answer tells whether that
/// changed anything. Of features that this kernel does not know there is nothing to switch.
///
/// # Errors
/// `Refused` when there is no such device, or without CAP_NET_ADMIN.
pub fn switch_features(device: &str, features: &[&str], on: bool) -> Result<bool, NetlinkError> {
    let refused = |source| {
        let (verb, features) = (if on { "on" } else { "off" }, features.join(", "));
        NetlinkError::Refused { action: format!("switch {features} of device {device:?} {verb}"), source }
    };
    switch(device, features, on).map_err(refused)
}

/// Whether this feature of a device in the calling thread's namespace is on; one that the kernel does not know is not.
///
/// # Errors
/// `Refused` when there is no such device.
pub fn has_feature(device: &str, feature: &str) -> Result<bool, NetlinkError> {
    let refused =
        |source| NetlinkError::Refused { action: format!("see whether device {device:?} has {feature}"), source };
    let look = || {
        let found = Features::read(device, &[feature])?;
        Ok(found.numbers.iter().any(|number| found.is_active(*number)))
    };
    look().map_err(refused)
}

/// The name of the driver of a device in the calling thread's namespace, such as `virtio_net` or `veth`; none where the
/// kernel does not tell.
///
/// # Errors
/// `Refused` when there is no such device.
pub fn driver_of(device: &str) -> Result<Option<String>, NetlinkError> {
    let refused = |source| NetlinkError::Refused { action: format!("ask for the driver of device {device:?}"), source };
    // struct ethtool_drvinfo: cmd, the names of driver, version, firmware, bus and ROM of 32 bytes each, 12 bytes that are
    // reserved, five numbers.
    let mut words = [0_u32; 1 + 5 * NAME_BYTES / 4 + 3 + 5];
    words[0] = GET_DRIVER;
    match UdpSocket::bind(("0.0.0.0", 0)).and_then(|socket| sys::ethtool(&socket, device, &mut words)) {
        Ok(()) => {}
        Err(error) if error.raw_os_error() == Some(nix::libc::EOPNOTSUPP) => return Ok(None),
        Err(error) => return Err(refused(error)),
    }
    let bytes: Vec<u8> = words[1..=NAME_BYTES / 4].iter().flat_map(|word| word.to_ne_bytes()).collect();
    let name = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
    Ok(Some(String::from_utf8_lossy(name).into_owned()).filter(|name| !name.is_empty()))
}

/// Features of a device as the kernel has them now.
struct Features {
    socket: UdpSocket,
    blocks: u32,
    /// Of each block of 32 what is available, requested, active, fixed.
    words: Vec<u32>,
    /// Numbers of those that were asked for.
    numbers: Vec<usize>,
}

impl Features {
    fn read(device: &str, asked: &[&str]) -> io::Result<Self> {
        // Any socket will do; this one needs no address that the namespace has.
        let socket = UdpSocket::bind(("0.0.0.0", 0))?;
        let call = |words: &mut [u32]| sys::ethtool(&socket, device, words);

        // struct ethtool_sset_info: cmd, reserved, mask of sets (64 bits), then the number of strings.
        let mask = u64::from(1_u32 << FEATURE_NAMES).to_ne_bytes();
        let half = |at: usize| u32::from_ne_bytes([mask[at], mask[at + 1], mask[at + 2], mask[at + 3]]);
        let mut info = [GET_SET_INFO, 0, half(0), half(4), 0, 0];
        call(&mut info)?;
        let count = info[4].min(NAMES_MAX);

        // struct ethtool_gstrings: cmd, set, number, then the names.
        let mut names = vec![0; 3 + count as usize * NAME_BYTES / 4];
        names[..3].copy_from_slice(&[GET_STRINGS, FEATURE_NAMES, count]);
        call(&mut names)?;
        let bytes: Vec<u8> = names[3..].iter().flat_map(|word| word.to_ne_bytes()).collect();
        let is_asked = |name: &[u8]| {
            let name = name.split(|byte| *byte == 0).next();
            asked.iter().any(|feature| name == Some(feature.as_bytes()))
        };
        let numbers = bytes.chunks_exact(NAME_BYTES).enumerate().filter(|(_, name)| is_asked(name)).map(|(at, _)| at);
        let numbers = numbers.collect();

        // struct ethtool_gfeatures: cmd, number of blocks, then the blocks.
        let blocks = count.div_ceil(32);
        let mut found = vec![0; 2 + blocks as usize * 4];
        found[..2].copy_from_slice(&[GET_FEATURES, blocks]);
        call(&mut found)?;
        Ok(Self { socket, blocks, words: found.split_off(2), numbers })
    }

    fn is_active(&self, number: usize) -> bool {
        self.words.get(number / 32 * 4 + 2).is_some_and(|active| active & 1 << (number % 32) != 0)
    }
}

fn switch(device: &str, features: &[&str], on: bool) -> io::Result<bool> {
    let found = Features::read(device, features)?;
    // struct ethtool_sfeatures: cmd, number of blocks, then of each block which bits count, and what they shall be.
    let mut wanted = vec![0; 2 + found.blocks as usize * 2];
    wanted[..2].copy_from_slice(&[SET_FEATURES, found.blocks]);
    let mut changes = false;
    for number in found.numbers.iter().filter(|number| found.is_active(**number) != on) {
        let (block, bit) = (number / 32, 1_u32 << (number % 32));
        wanted[2 + block * 2] |= bit;
        wanted[2 + block * 2 + 1] |= if on { bit } else { 0 };
        changes = true;
    }
    if changes {
        sys::ethtool(&found.socket, device, &mut wanted)?;
    }
    Ok(changes)
}
