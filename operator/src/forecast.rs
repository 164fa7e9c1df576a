//! What nodes would get if they were in another mode: the operator's own decisions, made on a copy of the cluster.
//!
//! Whoever plans a change of the mode asks here. The cluster is read once; then the engine that gives blocks to nodes runs
//! against a pretended API server until it has nothing left to do. Nothing is written.

mod world;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use ipnet::IpNet;
use k8s_openapi::{api::core::v1::Node, jiff::Timestamp};
use kinesin_cluster::{CiliumNode, CiliumPodIPPool, ClusterError, PodCIDRClaims, crd::ClaimsSpec};
use kinesin_core::values::Family;
use kinesin_ipam_blocks::{Claims, Mode, Name, NodeView, PoolSpec, Pools, Request, Source, Version, usable_addresses};
use kube::{
    Api, Client, ResourceExt,
    api::{ApiResource, DynamicObject, ListParams},
};
use serde::Deserialize as _;

use crate::{
    ipam::{
        IpamSettings, pools,
        read::{self, Host, PoolView},
        services,
        write::{Requests, code},
    },
    state::State,
};
use world::World;

/// Objects of one answer of the API server.
const PAGE: u32 = 500;
/// More blocks than this nobody's pods need on one node.
const MOST_ROUNDS: usize = 1024;

/// What the API server has of nodes and their addresses.
#[derive(Debug, Clone, Default)]
pub struct Cluster {
    nodes: BTreeMap<Name, NodeView>,
    hosts: BTreeMap<Name, Host>,
    pools: BTreeMap<String, PoolView>,
    claims: BTreeMap<Name, (Version, Claims)>,
    /// Networks of services, and addresses of nodes.
    services: BTreeSet<(IpNet, Name)>,
}

/// How many addresses one node needs of each pool and family; of modes without pools that is `default`.
pub type Needs = BTreeMap<(String, Family), u64>;

/// What nodes shall be.
#[derive(Debug, Clone)]
pub struct Wish {
    /// The mode of every node.
    pub mode: Mode,
    /// What each node needs; one that is not named needs its first blocks.
    pub needs: BTreeMap<String, Needs>,
}

/// A block that a node would get.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Given {
    /// Its pool; empty in modes without pools.
    pub pool: String,
    /// The block.
    pub cidr: IpNet,
}

/// What would become of one node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outlook {
    /// Blocks of the mode that it has then.
    pub blocks: Vec<Given>,
    /// Those that it does not have now.
    pub fresh: Vec<Given>,
    /// Addresses of the mode's blocks by pool and family.
    pub capacity: Needs,
    /// What it would not get, and what to do about it.
    pub lacks: Option<String>,
}

/// What would become of the cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Forecast {
    /// By node.
    pub nodes: BTreeMap<String, Outlook>,
    /// Ranges of the mode that are not served at all, and what to do about it.
    pub refused: Vec<String>,
    /// Ranges of the mode that have addresses of nodes in them.
    pub on_nodes: Vec<String>,
    /// Ranges of the mode of which parts are not given out, and why.
    pub overlaps: Vec<String>,
    /// Pools that are there already and that the settings describe otherwise.
    pub kept_pools: Vec<String>,
}

impl Cluster {
    /// Reads everything that decides who gets which block.
    ///
    /// # Errors
    /// If the API server cannot be asked, or if claims are not as an operator writes them. A definition that is not
    /// installed yet is none: there are no such objects then.
    pub async fn read(client: Client) -> Result<Self, ClusterError> {
        let requests = Requests::new(client.clone(), Arc::new(State::new()));
        let mut cluster = Self { services: services::networks(&requests).await?, ..Self::default() };
        for object in all::<CiliumNode>(&requests, "CiliumNodes").await? {
            cluster.nodes.insert(object.name_any().into(), read::node(&object));
        }
        for object in all::<Node>(&requests, "Nodes").await? {
            if let Ok(host) = read::host(&object) {
                cluster.hosts.insert(object.name_any().into(), host);
            }
        }
        for object in all::<CiliumPodIPPool>(&requests, "CiliumPodIPPools").await? {
            if let Ok(pool) = read::pool(&object) {
                cluster.pools.insert(object.name_any(), pool);
            }
        }
        for object in all::<PodCIDRClaims>(&requests, "PodCIDRClaims").await? {
            // What cannot be read is not used by the operator either; blocks on CiliumNodes are known without it.
            let claims = ClaimsSpec::deserialize(&object.data["spec"]).ok().and_then(|spec| read::claims(&spec).ok());
            if let Some(claims) = claims {
                cluster.claims.insert(object.name_any().into(), (read::version(&object), claims));
            }
        }
        Ok(cluster)
    }

    /// CiliumNodes as they are.
    #[must_use]
    pub fn nodes(&self) -> &BTreeMap<Name, NodeView> {
        &self.nodes
    }

