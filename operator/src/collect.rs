//! Collects what nodes and pods left behind.
//!
//! Three safeguards, because a wrong deletion cuts pods off: an object is orphaned for a while before it is deleted; its
//! owner is asked for once more by name right before; and the deletion holds for exactly the object that was seen.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use k8s_openapi::api::core::v1::{Node, Pod};
use kinesin_cluster::{ApiFailure, CiliumEndpoint, CiliumNode, ClusterError};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{DeleteParams, ListParams, PartialObjectMeta, Preconditions},
};
use serde::de::DeserializeOwned;
use tokio::time::Instant;

/// Objects a page of a list has at most.
const PAGE: u32 = 500;
/// How long one answer may take.
const LIMIT: Duration = Duration::from_secs(30);

/// One kind of object whose owner has the same name, and for how long each has been found without.
pub(crate) struct Collector<O, K> {
    orphans: BTreeMap<String, Instant>,
    kinds: std::marker::PhantomData<fn() -> (O, K)>,
}

/// CiliumNodes without a Node.
pub(crate) type NodeCollector = Collector<Node, CiliumNode>;
/// CiliumEndpoints without a Pod.
pub(crate) type EndpointCollector = Collector<Pod, CiliumEndpoint>;

impl<O, K> Collector<O, K>
where
    O: Scoped,
    K: Scoped,
{
    pub(crate) fn new() -> Self {
        Self { orphans: BTreeMap::new(), kinds: std::marker::PhantomData }
    }

    /// Deletes what has been orphaned for at least `grace`; answers how many.
    ///
    /// # Errors
    /// The first request that failed; what was deleted before stays so, and the next run goes on.
    pub(crate) async fn run(&mut self, client: &Client, grace: Duration) -> Result<usize, ClusterError> {
        // Objects before owners: an object is never older than its owner, so none that was just made looks orphaned.
        let objects = list::<K>(client).await?;
        let owners: BTreeSet<Key> = list::<O>(client).await?.into_iter().map(|object| object.key).collect();
        let orphaned: Vec<Listed> = objects.into_iter().filter(|object| !owners.contains(&object.key)).collect();
        drop(owners);
        let now = Instant::now();
        let mut still = BTreeMap::new();
        for object in &orphaned {
            still.insert(object.uid.clone(), self.orphans.get(&object.uid).copied().unwrap_or(now));
        }
        self.orphans = still;
        let mut deleted = 0;
        for object in orphaned {
            let since = self.orphans.get(&object.uid).copied().unwrap_or(now);
            if now.duration_since(since) < grace || owner_is_back::<O>(client, &object.key).await? {
                continue;
            }
            if delete::<K>(client, &object).await? {
                tracing::info!(kind = %K::kind(&()), object = %object.key, "deleted: its owner is gone");
                deleted += 1;
            }
            self.orphans.remove(&object.uid);
        }
        Ok(deleted)
    }
}

/// Namespace, empty for objects of the cluster, and name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    namespace: String,
    name: String,
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.namespace.as_str() {
            "" => f.write_str(&self.name),
            namespace => write!(f, "{namespace}/{}", self.name),
        }
    }
}

struct Listed {
    key: Key,
    uid: String,
    resource_version: Option<String>,
}

/// A kind of the whole cluster, or one of which each object is in a namespace.
pub(crate) trait Scoped: Resource<DynamicType = ()> + Clone + std::fmt::Debug + DeserializeOwned {
    /// The requests for objects of this namespace.
    fn within(client: Client, namespace: &str) -> Api<Self>;
}

impl Scoped for Node {
    fn within(client: Client, _: &str) -> Api<Self> {
        Api::all(client)
    }
}

impl Scoped for CiliumNode {
    fn within(client: Client, _: &str) -> Api<Self> {
        Api::all(client)
    }
}

impl Scoped for Pod {
    fn within(client: Client, namespace: &str) -> Api<Self> {
        Api::namespaced(client, namespace)
    }
}

impl Scoped for CiliumEndpoint {
    fn within(client: Client, namespace: &str) -> Api<Self> {
        Api::namespaced(client, namespace)
    }
}

/// Metadata of all objects of a kind: pods with all their fields would be a hundred times as much.
async fn list<K: Scoped>(client: &Client) -> Result<Vec<Listed>, ClusterError> {
    let api: Api<K> = Api::all(client.clone());
    let action = format!("list {}", K::plural(&()));
    let mut params = ListParams { limit: Some(PAGE), ..ListParams::default() };
    let mut found = Vec::new();
    loop {
        let page = within(&action, api.list_metadata(&params)).await?;
        found.extend(page.items.iter().map(listed));
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params.continue_token = Some(token),
            None => return Ok(found),
        }
    }
}

fn listed<K: Resource<DynamicType = ()>>(object: &PartialObjectMeta<K>) -> Listed {
    Listed {
        key: Key { namespace: object.namespace().unwrap_or_default(), name: object.name_any() },
        uid: object.uid().unwrap_or_default(),
        resource_version: object.resource_version(),
    }
}

async fn owner_is_back<O: Scoped>(client: &Client, key: &Key) -> Result<bool, ClusterError> {
    let api = O::within(client.clone(), &key.namespace);
    let action = format!("get {} {key}", O::kind(&()));
    Ok(within(&action, api.get_metadata_opt(&key.name)).await?.is_some())
}

/// Whether it was deleted; it was not if it is gone or another by now.
async fn delete<K: Scoped>(client: &Client, object: &Listed) -> Result<bool, ClusterError> {
    let api = K::within(client.clone(), &object.key.namespace);
    let preconditions =
        Preconditions { uid: Some(object.uid.clone()), resource_version: object.resource_version.clone() };
    let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
    let action = format!("delete {} {}", K::kind(&()), object.key);
    match within(&action, api.delete(&object.key.name, &params)).await {
        Ok(_) => Ok(true),
        Err(ClusterError::Request { source, .. }) if matches!(source.code(), Some(404 | 409)) => Ok(false),
        Err(error) => Err(error),
    }
}

async fn within<T>(action: &str, answer: impl Future<Output = Result<T, kube::Error>>) -> Result<T, ClusterError> {
    match tokio::time::timeout(LIMIT, answer).await {
        Ok(answered) => answered
            .map_err(|error| ClusterError::Request { action: action.to_owned(), source: ApiFailure::from(error) }),
        Err(_) => Err(ClusterError::TimedOut { action: action.to_owned(), limit: LIMIT }),
    }
}
