//! One endpoint: what the runtime asked for, what it got, and how it is found.

pub(crate) mod follow;
pub(crate) mod inside;
pub(crate) mod lifecycle;
pub(crate) mod replay;
pub(crate) mod selector;
pub(crate) mod settings;
mod turns;

use std::{collections::BTreeSet, net::IpAddr};

use kinesin_agent_api::types::{
    AddressPair, Endpoint, EndpointChangeRequest, EndpointIdentity, EndpointNetworking, EndpointState, EndpointStatus,
};
use kinesin_core::{
    chassis::EndpointSpec,
    ipam::{Lease, LeasedAddress, Owner},
    values::{EndpointId, Family, Identity, Mac},
};
use serde::{Deserialize, Serialize};

use settings::Settings;

/// An endpoint as it is saved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// Number on this node.
    pub(crate) id: EndpointId,
    /// What the runtime asked for.
    pub(crate) request: EndpointChangeRequest,
    /// Its addresses.
    pub(crate) lease: Lease,
    /// What the plugin was told to set up, and what the agent has changed of that since.
    pub(crate) networking: EndpointNetworking,
    /// What the agent has begun to change and not finished.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) changing: Option<Settings>,
}

/// A running endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Running {
    pub(crate) record: Record,
    pub(crate) state: EndpointState,
    /// Why the state is not `Ready`.
    pub(crate) message: String,
    pub(crate) restored: bool,
    /// Whether its addresses are its own; without that it is not attached.
    pub(crate) leased: bool,
}

/// A request that cannot become an endpoint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {reason}")]
pub(crate) struct RequestError {
    /// The field of the request.
    pub(crate) field: &'static str,
    /// What is wrong and what is allowed.
    pub(crate) reason: String,
}

/// Longest name of a device: `IFNAMSIZ` less its final zero (Linux `include/uapi/linux/if.h`).
const MAX_DEVICE_NAME: usize = 15;
/// Longer ids come from no runtime.
const MAX_ID: usize = 256;

/// Checks a request before anything is done for it.
pub(crate) fn check(request: &EndpointChangeRequest) -> Result<(Mac, Mac), RequestError> {
    let wrong = |field, reason: String| RequestError { field, reason };
    // CNI 1.1, "Parameters": alphanumeric, then any of those and `_.-`. Files and leases are named after it.
    let id = &request.container_id;
    let allowed = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
    if id.is_empty() || id.len() > MAX_ID || !id.chars().all(allowed) || !id.starts_with(|c: char| c != '.' && c != '-')
    {
        return Err(wrong("container-id", format!("{id:?} is no container id of at most {MAX_ID} characters")));
    }
    for (field, name) in
        [("container-interface-name", &request.container_interface_name), ("interface-name", &request.interface_name)]
    {
        let is_name = !name.is_empty()
            && name.len() <= MAX_DEVICE_NAME
            && !name.contains(|c: char| c.is_whitespace() || c.is_control() || c == '/' || c == ':')
            && name != "."
            && name != "..";
        if !is_name {
            return Err(wrong(field, format!("{name:?} is no device name of 1 to {MAX_DEVICE_NAME} characters")));
        }
    }
    if !request.interface_name.starts_with("lxc") || request.interface_name == crate::health::DEVICE {
        return Err(wrong("interface-name", format!("{:?} does not start with lxc", request.interface_name)));
    }
    if request.interface_index == 0 {
        return Err(wrong("interface-index", "0 is no device".to_owned()));
    }
    let mac = |field, text: &str| text.parse::<Mac>().map_err(|error| wrong(field, error.to_string()));
    Ok((mac("host-mac", &request.host_mac)?, mac("mac", &request.mac)?))
}

/// Key of an endpoint's lease.
pub(crate) fn attachment(request: &EndpointChangeRequest) -> String {
    format!("{}:{}", request.container_id, request.container_interface_name)
}

/// Who will hold the lease.
pub(crate) fn owner(request: &EndpointChangeRequest) -> Owner {
    if request.k8s_pod_name.is_empty() {
        Owner::Container(request.container_id.clone())
    } else {
        Owner::Pod { namespace: request.k8s_namespace.clone(), name: request.k8s_pod_name.clone() }
    }
}

impl Record {
    /// Key of its lease.
    pub(crate) fn attachment(&self) -> String {
        attachment(&self.request)
    }

    /// What the chassis needs to know.
    pub(crate) fn spec(&self) -> Result<EndpointSpec, RequestError> {
        let (host_mac, mac) = check(&self.request)?;
        Ok(EndpointSpec {
            id: self.id,
            device: self.request.interface_name.clone(),
            ifindex: self.request.interface_index,
            host_mac,
            mac,
            addresses: self.addresses(),
            // Until identities are allocated, every pod is one whose identity is not known yet.
            identity: Identity::INIT,
            netns_cookie: self.request.netns_cookie,
            health: false,
        })
    }

