//! Writers and definitions against an API server.

use std::net::IpAddr;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kinesin_cluster::{
    CiliumEndpoint, CiliumNode, ClusterError, EndpointPublication, EndpointPublisher, NodeIpamChange, NodePublication,
    OwnCiliumNode, PoolNeed,
    crd::{Installed, SCHEMA_VERSION_LABEL},
    install_crds, publish_endpoints, publish_node, update_node_ipam,
};
use kube::{
    Api, ResourceExt,
    api::{ListParams, Patch, PatchParams},
};
use serde_json::json;

use crate::common::Cluster;

const W1: &str = "10.0.0.1";
const W2: &str = "fd00::2";

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn endpoint(name: &str, node: &str) -> EndpointPublication {
    EndpointPublication {
        namespace: "default".to_owned(),
        pod_name: name.to_owned(),
        pod_uid: format!("uid-{name}"),
        id: 7,
        identity: 5,
        labels: vec!["reserved:init".to_owned()],
        addresses: vec![ip("fd00:10::7"), ip("10.244.0.7")],
        node_ip: ip(node),
        container_id: "c1".to_owned(),
        attachment_id: "c1:eth0".to_owned(),
        state: "ready".to_owned(),
    }
}

fn node() -> NodePublication {
    NodePublication {
        name: "w1".to_owned(),
        node_uid: Some("u1".to_owned()),
        labels: [("a".to_owned(), "b".to_owned())].into(),
        internal_ips: vec![ip(W1), ip("fd00::1")],
        router: vec![ip("10.244.0.1")],
        health: vec![ip("10.244.0.9"), ip("fd00:10::9")],
        ipam_mode: "cluster-pool".to_owned(),
        carrier: "native".to_owned(),
        accepts: "native,vxlan:8472".to_owned(),
        mtu: "1500".to_owned(),
        boot_id: "boot".to_owned(),
    }
}

async fn versions(cluster: &Cluster) -> Vec<(String, Option<String>)> {
    let api: Api<CiliumEndpoint> = Api::all(cluster.client.clone());
    let listed = api.list(&ListParams::default()).await.expect("a list");
    listed.items.iter().map(|object| (object.name_any(), object.resource_version())).collect()
}

#[tokio::test]
async fn definitions_are_installed_once_upgraded_and_newer_ones_kept() {
    let mut cluster = Cluster::start().await;
    let outcomes = |done: Vec<(String, Installed)>| done.into_iter().map(|(_, what)| what).collect::<Vec<_>>();
    // What became of the definition of CiliumNode, and whether all others stayed as they were.
    let of_node = |done: Vec<(String, Installed)>| {
        let (node, others): (Vec<_>, Vec<_>) = done.into_iter().partition(|(name, _)| name == "ciliumnodes.cilium.io");
        assert!(outcomes(others).iter().all(|what| *what == Installed::Unchanged));
        outcomes(node)
    };
    let first = install_crds(&cluster.client).await.expect("installed");
    assert_eq!(outcomes(first), [Installed::Created; 4]);
    let again = install_crds(&cluster.client).await.expect("installed");
    assert_eq!(outcomes(again), [Installed::Unchanged; 4]);
    publish_node(&cluster.client, &node()).await.expect("published");

    let api: Api<CustomResourceDefinition> = Api::all(cluster.client.clone());
    let relabel = async |version: &str| {
        let label = Patch::Merge(json!({"metadata": {"labels": {SCHEMA_VERSION_LABEL: version}}}));
        api.patch("ciliumnodes.cilium.io", &PatchParams::default(), &label).await.expect("patched")
    };
    relabel("1.2.3").await;
    let upgraded = install_crds(&cluster.client).await.expect("installed");
    assert_eq!(of_node(upgraded), [Installed::Upgraded]);
    let newer = relabel("99.0.0").await;
    let kept = install_crds(&cluster.client).await.expect("installed");
    assert_eq!(of_node(kept), [Installed::NewerKept]);
    let now = api.get("ciliumnodes.cilium.io").await.expect("a definition");
    assert_eq!(now.resource_version(), newer.resource_version());
    let nodes: Api<CiliumNode> = Api::all(cluster.client.clone());
    assert_eq!(nodes.get("w1").await.expect("still there").spec.bootid.as_deref(), Some("boot"));
    cluster.down().await;
}

