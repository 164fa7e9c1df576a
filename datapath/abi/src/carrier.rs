//! What carries packets to another node; the `carrier` of an ipcache entry.

use crate::record::numbers;

numbers! {
    /// No carrier of ours: the host's stack decides (the world, node addresses).
    pub const CARRIER_NONE: u8 = 0;
    /// This node's pod CIDR: either there is an endpoint entry, or the address is unreachable.
    pub const CARRIER_LOCAL: u8 = 1;
    /// The network itself, next hop the entry's node address.
    pub const CARRIER_NATIVE: u8 = 2;
    /// VXLAN to the entry's node address.
    pub const CARRIER_VXLAN: u8 = 3;
    /// Geneve to the entry's node address.
    pub const CARRIER_GENEVE: u8 = 4;
}
