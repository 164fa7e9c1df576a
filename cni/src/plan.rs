//! What a pod gets, worked out from the agent's answer: pure.

use std::net::IpAddr;

use ipnet::IpNet;
use kinesin_agent_api::EndpointNetworking;
use kinesin_netlink::{Route, RouteScope};

use crate::CniError;

/// `RTPROT_BOOT`, what `ip route add` writes and what Cilium's pods have.
const PROTOCOL: u8 = 3;

/// Addresses, next hops and MTUs of one pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodPlan {
    /// One entry per family, IPv4 first.
    pub families: Vec<FamilyPlan>,
    /// MTU of both ends of the pair in bytes.
    pub device_mtu_bytes: u32,
    /// MTU of the default routes in bytes.
    pub route_mtu_bytes: u32,
    /// Whether the pod's kernel splits UDP superpackets itself.
    pub no_udp_segmentation: bool,
}

/// The part of one family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FamilyPlan {
    /// The pod's address, prefix length 32 or 128.
    pub address: IpNet,
    /// The next hop, which is on the link although no prefix says so.
    pub gateway: IpAddr,
}

impl PodPlan {
    /// Reads the agent's answer; `mtu` of the configuration goes before the agent's.
    ///
    /// # Errors
    /// `Answer` when there is no address, two of one family, one that no pod can have, or one without next hop or MTU.
    pub fn new(networking: &EndpointNetworking, mtu: Option<u32>) -> Result<Self, CniError> {
        let wrong = |reason: String| CniError::Answer { reason };
        let mut families: Vec<FamilyPlan> = Vec::new();
        for pair in &networking.addressing {
            let gateway = networking.gateways.iter().find(|gateway| gateway.is_ipv4() == pair.ip.is_ipv4());
            let gateway = *gateway.ok_or_else(|| wrong(format!("address {} comes without a gateway", pair.ip)))?;
            let unusable = |ip: &IpAddr| ip.is_unspecified() || ip.is_loopback() || ip.is_multicast();
            if pair.ip == gateway || unusable(&pair.ip) || unusable(&gateway) {
                return Err(wrong(format!("{} by {gateway} is no pair of pod address and next hop", pair.ip)));
            }
            if families.iter().any(|known| known.gateway.is_ipv4() == gateway.is_ipv4()) {
                return Err(wrong(format!("{} is the second address of its family", pair.ip)));
            }
            families.push(FamilyPlan { address: IpNet::from(pair.ip), gateway });
        }
        families.sort_by_key(|family| family.gateway.is_ipv6());
        if families.is_empty() {
            return Err(wrong("IPAM did provide neither IPv4 nor IPv6 address".to_owned()));
        }
        let device_mtu_bytes = mtu.unwrap_or(networking.device_mtu);
        if device_mtu_bytes == 0 || networking.route_mtu == 0 {
            return Err(wrong("an MTU is 0".to_owned()));
        }
        // A route cannot carry more than its device.
        let route_mtu_bytes = networking.route_mtu.min(device_mtu_bytes);
        let no_udp_segmentation = networking.no_udp_segmentation;
        Ok(Self { families, device_mtu_bytes, route_mtu_bytes, no_udp_segmentation })
    }

    /// Whether the pod speaks IPv6.
    #[must_use]
    pub fn has_ipv6(&self) -> bool {
        self.families.iter().any(|family| family.gateway.is_ipv6())
    }

    /// The routes on device `dev`, in the order in which the kernel takes them: each next hop before its default.
    #[must_use]
    pub fn routes(&self, dev: u32) -> Vec<Route> {
        let both = |family: &FamilyPlan| {
            let gateway = IpNet::from(family.gateway);
            let hop = Route { scope: RouteScope::Link, ..Route::new(gateway, dev, PROTOCOL) };
            let default = Route {
                via: Some(family.gateway),
                mtu: Some(self.route_mtu_bytes),
                ..Route::new(default_of(family.gateway), dev, PROTOCOL)
            };
            [hop, default]
        };
        self.families.iter().flat_map(both).collect()
    }
}

