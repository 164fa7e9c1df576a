//! Addresses of devices.

use std::{
    net::{IpAddr, Ipv6Addr},
    time::Duration,
};

use futures::TryStreamExt;
use ipnet::IpNet;
use netlink_packet_route::{
    address::{AddressAttribute, AddressFlags, AddressMessage},
    route::RouteType,
};
use rtnetlink::RouteMessageBuilder;
use tokio::time::{Instant, sleep};

use crate::{Netlink, NetlinkError};

/// How often it is looked whether it has.
const LOOKS_EVERY: Duration = Duration::from_millis(1);

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

    /// Whether packets to an IPv6 address that was given to a device which is up are received here; waits at most `within`
    /// until they are.
    ///
    /// The kernel can send from such an address at once, but makes the route by which it receives in a worker
    /// (`addrconf_dad_start`), and until then answers to it are forwarded like a stranger's. That takes microseconds on an
    /// idle machine, and seconds where many devices come up at once: one worker does it for all namespaces, a device at a
    /// time. Where the device is down it never comes.
    ///
    /// # Errors
    /// `Socket`.
    pub async fn is_received(&self, address: Ipv6Addr, within: Duration) -> Result<bool, NetlinkError> {
        let start = Instant::now();
        loop {
            let query = RouteMessageBuilder::<Ipv6Addr>::new().destination_prefix(address, 128).build();
            let found = self.handle.route().get(query).execute().try_next().await;
            match found {
                Ok(Some(route)) if route.header.kind == RouteType::Local => return Ok(true),
                Ok(_) => {}
                Err(error) => {
                    let error = NetlinkError::from_request(format!("look up the way to {address}"), error);
                    // Nothing leads there yet.
                    if error.errno().is_none() {
                        return Err(error);
                    }
                }
            }
            if start.elapsed() >= within {
                return Ok(false);
            }
            sleep(LOOKS_EVERY).await;
        }
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
