//! The floor: two namespaces and a veth pair.

use ipnet::IpNet;
use kinesin_netlink::{NetNs, Netlink, VethSpec};

use super::MTU_BYTES;
use crate::{BenchError, traffic::Path};

const DEVICE: &str = "eth0";

pub(super) async fn path() -> Result<Path, BenchError> {
    let (client, server) = (NetNs::anonymous()?, NetNs::anonymous()?);
    let inside = Netlink::in_netns(&client)?;
    let pair = VethSpec {
        name: DEVICE,
        mac: None,
        peer_name: DEVICE,
        peer_mac: None,
        peer_netns: Some(&server),
        mtu: Some(u32::from(MTU_BYTES)),
    };
    inside.add_veth(&pair).await?;
    let mut server_addresses = Vec::new();
    for (netns, host) in [(&client, 1_u8), (&server, 2)] {
        let netlink = Netlink::in_netns(netns)?;
        let (lo, device) = (netlink.link("lo").await?.index, netlink.link(DEVICE).await?.index);
        netlink.set_up(lo).await?;
        netlink.set_up(device).await?;
        for network in [
            IpNet::new([10, 247, 0, host].into(), 24),
            IpNet::new([0xfd00, 0x247, 0, 0, 0, 0, 0, u16::from(host)].into(), 64),
        ] {
            let network = network.map_err(|error| BenchError::Scene(error.to_string()))?;
            netlink.add_address(device, network).await?;
            if host == 2 {
                server_addresses.push(network.addr());
            }
        }
    }
    Ok(Path { client: client.into(), client_device: DEVICE.to_owned(), server: server.into(), server_addresses })
}