#[tokio::test]
async fn repeated_node_publication_writes_nothing_and_keeps_what_others_wrote() {
    let mut cluster = Cluster::start().await;
    let early = publish_node(&cluster.client, &node()).await.expect_err("no definition");
    assert!(early.retryable(), "{early}");
    install_crds(&cluster.client).await.expect("definitions");
    publish_node(&cluster.client, &node()).await.expect("published");
    let api: Api<CiliumNode> = Api::all(cluster.client.clone());
    let status = Patch::Merge(json!({"status": {"ipam": {"operator-status": {"error": "e"}}}}));
    api.patch_status("w1", &PatchParams::default(), &status).await.expect("patched");
    let pools = Patch::Merge(json!({"spec": {"ipam": {"pools": {"allocated": [{"pool": "p", "cidrs": []}]}}}}));
    let before = api.patch("w1", &PatchParams::default(), &pools).await.expect("patched");
    publish_node(&cluster.client, &node()).await.expect("published");
    let after = api.get("w1").await.expect("a node");
    assert_eq!(after.resource_version(), before.resource_version());
    let fewer = NodePublication { labels: Default::default(), router: Vec::new(), ..node() };
    publish_node(&cluster.client, &fewer).await.expect("published");
    let after = api.get("w1").await.expect("a node");
    assert!(after.labels().is_empty(), "what is not published any more is taken back");
    assert_eq!(after.spec.addresses.as_ref().map(Vec::len), Some(2));
    assert!(after.spec.ipam.as_ref().is_some_and(|ipam| ipam.pools.is_some()), "pools are the operator's");
    assert!(after.status.is_some());
    cluster.down().await;
}

#[tokio::test]
async fn endpoints_of_this_node_follow_what_is_desired_and_no_others() {
    let mut cluster = Cluster::start().await;
    install_crds(&cluster.client).await.expect("definitions");
    let client = &cluster.client;
    assert_eq!(publish_endpoints(client, ip(W2), &[endpoint("c", W2)]).await.expect("published"), 1);
    let desired = [endpoint("a", W1), endpoint("b", W1)];
    assert_eq!(publish_endpoints(client, ip(W1), &desired).await.expect("published"), 2);
    let before = versions(&cluster).await;
    assert_eq!(publish_endpoints(client, ip(W1), &desired).await.expect("published"), 0);
    let mut publisher = EndpointPublisher::new(client.clone(), ip(W1));
    assert_eq!(publisher.publish(&desired).await.expect("published"), 0);
    assert_eq!(versions(&cluster).await, before);

    let changed = EndpointPublication { identity: 4321, ..endpoint("b", W1) };
    assert_eq!(publisher.publish(&[changed]).await.expect("published"), 2);
    let api: Api<CiliumEndpoint> = Api::namespaced(client.clone(), "default");
    let names: Vec<_> = versions(&cluster).await.into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["b", "c"]);
    let status = api.get("b").await.expect("an endpoint").status.expect("a status");
    assert_eq!(status.identity.and_then(|identity| identity.id), Some(4321));
    assert_eq!(publisher.publish(&[]).await.expect("published"), 1);
    assert_eq!(versions(&cluster).await.len(), 1, "the endpoint of the other node stays");
    cluster.down().await;
}

#[tokio::test]
async fn endpoint_that_another_node_took_over_is_not_deleted() {
    let mut cluster = Cluster::start().await;
    install_crds(&cluster.client).await.expect("definitions");
    let mut old = EndpointPublisher::new(cluster.client.clone(), ip(W1));
    assert_eq!(old.publish(&[endpoint("db-0", W1)]).await.expect("published"), 1);
    // A pod of a StatefulSet comes up elsewhere before the first node has torn it down.
    let mut new = EndpointPublisher::new(cluster.client.clone(), ip(W2));
    assert_eq!(new.publish(&[endpoint("db-0", W2)]).await.expect("published"), 1);
    old.publish(&[]).await.expect("nothing to do");
    let api: Api<CiliumEndpoint> = Api::namespaced(cluster.client.clone(), "default");
    let networking = api.get("db-0").await.expect("it is there").status.and_then(|status| status.networking);
    assert_eq!(networking.and_then(|networking| networking.node).as_deref(), Some(W2));
    cluster.down().await;
}

#[tokio::test]
async fn endpoint_that_cannot_be_written_does_not_stop_the_others() {
    let mut cluster = Cluster::start().await;
    install_crds(&cluster.client).await.expect("definitions");
    let mut publisher = EndpointPublisher::new(cluster.client.clone(), ip(W1));
    let bad = EndpointPublication { state: "no such state".to_owned(), ..endpoint("bad", W1) };
    let nowhere = EndpointPublication { namespace: "nowhere".to_owned(), ..endpoint("lost", W1) };
    let error = publisher.publish(&[bad, endpoint("good", W1), nowhere]).await.expect_err("two failures");
    let ClusterError::Partial { changed, failed, .. } = &error else { panic!("{error}") };
    assert_eq!((*changed, failed.len()), (1, 2), "{error}");
    assert_eq!(publisher.publish(&[endpoint("bad", W1), endpoint("good", W1)]).await.expect("published"), 1);
    cluster.down().await;
}

