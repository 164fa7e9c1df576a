//! The shape of ADD's result in each version of the spec, and the reading of one that comes back as `prevResult`.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::{CniError, plan::PodPlan, versions::SpecVersion};

/// `RT_SCOPE_LINK`, as 1.1.0 writes it.
const SCOPE_LINK: u8 = 253;

/// What ADD made, before it has a shape.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddResult {
    /// Name of the host end.
    pub host_name: String,
    /// MAC of the host end.
    pub host_mac: String,
    /// Name of the pod's end.
    pub pod_name: String,
    /// MAC of the pod's end.
    pub pod_mac: String,
    /// `CNI_NETNS`.
    pub netns: String,
    /// Addresses, routes and MTUs.
    pub plan: PodPlan,
}

impl AddResult {
    /// The result in the shape of `version`.
    ///
    /// Source: sections "Result" of the spec's versions: 0.2.0 has one address per family, 0.3.0 lists, 1.0.0 drops
    /// the address's family, 1.1.0 adds MTU and scope.
    #[must_use]
    pub fn to_json(&self, version: SpecVersion) -> Value {
        if version < SpecVersion::V0_3_0 { self.single(version) } else { self.lists(version) }
    }

    fn single(&self, version: SpecVersion) -> Value {
        let mut result = Map::new();
        result.insert("cniVersion".to_owned(), version.as_str().into());
        for (route, family) in self.plan.families.iter().enumerate().map(|(at, family)| (at * 2, family)) {
            // Two routes per family, in the same order.
            let routes: Vec<Value> = self.plan.routes(0)[route..route + 2]
                .iter()
                .map(|route| with_gateway(json!({"dst": route.dst}), route.via))
                .collect();
            let key = if family.gateway.is_ipv4() { "ip4" } else { "ip6" };
            result.insert(key.to_owned(), json!({"ip": family.address, "gateway": family.gateway, "routes": routes}));
        }
        result.insert("dns".to_owned(), json!({}));
        Value::Object(result)
    }

    fn lists(&self, version: SpecVersion) -> Value {
        let detailed = version >= SpecVersion::V1_1_0;
        let mut host = json!({"name": self.host_name, "mac": self.host_mac});
        let mut pod = json!({"name": self.pod_name, "mac": self.pod_mac, "sandbox": self.netns});
        if detailed {
            host["mtu"] = self.plan.device_mtu_bytes.into();
            pod["mtu"] = self.plan.device_mtu_bytes.into();
        }
        let addresses = self.plan.families.iter().map(|family| {
            let mut address = json!({"interface": 1, "address": family.address, "gateway": family.gateway});
            if version < SpecVersion::V1_0_0 {
                address["version"] = if family.gateway.is_ipv4() { "4" } else { "6" }.into();
            }
            address
        });
        let routes = self.plan.routes(0).into_iter().map(|route| {
            let mut value = with_gateway(json!({"dst": route.dst}), route.via);
            if detailed {
                match route.mtu {
                    Some(mtu) => value["mtu"] = mtu.into(),
                    None => value["scope"] = SCOPE_LINK.into(),
                }
            }
            value
        });
        json!({
            "cniVersion": version.as_str(),
            "interfaces": [host, pod],
            "ips": addresses.collect::<Vec<_>>(),
            "routes": routes.collect::<Vec<_>>(),
            "dns": {},
        })
    }
}

fn with_gateway(mut route: Value, gateway: Option<IpAddr>) -> Value {
    if let Some(gateway) = gateway {
        route["gw"] = json!(gateway);
    }
    route
}

/// A result that a runtime passes back; other plugins of the chain may have added to it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct PrevResult {
    /// Interfaces on both sides.
    pub interfaces: Vec<PrevInterface>,
    /// Addresses.
    pub ips: Vec<PrevAddress>,
    /// Routes.
    pub routes: Vec<PrevRoute>,
}

/// One interface of a result.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct PrevInterface {
    /// Its name.
    pub name: String,
    /// Its MAC; empty when not told.
    pub mac: String,
    /// The pod's namespace; empty on the node's side.
    pub sandbox: String,
}

/// One address of a result.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct PrevAddress {
    /// Position in the list of interfaces.
    pub interface: Option<usize>,
    /// The address with its prefix length.
    pub address: IpNet,
}

/// One route of a result.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct PrevRoute {
    /// Destination.
    pub dst: IpNet,
    /// Next hop.
    #[serde(default)]
    pub gw: Option<IpAddr>,
}

