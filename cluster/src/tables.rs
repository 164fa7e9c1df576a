//! The tables an agent works from, each of one kind of object.

mod cluster_nodes;
mod local_pods;
mod namespaces;
mod own_cilium_node;
mod own_node;
mod pod_ip_pools;

use std::net::IpAddr;

use ipnet::IpNet;
use kube::api::DynamicObject;
use serde::de::DeserializeOwned;

pub use cluster_nodes::{CARRIER_PREFERRED, CARRIERS_ACCEPTED, ClusterNode, UPLINK_MTU, watch_cluster_nodes};
pub use local_pods::{LocalPod, watch_local_pods};
pub use namespaces::{ClusterNamespace, watch_namespaces};
pub(crate) use own_cilium_node::read_own;
pub use own_cilium_node::{IPAM_MODE, OwnCiliumNode, PoolNeed, watch_own_cilium_node};
pub use own_node::{OwnNode, watch_own_node};
pub use pod_ip_pools::{PodIPPool, watch_pod_ip_pools};

/// One part of an untyped object as its type; an absent part is the type's default.
fn part<T: DeserializeOwned + Default>(object: &DynamicObject, name: &str) -> Result<T, String> {
    match object.data.get(name) {
        None | Some(serde_json::Value::Null) => Ok(T::default()),
        Some(value) => T::deserialize(value).map_err(|error| format!("{name}: {error}")),
    }
}

fn parse_ip(field: &str, text: &str) -> Result<IpAddr, String> {
    text.parse().map_err(|_| format!("{field}: {text:?} is no IP address"))
}

/// A prefix; bits of the host are cut off, as Kubernetes does with pod CIDRs written by hand.
pub(crate) fn parse_cidr(field: &str, text: &str) -> Result<IpNet, String> {
    let net: IpNet = text.parse().map_err(|_| format!("{field}: {text:?} is no CIDR"))?;
    Ok(net.trunc())
}

/// The prefixes in order, each once.
fn parse_cidrs<'a>(field: &str, texts: impl IntoIterator<Item = &'a String>) -> Result<Vec<IpNet>, String> {
    let mut nets = Vec::new();
    for text in texts {
        let net = parse_cidr(field, text)?;
        if !nets.contains(&net) {
            nets.push(net);
        }
    }
    Ok(nets)
}

fn push_once<T: PartialEq>(list: &mut Vec<T>, item: T) {
    if !list.contains(&item) {
        list.push(item);
    }
}
