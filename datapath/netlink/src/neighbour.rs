//! Static neighbour entries.

use std::net::IpAddr;

use crate::{Netlink, NetlinkError};

impl Netlink {
    /// Sets a permanent neighbour entry, so that nothing has to be resolved.
    ///
    /// # Errors
    /// `Refused` when the device is gone.
    pub async fn set_neighbour(&self, index: u32, address: IpAddr, mac: [u8; 6]) -> Result<(), NetlinkError> {
        let request = self.handle.neighbours().add(index, address).link_layer_address(&mac).replace();
        let action = || format!("set the neighbour entry of {address} on device {index}");
        request.execute().await.map_err(|error| NetlinkError::from_request(action(), error))
    }
}