impl PrevResult {
    /// Reads `prevResult`.
    ///
    /// # Errors
    /// `Decode` with what is wrong in it.
    pub fn parse(value: &Value) -> Result<Self, CniError> {
        Self::deserialize(value).map_err(|error| CniError::Decode { reason: format!("\"prevResult\": {error}") })
    }

    /// The pod's interface of this name and the addresses that are on it.
    #[must_use]
    pub fn interface(&self, ifname: &str) -> Option<(&PrevInterface, Vec<IpNet>)> {
        let matches = |interface: &&PrevInterface| interface.name == ifname && !interface.sandbox.is_empty();
        let (position, interface) = self.interfaces.iter().enumerate().find(|(_, interface)| matches(interface))?;
        let on_it = self.ips.iter().filter(|ip| ip.interface.is_none_or(|index| index == position));
        Some((interface, on_it.map(|ip| ip.address).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::FamilyPlan;

    fn result() -> AddResult {
        let family = |address: &str, gateway: &str| FamilyPlan {
            address: address.parse().expect("address"),
            gateway: gateway.parse().expect("gateway"),
        };
        AddResult {
            host_name: "lxc6a98cfd6ff60".into(),
            host_mac: "02:00:00:00:00:01".into(),
            pod_name: "eth0".into(),
            pod_mac: "02:00:00:00:00:02".into(),
            netns: "/run/netns/a".into(),
            plan: PodPlan {
                families: vec![family("10.0.0.5/32", "10.0.0.1"), family("fd00::5/128", "fd00::1")],
                device_mtu_bytes: 1500,
                route_mtu_bytes: 1450,
                no_udp_segmentation: false,
            },
        }
    }

    #[test]
    fn first_versions_have_one_address_per_family() {
        for version in [SpecVersion::V0_1_0, SpecVersion::V0_2_0] {
            let want = json!({
                "cniVersion": version.as_str(),
                "ip4": {"ip": "10.0.0.5/32", "gateway": "10.0.0.1",
                    "routes": [{"dst": "10.0.0.1/32"}, {"dst": "0.0.0.0/0", "gw": "10.0.0.1"}]},
                "ip6": {"ip": "fd00::5/128", "gateway": "fd00::1",
                    "routes": [{"dst": "fd00::1/128"}, {"dst": "::/0", "gw": "fd00::1"}]},
                "dns": {},
            });
            assert_eq!(result().to_json(version), want);
        }
    }

    #[test]
    fn later_versions_have_lists_with_the_fields_of_their_version() {
        for version in &SpecVersion::ALL[2..] {
            let (old, new) = (*version < SpecVersion::V1_0_0, *version >= SpecVersion::V1_1_0);
            let mut want = json!({
                "cniVersion": version.as_str(),
                "interfaces": [
                    {"name": "lxc6a98cfd6ff60", "mac": "02:00:00:00:00:01"},
                    {"name": "eth0", "mac": "02:00:00:00:00:02", "sandbox": "/run/netns/a"},
                ],
                "ips": [
                    {"interface": 1, "address": "10.0.0.5/32", "gateway": "10.0.0.1"},
                    {"interface": 1, "address": "fd00::5/128", "gateway": "fd00::1"},
                ],
                "routes": [
                    {"dst": "10.0.0.1/32"}, {"dst": "0.0.0.0/0", "gw": "10.0.0.1"},
                    {"dst": "fd00::1/128"}, {"dst": "::/0", "gw": "fd00::1"},
                ],
                "dns": {},
            });
            if old {
                want["ips"][0]["version"] = "4".into();
                want["ips"][1]["version"] = "6".into();
            }
            for at in 0..2 {
                if new {
                    want["interfaces"][at]["mtu"] = 1500.into();
                    want["routes"][at * 2]["scope"] = 253.into();
                    want["routes"][at * 2 + 1]["mtu"] = 1450.into();
                }
            }
            assert_eq!(result().to_json(*version), want, "{version}");
        }
    }

    #[test]
    fn results_are_read_back_in_every_version_that_has_check() {
        for version in &SpecVersion::ALL[4..] {
            let previous = PrevResult::parse(&result().to_json(*version)).expect("own result");
            let (interface, addresses) = previous.interface("eth0").expect("the pod's end");
            assert_eq!(interface.sandbox, "/run/netns/a");
            assert_eq!(addresses.len(), 2);
            assert_eq!(previous.routes.len(), 4);
            assert!(previous.interface("lxc6a98cfd6ff60").is_none(), "the host end is not in the pod");
        }
        let error = PrevResult::parse(&json!({"ips": [{"address": "10.0.0.5"}]})).expect_err("no prefix length");
        assert!(error.code() == 6 && error.to_string().contains("prevResult"), "{error}");
    }
}
