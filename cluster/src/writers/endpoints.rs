//! Publishes the CiliumEndpoints of one node.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    hash::{DefaultHasher, Hasher as _},
    net::IpAddr,
};

use futures::StreamExt;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::{
    Api, Client, ResourceExt,
    api::{ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, Preconditions},
};

use super::of_families;
use crate::{
    AGENT_MANAGER,
    crd::{
        AddressPair, CiliumEndpoint, EndpointIdentity, EndpointNetworking, EndpointSpec, EndpointStatus,
        ExternalIdentifiers,
    },
    error::ClusterError,
    request::within,
};

/// Objects a page of a list has at most: some kilobytes each while they are read. A node has 250 at most in practice.
const PAGE: u32 = 100;
/// Writes at the same time. A node that starts with a hundred pods must not flood the API server.
const AT_ONCE: usize = 8;

/// What an agent says about one endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointPublication {
    /// Namespace of the pod.
    pub namespace: String,
    /// Name of the pod.
    pub pod_name: String,
    /// UID of the pod, which owns the object; empty if it is not known yet.
    pub pod_uid: String,
    /// Number of the endpoint on its node.
    pub id: u16,
    /// Security identity.
    pub identity: u32,
    /// Labels of the identity, as `source:key=value`.
    pub labels: Vec<String>,
    /// Addresses, at most one of each family.
    pub addresses: Vec<IpAddr>,
    /// Address of the node.
    pub node_ip: IpAddr,
    /// ID of the sandbox.
    pub container_id: String,
    /// `CONTAINERID:IFNAME`.
    pub attachment_id: String,
    /// `ready`, `creating`, ...: one of the states of the schema.
    pub state: String,
}

impl EndpointPublication {
    fn key(&self) -> Key {
        (self.namespace.clone(), self.pod_name.clone())
    }
}

/// Namespace and name.
type Key = (String, String);

/// Publishes the endpoints of one node and remembers what it wrote, so that a repeated call costs no request.
///
/// What others changed in the objects meanwhile is seen by a new publisher, or after [`forget`](Self::forget).
pub struct EndpointPublisher {
    client: Client,
    node_ip: IpAddr,
    /// What the cluster holds of this node; nothing before the first list.
    known: Option<BTreeMap<Key, Known>>,
}

/// One object as it was read or written last.
#[derive(Debug, Clone)]
struct Known {
    resource_version: Option<String>,
    uid: Option<String>,
    /// Nothing if it cannot be read, which is reason to write it anew.
    says: Option<Digest>,
}

/// What counts of an object, without the object: an agent remembers this of each of its pods for as long as it runs, and
/// most of an object is who manages which field.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Digest {
    /// UIDs of its owners.
    owners: BTreeSet<String>,
    /// Hash of what an agent says in the status.
    status: u64,
}

impl fmt::Debug for EndpointPublisher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EndpointPublisher").field("node_ip", &self.node_ip).field("known", &self.known).finish()
    }
}

impl EndpointPublisher {
    /// A publisher for the node with this address; asks nothing yet.
    #[must_use]
    pub fn new(client: Client, node_ip: IpAddr) -> Self {
        Self { client, node_ip, known: None }
    }

    /// Looks at the cluster again at the next call, and repairs what it finds.
    pub fn forget(&mut self) {
        self.known = None;
    }