#[tokio::test]
async fn kubectl_columns_are_those_of_cilium() {
    let mut cluster = Cluster::start().await;
    install_crds(&cluster.client).await.expect("definitions");
    publish_node(&cluster.client, &node()).await.expect("published");
    publish_endpoints(&cluster.client, ip(W1), &[endpoint("a", W1)]).await.expect("published");
    let table = async |path: &str| {
        let request = http::Request::get(path)
            .header("Accept", "application/json;as=Table;v=v1;g=meta.k8s.io")
            .body(Vec::new())
            .expect("a request");
        cluster.client.request::<serde_json::Value>(request).await.expect("a table")
    };
    let shown = |table: &serde_json::Value| -> Vec<(String, serde_json::Value)> {
        let columns = table["columnDefinitions"].as_array().expect("columns");
        let cells = table["rows"][0]["cells"].as_array().expect("a row");
        columns
            .iter()
            .zip(cells)
            .filter(|(column, _)| column["priority"] == json!(0))
            .map(|(column, cell)| (column["name"].as_str().expect("a name").to_uppercase(), cell.clone()))
            .collect()
    };
    let nodes = shown(&table("/apis/cilium.io/v2/ciliumnodes").await);
    let names: Vec<_> = nodes.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["NAME", "CILIUMINTERNALIP", "INTERNALIP", "AGE"]);
    assert_eq!(nodes[1].1, json!("10.244.0.1"));
    // Of a path with several results, older API servers show the first and newer ones all.
    assert!(nodes[2].1.as_str().is_some_and(|cell| cell.split(',').next() == Some(W1)), "{:?}", nodes[2]);
    let endpoints = shown(&table("/apis/cilium.io/v2/ciliumendpoints").await);
    let row: Vec<_> = endpoints.iter().map(|(name, cell)| (name.as_str(), cell)).collect();
    let expected = [
        ("NAME", &json!("a")),
        ("SECURITY IDENTITY", &json!(5)),
        ("ENDPOINT STATE", &json!("ready")),
        ("IPV4", &json!("10.244.0.7")),
        ("IPV6", &json!("fd00:10::7")),
    ];
    assert_eq!(row, expected);
    cluster.down().await;
}

#[tokio::test]
async fn addresses_are_decided_on_what_others_have_written_by_then() {
    let mut cluster = Cluster::start().await;
    install_crds(&cluster.client).await.expect("installed");
    let now = "2026-01-01T00:00:00Z";
    let missing = update_node_ipam(&cluster.client, "w1", now, |_| NodeIpamChange {
        requested: Some(Vec::new()),
        ..NodeIpamChange::default()
    });
    let error = missing.await.expect_err("there is no such object");
    assert!(matches!(&error, ClusterError::Request { source, .. } if source.code() == Some(404)), "{error}");
    publish_node(&cluster.client, &node()).await.expect("published");

    // Both writers at once, many times: an entry of each must survive every write of the other.
    let cidr =
        |side: usize, number: usize| -> ipnet::IpNet { format!("10.{side}.{number}.0/24").parse().expect("a network") };
    let add = async |side: usize| {
        for number in 0..10 {
            let wanted = cidr(side, number);
            let decide = |found: &OwnCiliumNode| NodeIpamChange {
                add_pod_cidrs: (!found.pod_cidrs.contains(&wanted)).then_some(wanted).into_iter().collect(),
                ..NodeIpamChange::default()
            };
            update_node_ipam(&cluster.client, "w1", now, decide).await.expect("written");
        }
    };
    tokio::join!(add(1), add(2));
    let api: Api<CiliumNode> = Api::all(cluster.client.clone());
    let listed = api.get("w1").await.expect("there").spec.ipam.and_then(|ipam| ipam.pod_cidrs).unwrap_or_default();
    assert_eq!(listed.len(), 20, "{listed:?}");
    // The publication of everything else leaves them alone.
    publish_node(&cluster.client, &NodePublication { boot_id: "other".to_owned(), ..node() }).await.expect("published");
    let object = api.get("w1").await.expect("there");
    assert_eq!(object.spec.ipam.and_then(|ipam| ipam.pod_cidrs), Some(listed));
    assert_eq!(object.metadata.annotations.expect("annotations")["ipam.kinesin.io/mode"], "cluster-pool");

    let change = NodeIpamChange {
        remove_pod_cidrs: (0..10).map(|number| cidr(1, number)).collect(),
        requested: Some(vec![PoolNeed { pool: "default".to_owned(), ipv4: 16, ipv6: 0 }]),
        cidr_status: Some([("10.2.0.0/24".to_owned(), "in-use".to_owned())].into()),
        ..NodeIpamChange::default()
    };
    let once = |found: &OwnCiliumNode| {
        if found.requested.is_empty() { change.clone() } else { NodeIpamChange::default() }
    };
    assert_eq!(update_node_ipam(&cluster.client, "w1", now, once).await.expect("written"), 2, "spec and status");
    assert_eq!(update_node_ipam(&cluster.client, "w1", now, once).await.expect("nothing to do"), 0);
    let object = api.get("w1").await.expect("there");
    let ipam = object.spec.ipam.expect("addresses");
    assert_eq!(ipam.pod_cidrs.map(|list| list.len()), Some(10));
    assert!(ipam.pools.is_some_and(|pools| pools.requested.is_some()));
    let states = object.status.and_then(|status| status.ipam).and_then(|ipam| ipam.pod_cidrs).expect("states");
    assert_eq!(states["10.2.0.0/24"].status.as_deref(), Some("in-use"));
    cluster.down().await;
}
