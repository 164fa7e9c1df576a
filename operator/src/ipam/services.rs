//! Networks of services: no pod may have an address of them.

use std::collections::BTreeSet;

use ipnet::IpNet;
use k8s_openapi::api::{core::v1::Service, networking::v1::ServiceCIDR};
use kinesin_cluster::ClusterError;
use kinesin_ipam_blocks::Name;
use kube::{Api, ResourceExt, api::ListParams};

use super::write::{Requests, code};

/// The service CIDRs as the API server tells them (Kubernetes 1.33), and in any case the address of `kubernetes`.
///
/// # Errors
/// If the API server cannot be asked. That it does not know the one or the other is none.
pub(crate) async fn networks(requests: &Requests) -> Result<BTreeSet<(IpNet, Name)>, ClusterError> {
    let mut found = BTreeSet::new();
    let cidrs: Api<ServiceCIDR> = Api::all(requests.client());
    match requests.read("list ServiceCIDRs", cidrs.list(&ListParams::default())).await {
        Ok(list) => {
            for object in list {
                let name = object.name_any();
                for text in object.spec.and_then(|spec| spec.cidrs).unwrap_or_default() {
                    if let Ok(network) = text.parse::<IpNet>() {
                        found.insert((network.trunc(), format!("ServiceCIDR {name}").into()));
                    }
                }
            }
        }
        // Older than 1.33, or not among the rights.
        Err(error) if matches!(code(&error), Some(403 | 404)) => {}
        Err(error) => return Err(error),
    }
    let services: Api<Service> = Api::namespaced(requests.client(), "default");
    let service = match requests.read("read Service default/kubernetes", services.get_opt("kubernetes")).await {
        Ok(service) => service,
        Err(error) if code(&error) == Some(403) => None,
        Err(error) => return Err(error),
    };
    let spec = service.and_then(|service| service.spec).unwrap_or_default();
    for address in spec.cluster_ips.into_iter().flatten().chain(spec.cluster_ip) {
        if let Ok(address) = address.parse::<std::net::IpAddr>() {
            found.insert((IpNet::from(address), "Service default/kubernetes".into()));
        }
    }
    Ok(found)
}