    /// Why no agent has made it, if it is one that none could have made.
    pub(crate) fn defect(&self) -> Option<String> {
        if self.id.0 == 0 {
            return Some("no endpoint has number 0".to_owned());
        }
        if let Err(error) = check(&self.request) {
            return Some(error.to_string());
        }
        if self.lease.attachment != self.attachment() {
            return Some(format!("the lease of {:?} is not that of {:?}", self.lease.attachment, self.attachment()));
        }
        if self.lease.addresses.is_empty() {
            return Some("it has no address".to_owned());
        }
        let mut once = BTreeSet::new();
        let is_foreign = |leased: &&LeasedAddress| !leased.block.cidr.contains(&leased.ip);
        if let Some(leased) = self.lease.addresses.iter().find(is_foreign) {
            return Some(format!("{} is not in its block {}", leased.ip, leased.block.cidr));
        }
        let twice = self.lease.addresses.iter().find(|leased| !once.insert(Family::of(&leased.ip)));
        twice.map(|leased| format!("{} is a second address of its family", leased.ip))
    }

    /// Its addresses, IPv4 first.
    pub(crate) fn addresses(&self) -> Vec<IpAddr> {
        self.lease.addresses.iter().map(|leased| leased.ip).collect()
    }
}

impl Running {
    /// As the REST API shows it.
    pub(crate) fn view(&self) -> Endpoint {
        Endpoint {
            id: self.record.id.0,
            spec: self.record.request.clone(),
            status: EndpointStatus {
                state: self.state,
                message: self.message.clone(),
                networking: self.record.networking.clone(),
                identity: EndpointIdentity { id: Identity::INIT.0, labels: vec!["reserved:init".to_owned()] },
                restored: self.restored,
            },
        }
    }
}

/// Addresses as the REST API shows them.
pub(crate) fn addressing(lease: &Lease) -> Vec<AddressPair> {
    lease.addresses.iter().map(|leased| AddressPair { ip: leased.ip, pool: leased.block.pool.clone() }).collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use kinesin_core::ipam::Block;

    use super::*;

    /// A record for tests.
    pub(crate) fn record(id: u16, ip: &str) -> Record {
        let request = EndpointChangeRequest {
            container_id: format!("c{id}"),
            container_interface_name: "eth0".to_owned(),
            interface_name: format!("lxc{id:012x}"),
            interface_index: u32::from(id),
            host_mac: "02:00:00:00:00:01".to_owned(),
            mac: "02:00:00:00:00:02".to_owned(),
            k8s_namespace: "default".to_owned(),
            k8s_pod_name: format!("web-{id}"),
            ..EndpointChangeRequest::default()
        };
        let block = Block { pool: "default".to_owned(), cidr: "10.0.0.0/24".parse().expect("a network") };
        let ip = ip.parse().expect("an address");
        let lease = Lease {
            attachment: attachment(&request),
            owner: owner(&request),
            mode: "host_scope".to_owned(),
            addresses: vec![LeasedAddress { ip, block }],
            restored: false,
        };
        let networking = EndpointNetworking { addressing: addressing(&lease), ..EndpointNetworking::default() };
        Record { id: EndpointId(id), request, lease, networking, changing: None }
    }

    #[test]
    fn wrong_requests_are_refused_by_field() {
        let good = record(1, "10.0.0.1").request;
        assert!(check(&good).is_ok());
        type Change = fn(&mut EndpointChangeRequest);
        let cases: [(&str, Change); 9] = [
            ("container-id", |r| r.container_id.clear()),
            ("container-id", |r| r.container_id = "../../etc".to_owned()),
            ("container-id", |r| r.container_id = "a".repeat(257)),
            ("container-interface-name", |r| r.container_interface_name = "a/b".to_owned()),
            ("interface-name", |r| r.interface_name = "x".repeat(16)),
            ("interface-name", |r| r.interface_name = "eth0".to_owned()),
            ("interface-name", |r| r.interface_name = "lxc_health".to_owned()),
            ("interface-index", |r| r.interface_index = 0),
            ("mac", |r| r.mac = "nonsense".to_owned()),
        ];
        for (field, change) in cases {
            let mut request = good.clone();
            change(&mut request);
            let error = check(&request).expect_err("wrong");
            assert_eq!(error.field, field, "{error}");
        }
    }

    #[test]
    fn leases_are_owned_by_pods_and_by_containers_without_one() {
        let mut request = record(1, "10.0.0.1").request;
        assert_eq!(owner(&request).to_string(), "default/web-1");
        request.k8s_pod_name.clear();
        assert_eq!(owner(&request).to_string(), "c1");
    }
}
