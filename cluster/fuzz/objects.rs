//! Objects of the API, as the tables read them: nothing that a user can put into a cluster may stop an agent.

use std::fmt::Debug;

use kinesin_cluster::{
    ClusterNode, LocalPod, OwnNode,
    crd::{CiliumEndpoint, CiliumNode},
};
use kube::api::DynamicObject;
use serde::{Serialize, de::DeserializeOwned};

/// One object, read as each kind that is watched.
pub(crate) fn run(input: &[u8]) {
    if let Ok(object) = serde_json::from_slice::<DynamicObject>(input) {
        if let Ok(node) = ClusterNode::of(&object) {
            assert!(node.pod_cidrs.iter().all(|net| *net == net.trunc()), "{:?}", node.pod_cidrs);
            once(&node.pod_cidrs);
            once(&node.addresses);
            once(&node.router);
            once(&node.health);
        }
        if let Ok(node) = OwnNode::of(&object) {
            assert!(node.pod_cidrs.iter().all(|net| *net == net.trunc()), "{:?}", node.pod_cidrs);
            once(&node.pod_cidrs);
            once(&node.internal_ips);
        }
        if let Ok(pod) = LocalPod::of(&object) {
            once(&pod.ips);
        }
    }
    survives::<CiliumNode>(input);
    survives::<CiliumEndpoint>(input);
}

/// A writer that changes one field must not lose another.
fn survives<T: Serialize + DeserializeOwned + PartialEq + Debug>(input: &[u8]) {
    let Ok(read) = serde_json::from_slice::<T>(input) else { return };
    let written = serde_json::to_vec(&read).unwrap_or_else(|error| panic!("{read:?}: {error}"));
    let again = serde_json::from_slice::<T>(&written).unwrap_or_else(|error| panic!("{read:?}: {error}"));
    assert_eq!(again, read);
}

fn once<T: PartialEq + Debug>(list: &[T]) {
    assert!(list.iter().enumerate().all(|(at, item)| !list[..at].contains(item)), "twice in {list:?}");
}
