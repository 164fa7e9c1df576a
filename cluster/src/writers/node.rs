//! Publishes the own CiliumNode.

use std::{collections::BTreeMap, net::IpAddr};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
};

use super::of_families;
use crate::{
    AGENT_MANAGER,
    crd::{CILIUM_INTERNAL_IP, CiliumNode, FamilyAddresses, INTERNAL_IP, NodeAddress, NodeSpec},
    error::ClusterError,
    request::within,
    tables::{CARRIER_PREFERRED, CARRIERS_ACCEPTED, IPAM_MODE, UPLINK_MTU},
};

/// What a node says about itself. It is complete: what is not in here any more is taken back.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodePublication {
    /// Name of the node.
    pub name: String,
    /// UID of the Node object, which then owns the CiliumNode: with the one goes the other.
    pub node_uid: Option<String>,
    /// Labels, as the Node has them.
    pub labels: BTreeMap<String, String>,
    /// Addresses by which the node is reached.
    pub internal_ips: Vec<IpAddr>,
    /// Addresses of `cilium_host`.
    pub router: Vec<IpAddr>,
    /// Addresses of the health endpoint; the first of each family is published.
    pub health: Vec<IpAddr>,
    /// IPAM mode that the node prefers, in Cilium's words; empty to say none.
    pub ipam_mode: String,
    /// By what the node wants to be reached, such as `vxlan:8472`; empty to say nothing.
    pub carrier: String,
    /// What it accepts, separated by commas; empty to say nothing.
    pub accepts: String,
    /// MTU of its uplink in bytes; empty to say nothing.
    pub mtu: String,
    /// Boot ID of the machine; empty if it is not known.
    pub boot_id: String,
}

/// Creates or updates the CiliumNode; repeating it changes nothing. What others wrote into it stays, and so do the node's
/// ranges, which have more than one writer: those are [`super::update_node_ipam`]'s.
///
/// # Errors
/// `Request` or `TimedOut`; with status 404 the definition is not installed yet.
pub async fn publish_node(client: &Client, publication: &NodePublication) -> Result<(), ClusterError> {
    let api: Api<CiliumNode> = Api::all(client.clone());
    let object = object(publication);
    // Forced: the agent is the only one who knows these fields.
    let params = PatchParams::apply(AGENT_MANAGER).force();
    let action = format!("apply CiliumNode {}", publication.name);
    within(&action, api.patch(&publication.name, &params, &Patch::Apply(&object))).await?;
    Ok(())
}

fn object(publication: &NodePublication) -> CiliumNode {
    let typed = |kind: &str, ip: &IpAddr| NodeAddress { r#type: kind.to_owned(), ip: ip.to_string() };
    let internal = publication.internal_ips.iter().map(|ip| typed(INTERNAL_IP, ip));
    let router = publication.router.iter().map(|ip| typed(CILIUM_INTERNAL_IP, ip));
    let (ipv4, ipv6) = of_families(&publication.health);
    let spec = NodeSpec {
        addresses: Some(internal.chain(router).collect()),
        health: (!publication.health.is_empty()).then_some(FamilyAddresses { ipv4, ipv6 }),
        bootid: Some(publication.boot_id.clone()).filter(|id| !id.is_empty()),
        ..NodeSpec::default()
    };
    let mut object = CiliumNode::new(&publication.name, spec);
    if !publication.labels.is_empty() {
        object.metadata.labels = Some(publication.labels.clone());
    }
    // In the first write already, so that an operator never takes the node for one of its own mode.
    let said = [
        (IPAM_MODE, &publication.ipam_mode),
        (CARRIER_PREFERRED, &publication.carrier),
        (CARRIERS_ACCEPTED, &publication.accepts),
        (UPLINK_MTU, &publication.mtu),
    ];
    let said = said.into_iter().filter(|(_, text)| !text.is_empty());
    let annotations: BTreeMap<String, String> = said.map(|(key, text)| (key.to_owned(), text.clone())).collect();
    object.metadata.annotations = Some(annotations).filter(|annotations| !annotations.is_empty());
    object.metadata.owner_references = publication.node_uid.as_ref().map(|uid| {
        vec![OwnerReference {
            api_version: "v1".to_owned(),
            kind: "Node".to_owned(),
            name: publication.name.clone(),
            uid: uid.clone(),
            ..OwnerReference::default()
        }]
    });
    object
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn object_has_the_names_of_cilium() {
        let publication = NodePublication {
            name: "w1".to_owned(),
            node_uid: Some("u1".to_owned()),
            labels: BTreeMap::from([("zone".to_owned(), "a".to_owned())]),
            internal_ips: vec!["10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap()],
            router: vec!["10.244.0.7".parse().unwrap()],
            health: vec!["fd00:10::9".parse().unwrap(), "10.244.0.9".parse().unwrap()],
            ipam_mode: "cluster-pool".to_owned(),
            carrier: "vxlan:8472".to_owned(),
            accepts: "native,vxlan:8472".to_owned(),
            mtu: "1500".to_owned(),
            boot_id: "b1".to_owned(),
        };
        let expected = json!({
            "apiVersion": "cilium.io/v2",
            "kind": "CiliumNode",
            "metadata": {
                "name": "w1",
                "labels": {"zone": "a"},
                "annotations": {
                    "ipam.kinesin.io/mode": "cluster-pool",
                    "routing.kinesin.io/prefers": "vxlan:8472",
                    "routing.kinesin.io/accepts": "native,vxlan:8472",
                    "routing.kinesin.io/mtu": "1500",
                },
                "ownerReferences": [{"apiVersion": "v1", "kind": "Node", "name": "w1", "uid": "u1"}],
            },
            "spec": {
                "addresses": [
                    {"type": "InternalIP", "ip": "10.0.0.1"},
                    {"type": "InternalIP", "ip": "fd00::1"},
                    {"type": "CiliumInternalIP", "ip": "10.244.0.7"},
                ],
                "health": {"ipv4": "10.244.0.9", "ipv6": "fd00:10::9"},
                "bootid": "b1",
            },
        });
        assert_eq!(serde_json::to_value(object(&publication)).expect("JSON"), expected);
    }
}