    /// Makes the CiliumEndpoints of this node those of `desired`, and answers how many objects changed.
    ///
    /// Objects of this node (`status.networking.node`) that are not desired are deleted, no others.
    ///
    /// # Errors
    /// `Request` or `TimedOut` if the objects cannot be listed; `Partial` if some could not be written, after all
    /// others were. The next call tries those again.
    pub async fn publish(&mut self, desired: &[EndpointPublication]) -> Result<usize, ClusterError> {
        if self.known.is_none() {
            self.known = Some(self.list().await?);
        }
        let known = self.known.get_or_insert_default();
        let wanted: BTreeMap<Key, &EndpointPublication> =
            desired.iter().map(|endpoint| (endpoint.key(), endpoint)).collect();
        let (client, node_ip) = (&self.client, self.node_ip);
        // Owned, since a stream of closures over borrowed steps is not `Send` enough for a spawned task.
        let mut steps: Vec<(Key, Option<Known>, Option<CiliumEndpoint>)> = Vec::new();
        for (key, endpoint) in &wanted {
            let (found, object) = (known.get(key), object(endpoint));
            if !found.and_then(|found| found.says.as_ref()).is_some_and(|found| same(found, &object)) {
                steps.push((key.clone(), found.cloned(), Some(object)));
            }
        }
        for (key, found) in known.iter().filter(|(key, _)| !wanted.contains_key(*key)) {
            steps.push((key.clone(), Some(found.clone()), None));
        }
        let work = steps.into_iter().map(|(key, found, object)| async move {
            let done = match object {
                Some(object) => apply(client, &key, &object).await.map(Some),
                None => delete(client, &key, found.as_ref(), node_ip).await.map(|()| None),
            };
            (key, found, done)
        });
        let done: Vec<_> = futures::stream::iter(work).buffer_unordered(AT_ONCE).collect().await;
        let (mut changed, mut failed, mut retryable) = (0, Vec::new(), false);
        for (key, found, done) in done {
            match done {
                Ok(Some(written)) => {
                    let before = found.and_then(|found| found.resource_version);
                    changed += usize::from(before.is_none() || before != written.resource_version);
                    known.insert(key, written);
                }
                Ok(None) => {
                    changed += 1;
                    known.remove(&key);
                }
                Err(error) => {
                    retryable |= error.retryable();
                    failed.push(error.line());
                    // It may have been written all the same: what the cluster holds is not known any more.
                    if let Some(known) = known.get_mut(&key) {
                        known.says = None;
                    }
                }
            }
        }
        if failed.is_empty() { Ok(changed) } else { Err(ClusterError::Partial { changed, failed, retryable }) }
    }

    /// The objects of this node. Definitions from elsewhere may not know the field selector; then all are read.
    async fn list(&self) -> Result<BTreeMap<Key, Known>, ClusterError> {
        let selector = format!("status.networking.node={}", self.node_ip);
        match self.list_by(Some(selector)).await {
            Err(ClusterError::Request { source, .. }) if source.code() == Some(400) => self.list_by(None).await,
            listed => listed,
        }
    }

    async fn list_by(&self, field_selector: Option<String>) -> Result<BTreeMap<Key, Known>, ClusterError> {
        let resource = ApiResource::erase::<CiliumEndpoint>(&());
        let api: Api<DynamicObject> = Api::all_with(self.client.clone(), &resource);
        let mut params = ListParams { field_selector, limit: Some(PAGE), ..ListParams::default() };
        let mut found = BTreeMap::new();
        loop {
            let page = within("list CiliumEndpoints", api.list(&params)).await?;
            for object in page.items.into_iter().filter(|object| is_on(object, self.node_ip)) {
                let key = (object.namespace().unwrap_or_default(), object.name_any());
                let known = Known {
                    resource_version: object.resource_version(),
                    uid: object.uid(),
                    says: object.try_parse().ok().as_ref().and_then(digest),
                };
                found.insert(key, known);
            }
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => params.continue_token = Some(token),
                None => return Ok(found),
            }
        }
    }
}

/// One call of [`EndpointPublisher::publish`] without memory: lists, and writes what differs.
///
/// # Errors
/// As there.
pub async fn publish_endpoints(
    client: &Client,
    node_ip: IpAddr,
    desired: &[EndpointPublication],
) -> Result<usize, ClusterError> {
    EndpointPublisher::new(client.clone(), node_ip).publish(desired).await
}

fn is_on(object: &DynamicObject, node_ip: IpAddr) -> bool {
    let node = object.data.pointer("/status/networking/node").and_then(serde_json::Value::as_str);
    node.and_then(|text| text.parse::<IpAddr>().ok()) == Some(node_ip)
}

async fn apply(client: &Client, (namespace, name): &Key, object: &CiliumEndpoint) -> Result<Known, ClusterError> {
    let api: Api<CiliumEndpoint> = Api::namespaced(client.clone(), namespace);
    let params = PatchParams::apply(AGENT_MANAGER).force();
    let action = format!("apply CiliumEndpoint {namespace}/{name}");
    let written = within(&action, api.patch(name, &params, &Patch::Apply(object))).await?;
    Ok(Known { resource_version: written.resource_version(), uid: written.uid(), says: digest(&written) })
}