    /// Pod CIDRs that Kubernetes gave to a node.
    #[must_use]
    pub fn host_cidrs(&self, node: &str) -> &[IpNet] {
        self.hosts.get(node).map_or(&[], |host| &host.cidrs)
    }

    /// Names of the Nodes.
    pub fn hosts(&self) -> impl Iterator<Item = &Name> {
        self.hosts.keys()
    }

    /// What would become of the cluster with these settings if its nodes were as wished.
    #[must_use]
    pub fn forecast(&self, settings: &IpamSettings, wish: &Wish) -> Forecast {
        let pools = self.pools_of(settings);
        let served = pools::served(settings, &pools);
        let mut world = World::new(self.wished(wish), self.claims.clone());
        let mut engine = crate::ipam::engine_for(settings);
        world.feed(&mut engine, &served, &self.reserved(), &self.hosts);
        world.settle(&mut engine);
        if wish.mode == Mode::ClusterPool && settings.grow {
            // As the agents do: a node that runs low says so, and gets one block more each time.
            for _ in 0..MOST_ROUNDS {
                let before = world.listed();
                if !world.run_low(&mut engine, |name, view| short(wish, name, view, self.host_cidrs(name))) {
                    break;
                }
                world.settle(&mut engine);
                if world.listed() <= before {
                    break;
                }
            }
        }
        let mut forecast = Forecast::default();
        let sources: Vec<Source> = match wish.mode {
            Mode::Kubernetes => Vec::new(),
            Mode::ClusterPool => vec![Source::cluster_pool()],
            Mode::MultiPool => pools.keys().map(|name| Source::pool(name)).collect(),
        };
        for source in &sources {
            self.judge(source, &served, &mut forecast);
        }
        for name in settings.auto_pools.keys().filter(|name| self.pools.contains_key(*name)) {
            if self.differs(name, settings) {
                forecast.kept_pools.push(name.clone());
            }
        }
        for (name, view) in &world.nodes {
            let before = self.nodes.get(name);
            let blocks = blocks_of(view, wish.mode, self.host_cidrs(name));
            let had = before.map(|view| blocks_of(view, wish.mode, self.host_cidrs(name))).unwrap_or_default();
            let fresh = blocks.iter().filter(|block| !had.contains(block)).cloned().collect();
            let capacity = capacity(&blocks);
            let lacks = world.reports.get(name).and_then(|report| report.condition.clone());
            let lacks = lacks.filter(|(ok, _, _)| !ok).map(|(_, _, message)| message);
            forecast.nodes.insert(name.to_string(), Outlook { blocks, fresh, capacity, lacks });
        }
        forecast
    }

    /// The pools that there are, and those that the settings would have made.
    fn pools_of(&self, settings: &IpamSettings) -> BTreeMap<String, PoolView> {
        let mut pools = self.pools.clone();
        for (name, spec) in &settings.auto_pools {
            pools.entry(name.clone()).or_insert_with(|| PoolView {
                // The youngest of all.
                created: Some(Timestamp::MAX),
                deleted: false,
                spec: PoolSpec {
                    source: Source::pool(name),
                    ipv4: spec.ipv4.clone().map(|ranges| (ranges.cidrs, ranges.mask_size)),
                    ipv6: spec.ipv6.clone().map(|ranges| (ranges.cidrs, ranges.mask_size)),
                },
                conditions: Vec::new(),
                version: String::new(),
            });
        }
        pools
    }

    fn differs(&self, name: &str, settings: &IpamSettings) -> bool {
        let (Some(there), Some(wanted)) = (self.pools.get(name), settings.auto_pools.get(name)) else { return false };
        let ipv4 = wanted.ipv4.clone().map(|ranges| (ranges.cidrs, ranges.mask_size));
        let ipv6 = wanted.ipv6.clone().map(|ranges| (ranges.cidrs, ranges.mask_size));
        (&there.spec.ipv4, &there.spec.ipv6) != (&ipv4, &ipv6)
    }

    /// Networks of which nothing is given out.
    fn reserved(&self) -> BTreeSet<(IpNet, Name)> {
        let of_hosts = self.addresses_of_nodes();
        self.services.iter().cloned().chain(of_hosts).collect()
    }

    fn addresses_of_nodes(&self) -> BTreeSet<(IpNet, Name)> {
        let of = |(name, host): (&Name, &Host)| {
            let what: Name = format!("node {name}").into();
            host.addresses.iter().map(|address| (IpNet::from(*address), what.clone())).collect::<Vec<_>>()
        };
        self.hosts.iter().flat_map(of).collect()
    }

