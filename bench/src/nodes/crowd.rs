//! The nodes that are not there: names, addresses, pod CIDRs, objects.

use std::net::IpAddr;

use ipnet::IpNet;
use kinesin_lab::{Node, UPLINK};
use kinesin_netlink::Netlink;
use kube::api::{ApiResource, DynamicObject, GroupVersionKind};
use serde_json::{Value, json};

use crate::BenchError;

/// Members that differ in one byte of their addresses; more would reach the broadcast address.
const PER_BYTE: usize = 250;

/// One of them.
#[derive(Debug, Clone)]
pub(super) struct Member {
    pub(super) name: String,
    /// On the underlay, IPv4 first.
    pub(super) addresses: [IpAddr; 2],
    /// Of the same families.
    pub(super) pods: [IpNet; 2],
}

impl Member {
    pub(super) fn of(number: usize) -> Self {
        let [high, low] = bytes(number);
        Self {
            name: format!("crowd-{number}"),
            addresses: [[10, 98, high, low].into(), [0xfd00, 0x98, 0, 0, 0, 0, u16::from(high), u16::from(low)].into()],
            pods: pods(100, number),
        }
    }

    /// The same node with other pod CIDRs.
    pub(super) fn moved(&self) -> Self {
        let number = self.name.rsplit('-').next().and_then(|number| number.parse().ok()).unwrap_or_default();
        Self { pods: pods(120, number), ..self.clone() }
    }

    /// What its agent would have published: as to carriers, the same as that of the real node.
    pub(super) fn object(&self, real: &DynamicObject) -> DynamicObject {
        let mut spec = self.change();
        let address = |ip: &IpAddr| json!({"type": "InternalIP", "ip": ip.to_string()});
        spec["spec"]["addresses"] = self.addresses.iter().map(address).collect();
        DynamicObject {
            types: Some(kube::api::TypeMeta { api_version: "cilium.io/v2".to_owned(), kind: "CiliumNode".to_owned() }),
            metadata: kube::api::ObjectMeta {
                name: Some(self.name.clone()),
                annotations: real.metadata.annotations.clone(),
                ..Default::default()
            },
            data: spec,
        }
    }

    /// What a change of the pod CIDRs alters in the object.
    pub(super) fn change(&self) -> Value {
        let cidrs: Vec<String> = self.pods.iter().map(ToString::to_string).collect();
        json!({"spec": {"ipam": {"podCIDRs": cidrs}}})
    }
}

fn bytes(number: usize) -> [u8; 2] {
    let byte = |value: usize| u8::try_from(value).unwrap_or(u8::MAX);
    [byte(number / PER_BYTE), byte(number % PER_BYTE + 1)]
}

fn pods(base: u8, number: usize) -> [IpNet; 2] {
    let [high, low] = bytes(number);
    let v6 = [0xfd00, 0x99, u16::from(base) << 8 | u16::from(high), u16::from(low), 0, 0, 0, 0];
    [IpNet::new_assert([10, base.saturating_add(high), low, 0].into(), 24), IpNet::new_assert(v6.into(), 64)]
}

/// The kind of their objects.
pub(super) fn kind() -> ApiResource {
    ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk("cilium.io", "v2", "CiliumNode"), "ciliumnodes")
}

/// Puts the node's uplink on the network that the crowd is on, since native routing leads to neighbours only.
pub(super) async fn make_room(node: &Node) -> Result<(), BenchError> {
    let netlink = Netlink::in_netns(&node.netns()?)?;
    let uplink = netlink.link(UPLINK).await?.index;
    let own = [
        IpNet::new_assert([10, 98, 255, 1].into(), 16),
        IpNet::new_assert([0xfd00, 0x98, 0, 0, 0, 0, 0xffff, 1].into(), 64),
    ];
    let there = netlink.addresses_of(uplink).await?;
    for address in own.into_iter().filter(|address| !there.contains(address)) {
        netlink.add_address(uplink, address).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_thousand_members_share_nothing_before_and_after_they_move() {
        let members: Vec<Member> = (0..1000).map(Member::of).collect();
        let addresses: BTreeSet<IpAddr> = members.iter().flat_map(|member| member.addresses).collect();
        let pods = members.iter().flat_map(|member| [member.pods, member.moved().pods]).flatten();
        assert_eq!((addresses.len(), pods.collect::<BTreeSet<IpNet>>().len()), (2000, 4000));
        let mut real = members[0].object(&DynamicObject::new("cilium-ctr", &kind()));
        real.metadata.annotations = Some([("carrier".to_owned(), "vxlan".to_owned())].into());
        let named = members[999].object(&real);
        assert_eq!(
            (named.metadata.name.as_deref(), &named.metadata.annotations),
            (Some("crowd-999"), &real.metadata.annotations)
        );
        assert_eq!(named.data["spec"]["ipam"]["podCIDRs"], json!(["10.103.250.0/24", "fd00:99:6403:fa::/64"]));
        assert_eq!(named.data["spec"]["addresses"][0], json!({"type": "InternalIP", "ip": "10.98.3.250"}));
    }
}
