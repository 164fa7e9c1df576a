//! Addresses of devices.

use std::net::IpAddr;

use futures::TryStreamExt;
use ipnet::IpNet;
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage};

use crate::{Netlink, NetlinkError};

impl Netlink {
    /// Every address of the namespace with the index of its device.
    ///
    /// # Errors
    /// `Refused` or `Socket`.
    pub async fn addresses(&self) -> Result<Vec<(u32, IpNet)>, NetlinkError> {
        let messages = self.handle.address().get().execute().try_collect::<Vec<_>>().await;
        let messages = messages.map_err(|error| NetlinkError::from_request("list addresses", error))?;
        Ok(messages.iter().filter_map(|message| Some((message.header.index, parse_address(message)?))).collect())
    }

    /// The addresses of one device.
    ///
    /// # Errors
    /// `Refused` or `Socket`.
    pub async fn addresses_of(&self, index: u32) -> Result<Vec<IpNet>, NetlinkError> {
        let all = self.addresses().await?;
        Ok(all.into_iter().filter(|(device, _)| *device == index).map(|(_, address)| address).collect())
    }

    /// Gives a device an address; one that is there already is fine.
    ///
    /// IPv6 addresses skip duplicate address detection (RFC 4862 section 5.4), since they were leased and must work at
    /// once.
    ///
    /// # Errors
    /// `Refused` when the device is gone or the family is off.
    pub async fn add_address(&self, index: u32, address: IpNet) -> Result<(), NetlinkError> {
        let mut request = self.handle.address().add(index, address.addr(), address.prefix_len()).replace();
        if address.addr().is_ipv6() {
            request.message_mut().attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
        }
        let action = || format!("give device {index} the address {address}");
        request.execute().await.map_err(|error| NetlinkError::from_request(action(), error))
    }

    /// Takes an address from a device; one that is gone already is fine.
    ///
    /// # Errors
    /// `Refused` or `Socket`.
    pub async fn delete_address(&self, index: u32, address: IpNet) -> Result<(), NetlinkError> {
        let messages = self
            .handle
            .address()
            .get()
            .set_link_index_filter(index)
            .set_address_filter(address.addr())
            .execute()
            .try_collect::<Vec<_>>()
            .await
            .map_err(|error| NetlinkError::from_request(format!("find address {address}"), error))?;
        for message in messages {
            if parse_address(&message) != Some(address) {
                continue;
            }
            let action = format!("take the address {address} from device {index}");
            match self.handle.address().del(message).execute().await {
                Ok(()) => {}
                Err(error) => {
                    let error = NetlinkError::from_request(action, error);
                    if !error.is_missing() {
                        return Err(error);
                    }
                }
            }
        }
        Ok(())
    }
}

pub(crate) fn parse_address(message: &AddressMessage) -> Option<IpNet> {
    // IFA_LOCAL is the own address; on point-to-point links IFA_ADDRESS is the peer's.
    let find = |want_local: bool| {
        message.attributes.iter().find_map(|attribute| match attribute {
            AddressAttribute::Local(ip) if want_local => Some(*ip),
            AddressAttribute::Address(ip) if !want_local => Some(*ip),
            _ => None,
        })
    };
    let address: IpAddr = find(true).or_else(|| find(false))?;
    IpNet::new(address, message.header.prefix_len).ok()
}