    /// What is wrong with the ranges of one pool.
    fn judge(&self, source: &Source, served: &Pools, forecast: &mut Forecast) {
        forecast.refused.extend(served.refused(source).iter().cloned());
        let nodes = self.addresses_of_nodes();
        for range in Family::ALL.iter().flat_map(|family| served.ranges(source, *family)) {
            let inside = |networks: &BTreeSet<(IpNet, Name)>| {
                let found = networks
                    .iter()
                    .find(|(network, _)| range.cidr().contains(network) || network.contains(&range.cidr()));
                found.map(|(network, what)| format!("{} of {source} overlaps {network} ({what})", range.cidr()))
            };
            forecast.on_nodes.extend(inside(&nodes));
            forecast.overlaps.extend(inside(&self.services));
            let hosts = self.hosts.iter().flat_map(|(name, host)| {
                let what: Name = format!("pod CIDR of Node {name}").into();
                host.cidrs.iter().map(move |cidr| (*cidr, what.clone()))
            });
            forecast.overlaps.extend(inside(&hosts.collect()));
        }
    }

    /// The CiliumNodes as their agents would write them in the mode.
    fn wished(&self, wish: &Wish) -> BTreeMap<Name, NodeView> {
        let mut nodes = self.nodes.clone();
        for (name, view) in &mut nodes {
            view.mode = Some(wish.mode);
            view.report = kinesin_ipam_blocks::Report::default();
            match wish.mode {
                Mode::Kubernetes => {
                    for cidr in self.host_cidrs(name).iter().map(ToString::to_string) {
                        if !view.pod_cidrs.contains(&cidr) {
                            view.pod_cidrs.push(cidr);
                        }
                    }
                }
                // Blocks of this mode that still drain are used again; those that are being given back are not.
                Mode::ClusterPool => {}
                Mode::MultiPool => {
                    let mut requested: BTreeMap<Name, Request> = view.requested.clone();
                    for ((pool, family), needed) in wish.needs.get(&**name).into_iter().flatten() {
                        let request = requested.entry(pool.as_str().into()).or_default();
                        let of_family = match family {
                            Family::V4 => &mut request.ipv4,
                            Family::V6 => &mut request.ipv6,
                        };
                        *of_family = (*of_family).max(*needed);
                    }
                    view.requested = requested;
                }
            }
        }
        nodes
    }
}

/// A CiliumNode as the operator sees it; nothing is refused for what others wrote into it.
#[must_use]
pub fn view(object: &DynamicObject) -> NodeView {
    read::node(object)
}

/// Families in which a node in cluster-pool has fewer addresses than it needs.
fn short(wish: &Wish, name: &str, view: &NodeView, host: &[IpNet]) -> Vec<Family> {
    let Some(needs) = wish.needs.get(name) else { return Vec::new() };
    let capacity = capacity(&blocks_of(view, Mode::ClusterPool, host));
    let lacks = |((_, family), needed): (&(String, Family), &u64)| {
        let has = capacity.iter().filter(|((_, of), _)| of == family).map(|(_, count)| *count).sum::<u64>();
        (has < *needed).then_some(*family)
    };
    needs.iter().filter_map(lacks).collect()
}

/// The blocks of a mode that a CiliumNode lists; `host` are the Node's own ranges.
#[must_use]
pub fn blocks_of(view: &NodeView, mode: Mode, host: &[IpNet]) -> Vec<Given> {
    let parse = |text: &String| text.parse::<IpNet>().ok().map(|cidr| cidr.trunc());
    let direct = |of_host: bool| {
        let cidrs = view.pod_cidrs.iter().filter_map(parse).filter(move |cidr| host.contains(cidr) == of_host);
        cidrs.map(|cidr| Given { pool: String::new(), cidr }).collect()
    };
    match mode {
        Mode::Kubernetes => direct(true),
        Mode::ClusterPool => direct(false),
        Mode::MultiPool => {
            let of = |pool: &kinesin_ipam_blocks::Pool| {
                let cidrs = pool.cidrs.iter().filter_map(parse);
                cidrs.map(|cidr| Given { pool: pool.pool.clone(), cidr }).collect::<Vec<_>>()
            };
            view.allocated.iter().flat_map(of).collect()
        }
    }
}

fn capacity(blocks: &[Given]) -> Needs {
    let mut capacity = Needs::new();
    for block in blocks {
        let key = (block.pool.clone(), Family::of_net(&block.cidr));
        *capacity.entry(key).or_default() += usable_addresses(&block.cidr);
    }
    capacity
}

/// Every object of a kind, page by page; none if the API server does not know the kind.
async fn all<K>(requests: &Requests, what: &str) -> Result<Vec<DynamicObject>, ClusterError>
where
    K: kube::Resource<DynamicType = ()>,
{
    let api: Api<DynamicObject> = Api::all_with(requests.client(), &ApiResource::erase::<K>(&()));
    let mut params = ListParams::default().limit(PAGE);
    let mut objects = Vec::new();
    loop {
        let page = match requests.read(&format!("list {what}"), api.list(&params)).await {
            Ok(page) => page,
            Err(error) if code(&error) == Some(404) => return Ok(objects),
            Err(error) => return Err(error),
        };
        objects.extend(page.items);
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params.continue_token = Some(token),
            None => return Ok(objects),
        }
    }
}