/// Deletes the object as it was seen. If it is another by now, it is looked at again: a pod of the same name may run
/// on another node, whose agent has taken the object over.
async fn delete(
    client: &Client,
    (namespace, name): &Key,
    found: Option<&Known>,
    node_ip: IpAddr,
) -> Result<(), ClusterError> {
    let resource = ApiResource::erase::<CiliumEndpoint>(&());
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, &resource);
    let action = format!("delete CiliumEndpoint {namespace}/{name}");
    let preconditions =
        found.map(|found| Preconditions { resource_version: found.resource_version.clone(), uid: found.uid.clone() });
    match delete_once(&api, &action, name, preconditions).await {
        Err(ClusterError::Request { source, .. }) if source.code() == Some(409) => {}
        done => return done,
    }
    let Some(now) = within(&action, api.get_opt(name)).await?.filter(|object| is_on(object, node_ip)) else {
        return Ok(());
    };
    let preconditions = Preconditions { resource_version: now.resource_version(), uid: now.uid() };
    delete_once(&api, &action, name, Some(preconditions)).await
}

async fn delete_once(
    api: &Api<DynamicObject>,
    action: &str,
    name: &str,
    preconditions: Option<Preconditions>,
) -> Result<(), ClusterError> {
    let params = DeleteParams { preconditions, ..DeleteParams::default() };
    match within(action, api.delete(name, &params)).await {
        Err(ClusterError::Request { source, .. }) if source.code() == Some(404) => Ok(()),
        done => done.map(|_| ()),
    }
}

/// Whether `found` says what `wanted` says; owners that others added do not count.
fn same(found: &Digest, wanted: &CiliumEndpoint) -> bool {
    digest(wanted).is_some_and(|wanted| found.owners.is_superset(&wanted.owners) && found.status == wanted.status)
}

/// What counts of an object; fields that others write do not. Nothing of one without a status.
fn digest(object: &CiliumEndpoint) -> Option<Digest> {
    let EndpointStatus { id, state, identity, networking, external_identifiers, .. } = object.status.as_ref()?;
    let text = serde_json::to_vec(&(id, state, identity, networking, external_identifiers)).ok()?;
    let mut hasher = DefaultHasher::new();
    hasher.write(&text);
    let owners = object.owner_references().iter().map(|owner| owner.uid.clone()).collect();
    Some(Digest { owners, status: hasher.finish() })
}

fn object(endpoint: &EndpointPublication) -> CiliumEndpoint {
    let (ipv4, ipv6) = of_families(&endpoint.addresses);
    let text = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
    // Cilium sorts them too; an order of ours would be a change to others.
    let labels: BTreeSet<String> = endpoint.labels.iter().cloned().collect();
    let addressing = if endpoint.addresses.is_empty() { Vec::new() } else { vec![AddressPair { ipv4, ipv6 }] };
    let mut object = CiliumEndpoint::new(&endpoint.pod_name, EndpointSpec {});
    object.metadata.namespace = Some(endpoint.namespace.clone());
    if !endpoint.pod_uid.is_empty() {
        object.metadata.owner_references = Some(vec![OwnerReference {
            api_version: "v1".to_owned(),
            kind: "Pod".to_owned(),
            name: endpoint.pod_name.clone(),
            uid: endpoint.pod_uid.clone(),
            ..OwnerReference::default()
        }]);
    }
    object.status = Some(EndpointStatus {
        id: Some(endpoint.id.into()),
        state: text(&endpoint.state),
        identity: Some(EndpointIdentity {
            id: Some(endpoint.identity.into()),
            labels: Some(labels.into_iter().collect()),
        }),
        networking: Some(EndpointNetworking { addressing, node: Some(endpoint.node_ip.to_string()) }),
        external_identifiers: Some(ExternalIdentifiers {
            container_id: text(&endpoint.container_id),
            cni_attachment_id: text(&endpoint.attachment_id),
            k8s_namespace: text(&endpoint.namespace),
            k8s_pod_name: text(&endpoint.pod_name),
            pod_name: Some(format!("{}/{}", endpoint.namespace, endpoint.pod_name)),
            ..ExternalIdentifiers::default()
        }),
        ..EndpointStatus::default()
    });
    object
}