/// The default destination of an address's family.
#[must_use]
pub fn default_of(address: IpAddr) -> IpNet {
    let unspecified: IpAddr = match address {
        IpAddr::V4(_) => std::net::Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => std::net::Ipv6Addr::UNSPECIFIED.into(),
    };
    // 0 is a valid prefix length of both families.
    IpNet::new_assert(unspecified, 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use kinesin_agent_api::AddressPair;

    fn networking(addresses: &[&str], gateways: &[&str]) -> EndpointNetworking {
        EndpointNetworking {
            addressing: addresses
                .iter()
                .map(|ip| AddressPair { ip: ip.parse().expect("address"), pool: "default".to_owned() })
                .collect(),
            gateways: gateways.iter().map(|ip| ip.parse().expect("gateway")).collect(),
            gateway_mac: String::new(),
            device_mtu: 1500,
            route_mtu: 1450,
            no_udp_segmentation: true,
        }
    }

    #[test]
    fn each_family_gets_a_link_route_and_a_default_with_the_route_mtu() {
        let plan = PodPlan::new(&networking(&["fd00::5", "10.0.0.5"], &["fd00::1", "10.0.0.1"]), None).expect("valid");
        assert!(plan.has_ipv6());
        let routes: Vec<_> =
            plan.routes(7).iter().map(|route| (route.dst.to_string(), route.via, route.mtu, route.scope)).collect();
        let (v4, v6): (IpAddr, IpAddr) = ("10.0.0.1".parse().expect("ip"), "fd00::1".parse().expect("ip"));
        assert_eq!(
            routes,
            [
                ("10.0.0.1/32".to_owned(), None, None, RouteScope::Link),
                ("0.0.0.0/0".to_owned(), Some(v4), Some(1450), RouteScope::Universe),
                ("fd00::1/128".to_owned(), None, None, RouteScope::Link),
                ("::/0".to_owned(), Some(v6), Some(1450), RouteScope::Universe),
            ]
        );
    }

    #[test]
    fn configured_mtu_goes_before_the_agents_and_bounds_the_routes() {
        let networking = networking(&["10.0.0.5"], &["10.0.0.1"]);
        let plan = PodPlan::new(&networking, Some(1300)).expect("valid");
        assert_eq!((plan.device_mtu_bytes, plan.route_mtu_bytes, plan.has_ipv6()), (1300, 1300, false));
        let plan = PodPlan::new(&networking, Some(9000)).expect("valid");
        assert_eq!((plan.device_mtu_bytes, plan.route_mtu_bytes), (9000, 1450));
    }

    #[test]
    fn unusable_answers_are_refused_with_the_reason() {
        let table = [
            (networking(&[], &["10.0.0.1"]), "neither IPv4 nor IPv6"),
            (networking(&["10.0.0.5"], &["fd00::1"]), "10.0.0.5 comes without a gateway"),
            (networking(&["10.0.0.5"], &["0.0.0.0"]), "10.0.0.5 by 0.0.0.0"),
            (networking(&["10.0.0.1"], &["10.0.0.1"]), "10.0.0.1 by 10.0.0.1"),
            (networking(&["ff02::1"], &["fd00::1"]), "ff02::1 by fd00::1"),
            (networking(&["10.0.0.5", "10.0.0.6"], &["10.0.0.1"]), "10.0.0.6 is the second"),
            (EndpointNetworking { route_mtu: 0, ..networking(&["10.0.0.5"], &["10.0.0.1"]) }, "MTU is 0"),
        ];
        for (networking, text) in table {
            let error = PodPlan::new(&networking, None).expect_err(text);
            assert!(error.code() == 999 && error.to_string().contains(text), "{error}");
        }
    }
}
